"""Lab hosts with packages to update: an apt repository of their own, with a security source."""

from pathlib import Path

from lab import Host
from support import on

REPOSITORY = (Path(__file__).parent / "apt_repository.sh").read_text()
START = """
[ -e /root/apt.kept ] || cp -a /etc/apt /root/apt.kept
apt-mark unhold plain libsafe heldback heldsafe wants > /dev/null 2>&1 || true
dpkg --purge plain libsafe heldback heldsafe wants > /dev/null 2>&1 || true
rm -rf /srv/apt /etc/saveos/health.d
for name in plain libsafe heldback heldsafe wants; do package stable $name 1.0; done
dpkg -i /srv/apt/stable/*.deb > /dev/null
rm /srv/apt/stable/*
package stable plain 1.1; package stable libsafe 1.2; package stable heldback 1.1
package stable wants 1.1 "Depends: missing"
package security libsafe 1.0+deb1; package security heldsafe 1.0+deb1
changelog libsafe 1.0+deb1 "libsafe (1.0+deb1) security; urgency=high

  * Mends CVE-2026-0001 and CVE-2026-0002.

 -- Lab <lab@example.org>  Mon, 01 Jan 2026 00:00:00 +0000

libsafe (1.0) stable; urgency=low

  * CVE-2020-9999
"
publish stable Lab; publish security Lab-Security
sources stable security
apt-mark hold heldback heldsafe > /dev/null
"""
END = (
    "dpkg --purge --force-hold plain libsafe heldback heldsafe wants; "
    "rm -rf /srv/apt /srv/shop /etc/saveos/health.d; "
    "[ ! -e /root/apt.kept ] || { rm -rf /etc/apt && mv /root/apt.kept /etc/apt; }"
)


def prepare(host: Host) -> None:
    """Bring a host to packages at 1.0, with an ordinary, a security, two held and an impossible update."""
    on(host, f"{REPOSITORY}\n{START}")


def put_back(host: Host) -> None:
    """Take the packages away and give the host its own sources again."""
    on(host, END)
