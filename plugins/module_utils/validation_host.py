# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Checks of any host: disks and inodes, clock, names, time zone, sshd, and the ends of certificates."""

from __future__ import annotations

import ctypes
import glob
import os
import re
import socket
import ssl
import stat
import time

from ansible_collections.saveos.fleet.plugins.module_utils.converge import read, run
from ansible_collections.saveos.fleet.plugins.module_utils.validation_core import Check, Finding, attributes

MIB = 1024 * 1024
PSEUDO = ("/proc", "/sys", "/dev", "/run")
REAL = ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "overlay", "tmpfs", "vfat", "bcachefs")
NEAR_DAYS = 14
USUAL = "/etc/letsencrypt/live"  # the default; a host need not have it
ZONES = "/usr/share/zoneinfo"


def checks(options):
    """The checks of any host. options: names, certificates, zone, now (the controller's clock) and ca."""
    return [
        Check("disks", disks, 40),
        Check("clock", lambda: clock(options["now"], time.time())),
        Check("names", lambda: names(options["names"]), 60),
        Check("time zone", lambda: time_zone(options["zone"])),
        Check("sshd", sshd, 60),
        Check("ssh certificates", ssh_certificates, 60),
        Check("tls certificates", lambda: tls_certificates(options["certificates"]), 60),
        Check("temporary directories", temporary),
    ]


def mounts():
    """Mount points of real, writable file systems, each device once."""
    seen = set()
    for line in (read("/proc/self/mounts") or "").splitlines():
        words = line.split()
        if len(words) < 4 or words[2] not in REAL or "ro" in words[3].split(","):
            continue
        place = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), words[1])
        if (
            place.startswith(tuple(f"{each}/" for each in PSEUDO))
            or place in PSEUDO
            or not os.path.isdir(place)
        ):
            continue
        try:
            device = os.stat(place).st_dev
        except OSError:
            continue
        if device not in seen:
            seen.add(device)
            yield place


def disks():
    """Space and inodes of every real file system."""
    for place in mounts():
        try:
            found = os.statvfs(place)
        except OSError:
            continue
        total, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
        if total and free < max(total * 0.05, min(64 * MIB, total * 0.5)):
            yield Finding(
                "disk-full",
                "critical" if free < total * 0.02 else "warning",
                f"The file system of {place} is nearly full.",
                "Free space: saveos maintenance cleanup, or a larger disk.",
                place,
                f"{free // MIB} MiB of {total // MIB} MiB free",
            )
        if found.f_files and found.f_favail < found.f_files * 0.05:
            yield Finding(
                "inodes-full",
                "critical" if found.f_favail < found.f_files * 0.02 else "warning",
                f"The file system of {place} can hold hardly any more files.",
                "Remove directories with many small files (caches, sessions, mail queues).",
                place,
                f"{found.f_favail} of {found.f_files} inodes free",
            )


def clock(told, now):
    """Is the clock synchronised, and near that of the machine that asks?"""
    if synchronised() is False and not in_container():
        yield Finding(
            "clock-unsynchronised",
            "warning",
            "The clock of this host is not synchronised.",
            "Run an NTP service: apt-get install systemd-timesyncd (or chrony).",
        )
    apart = round(now - told) if told else 0
    if abs(apart) > 60:
        yield Finding(
            "clock-off",
            "critical" if abs(apart) > 300 else "warning",
            "The clock of this host differs from that of the machine that asked.",
            "Synchronise both with NTP: retention and certificates count on the right time.",
            "",
            f"{apart:+d} s",
        )


def in_container():
    """A container has no clock of its own; its machine has."""
    return any(os.path.exists(path) for path in ("/run/systemd/container", "/run/.containerenv", "/.dockerenv"))


def synchronised():
    """The kernel's own word on its clock; None where it cannot be asked."""

    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(512))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != 5  # TIME_ERROR


def resolves(name):
    """Does a name lead to an address on this host? It may wait for the resolver."""
    try:
        return bool(socket.getaddrinfo(name, None))
    except (OSError, UnicodeError):
        return False


def is_address(name):
    """An address needs no resolver."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, name)
        except (OSError, UnicodeError):
            continue
        return True
    return False


def names(wanted):
    """Name servers, the host's own name, and the names that backups need."""
    servers = re.findall(r"^\s*nameserver\s+(\S+)", read("/etc/resolv.conf") or "", re.MULTILINE)
    if not servers:
        yield Finding(
            "dns-none",
            "warning",
            "This host has no name server.",
            "Name one in /etc/resolv.conf, or in what writes that file.",
            "/etc/resolv.conf",
        )
    own = socket.gethostname()
    if (
        own
        and not re.search(rf"^[^#\n]*\s{re.escape(own)}(\s|$)", read("/etc/hosts") or "", re.MULTILINE)
        and not resolves(own)
    ):
        yield Finding(
            "hostname-unknown",
            "warning",
            f"This host cannot resolve its own name {own}, which makes sudo and mail wait.",
            f"Add a line for it to /etc/hosts: 127.0.1.1 {own}",
            own,
        )
    for name in dict.fromkeys(name for name in wanted if name and not is_address(name)):
        if not resolves(name):
            yield Finding(
                "dns-fails",
                "critical",
                f"The name {name} cannot be resolved on this host.",
                "Correct the name, the name server, or add a line to /etc/hosts.",
                name,
                f"name servers: {', '.join(servers) or 'none'}",
            )


