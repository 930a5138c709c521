"""Whether an act left a host's file system as it was: a checksum of everything on it but what moves by itself.

    with untouched(host):
        play(lab, "cleanup", "--check")

Contents, modes, owners, links, sizes and times of change of all files count; times of access do not.
"""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from lab import Host
from support import on

# What a running host changes by itself: journal, timers' stamps, logins, the agent's heartbeat and spool, and
# Ansible's own temporary files; in SCRIPT, the private folders of services that come and go.
MOVING = (
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/var/log",
    "/var/lib/systemd",
    "/var/lib/saveos-agent",
    "/root/.ansible",
    "/etc/resolv.conf",
)
SCRIPT = r"""
import hashlib, json, os, stat, sys
moving = set(json.loads(sys.argv[1]))
found = {}
def look(path):
    info = os.lstat(path)
    told = [info.st_mode, info.st_uid, info.st_gid]
    if path not in ("/tmp", "/var/tmp"):
        told.append(info.st_nlink)
    if stat.S_ISLNK(info.st_mode):
        told.append(os.readlink(path))
    elif stat.S_ISREG(info.st_mode):
        told += [info.st_size, info.st_mtime_ns, info.st_ctime_ns]
        with open(path, "rb") as file:
            told.append(hashlib.blake2b(file.read(), digest_size=16).hexdigest())
    elif path not in ("/", "/root", "/tmp", "/var/tmp", "/var/lib"):
        told.append(info.st_mtime_ns)
    return told
for place, folders, files in os.walk("/"):
    folders[:] = [
        each for each in folders
        if os.path.join(place, each) not in moving and not each.startswith("systemd-private-")
    ]
    for name in folders + files:
        path = os.path.join(place, name)
        if path not in moving and not name.endswith(".pyc") and name != "__pycache__":
            try:
                found[path.encode("utf-8", "surrogateescape").hex()] = look(path)
            except OSError:
                pass
json.dump(found, sys.stdout)
"""


def fingerprint(host: Host, *moving: str) -> dict[str, Any]:
    """Describe every file of a host, by its path; `moving` are further paths to leave out."""
    said = on(host, 'python3 -I -c "$1" "$2"', SCRIPT, json.dumps([*MOVING, *moving]))
    found = {bytes.fromhex(path).decode(errors="replace"): told for path, told in json.loads(said).items()}
    assert len(found) > 2000, "there is hardly anything on that host: is the script wrong?"
    return found


def changed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return what differs between two fingerprints."""
    return {
        path: (before.get(path), after.get(path))
        for path in before.keys() | after.keys()
        if before.get(path) != after.get(path)
    }


@contextlib.contextmanager
def untouched(*hosts: Host, moving: tuple[str, ...] = ()) -> Iterator[None]:
    """Require that nothing on the hosts changes inside."""
    before = {host.name: fingerprint(host, *moving) for host in hosts}
    yield
    for host in hosts:
        differs = changed(before[host.name], fingerprint(host, *moving))
        assert not differs, f"changed on {host.name}: {dict(list(differs.items())[:20])}"