def time_zone(wanted):
    """Is the host's time zone one that exists, told the same everywhere, and the policy's zone known?"""
    link = os.readlink("/etc/localtime") if os.path.islink("/etc/localtime") else ""
    if link and not os.path.exists("/etc/localtime"):
        yield Finding(
            "time-zone-broken",
            "warning",
            "The time zone of this host does not exist, so it counts in UTC.",
            "timedatectl set-timezone Europe/Berlin (or your own), or install tzdata.",
            "/etc/localtime",
            f"-> {link}",
        )
    told = (read("/etc/timezone") or "").strip()
    name = link.partition("zoneinfo/")[2]
    if told and name and os.path.exists("/etc/localtime") and not same_zone(told, name):
        yield Finding(
            "time-zone-differs",
            "warning",
            "/etc/timezone and /etc/localtime name different time zones.",
            f"timedatectl set-timezone {name}",
            "/etc/timezone",
            f"{told} and {name}",
        )
    if wanted and os.path.isdir(ZONES) and not os.path.exists(f"{ZONES}/{wanted}"):
        yield Finding(
            "time-zone-unknown",
            "critical",
            f"The policy's time zone {wanted} is not known on this host, so its backups may never start.",
            "Install tzdata, or correct the zone of the policy.",
            wanted,
        )


def same_zone(one, other):
    """Two names may mean one zone (Etc/UTC and UTC)."""
    if one == other:
        return True
    try:
        with open(f"{ZONES}/{one}", "rb") as first, open(f"{ZONES}/{other}", "rb") as second:
            return first.read(65536) == second.read(65536)
    except OSError:
        return False


def sshd():
    """Would sshd start again with its configuration?"""
    program = "/usr/sbin/sshd"
    if not os.path.exists(program):
        return
    done = run([program, "-t"], timeout=20)
    said = [line for line in done.stderr.splitlines() if "privilege separation directory" not in line]
    if done.returncode and said:
        yield Finding(
            "sshd-config",
            "critical",
            "sshd would not start again with its configuration: nobody could reach this host.",
            "Correct it (sshd -t says the line), before sshd or the host restarts.",
            "/etc/ssh/sshd_config",
            "\n".join(said)[-500:],
        )


def ssh_certificates():
    """Ends of SSH certificates of this host."""
    for file in sorted(glob.glob("/etc/ssh/*-cert.pub")) + sorted(glob.glob("/etc/saveos/ssh/*-cert.pub")):
        said = run(["ssh-keygen", "-L", "-f", file], timeout=20).stdout
        match = re.search(r"Valid: from \S+ to (\S+)", said)
        if not match:
            continue  # one without an end says: Valid: forever
        try:
            end = time.mktime(time.strptime(match[1], "%Y-%m-%dT%H:%M:%S"))
        except ValueError:
            continue
        yield from ending("ssh-certificate", file, end, "Have the SSH certificate signed anew.")


def ending(kind, file, end, fix, now=None):
    """A finding where something ends soon or has ended."""
    left = end - (time.time() if now is None else now)
    if left > NEAR_DAYS * 86400:
        return
    at = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(end))
    if left < 0:
        yield Finding(
            f"{kind}-expired", "critical", f"The certificate {file} has ended.", fix, file, f"ended {at}"
        )
    else:
        yield Finding(f"{kind}-ends", "warning", f"The certificate {file} ends soon.", fix, file, f"ends {at}")


def certificate_files(places):
    """Certificates: the files named, and in the directories named what is called like one; bounded."""
    found = []
    for place in places:
        if os.path.isdir(place):
            for directory, below, files in os.walk(place):
                below.sort()
                found += [
                    os.path.join(directory, name)
                    for name in sorted(files)
                    if re.fullmatch(r"(cert|fullchain)\.pem|.*\.(crt|cer)", name)
                ]
                if len(found) > 500:
                    break
        elif place != USUAL or os.path.lexists(place):
            found.append(place)
    return found[:500]


def tls_certificates(places):
    """Ends of TLS certificates in files."""
    for file in certificate_files(places):
        end = certificate_end(file)
        if end is None:
            yield Finding(
                "tls-certificate-unreadable",
                "info",
                f"{file} is no certificate in PEM form, or cannot be read.",
                "Name another file, or put a certificate there.",
                file,
            )
        else:
            yield from ending("tls-certificate", file, end, "Renew it, and reload the service that shows it.")


def certificate_end(file):
    """When the first certificate of a file ends, in seconds since 1970; None where there is none."""
    try:
        if not stat.S_ISREG(os.stat(file).st_mode):
            return None
    except OSError:
        return None
    done = run(["openssl", "x509", "-noout", "-enddate", "-in", file], timeout=10)
    match = re.search(r"notAfter=(.+)", done.stdout)
    if match:
        return ssl.cert_time_to_seconds(match[1].strip())
    decode = getattr(getattr(ssl, "_ssl", None), "_test_decode_cert", None)  # where there is no openssl
    try:
        return ssl.cert_time_to_seconds(decode(file)["notAfter"]) if decode else None
    except (OSError, ssl.SSLError, KeyError, ValueError):
        return None


def temporary():
    """Directories that everybody may write to need the sticky bit."""
    for place in ("/tmp", "/var/tmp"):
        yield from attributes("temporary-directory", place, 0o1777, what="directory", strict=True)
