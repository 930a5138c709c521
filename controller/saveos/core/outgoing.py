"""Where an outgoing request may go: public addresses, and what the installation allows by name.

People give addresses (webhooks, mail servers); this machine stands inside a network that they may
not. A name is judged by the very address that is connected to, so no answer of a name server, no
redirect and no library between can lead elsewhere.
"""

import os
import socket
import sys
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

Network = IPv4Network | IPv6Network

GLOBAL_V6 = IPv6Network("2000::/3")
NAT64 = IPv6Network("64:ff9b::/96")
# Global by the registry's word, and yet not for us: a cloud's own service, and reserved ranges
RESERVED = tuple(map(ip_network, ("168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24", "2001::/23")))
METADATA = frozenset({"169.254.169.254", "fd00:ec2::254", "100.100.100.200", "192.0.0.192"})
STARTS_PROGRAMS = frozenset(
    {
        "subprocess.Popen",
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.spawn",
        "os.fork",
        "os.forkpty",
        "pty.spawn",
    }
)


class Refused(PermissionError):
    """A connection, file or program that this process may not reach. The text says which, and why."""


def parse_networks(text: str) -> tuple[Network, ...]:
    """Return the networks in a list such as "10.0.0.0/8,fd00::/8". Raises ValueError naming a bad one."""
    found: list[Network] = []
    for word in filter(None, (each.strip() for each in text.split(","))):
        try:
            found.append(ip_network(word))
        except ValueError as error:
            raise ValueError(f"{word!r} is no network such as 10.0.0.0/8 or 10.1.2.3") from error
    return tuple(found)


def fault(host: str, allowed: Sequence[Network]) -> str:
    """Return why the IP address `host` may not be connected to; empty when it may.

    Anything but a plain IP address is refused: other spellings (0x7f.1, 127.1) are names to us.
    """
    try:
        address = _unwrap(ip_address(host.partition("%")[0]))
    except ValueError:
        return f"{host[:100]!r} is no IP address"
    if any(address in network for network in allowed):
        return ""
    kind = _kind(address)
    return f"{address} is {kind}: allow it with SAVEOS_OUTGOING_ALLOW, or use a public address" if kind else ""


def _unwrap(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address that an IPv6 address stands for, else the address."""
    if isinstance(address, IPv6Address):
        if address in NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or address
    return address


def _kind(address: IPv4Address | IPv6Address) -> str:
    """Return what keeps an address from being a public one, as a person would say it; empty when nothing."""
    kinds = {
        "a cloud's metadata service": str(address) in METADATA,
        "this machine itself": address.is_unspecified or address.is_loopback,
        "link-local": address.is_link_local,
        "multicast": address.is_multicast,
        "not public": not address.is_global
        or any(address in network for network in RESERVED)
        or (isinstance(address, IPv6Address) and address not in GLOBAL_V6),
    }
    return next((kind for kind, holds in kinds.items() if holds), "")


def resolve(host: str, port: int, allowed: Sequence[Network]) -> str:
    """Look a name up and return why none of its addresses may be connected to; empty when one may.

    For an early word to a person only: what counts is the check at the connection. Raises OSError
    when the name has no address.
    """
    found = {str(entry[4][0]) for entry in socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)}
    faults = [fault(each, allowed) for each in sorted(found)]
    return "" if not all(faults) else faults[0]


def confine(allowed: Sequence[Network], refused: Callable[[str], None] = lambda _: None) -> None:
    """Limit this whole process, for good, to connections to vetted addresses.

    It then starts no program, listens nowhere, sends no datagram of its own and opens no file but
    the code it is made of. `refused` is told each reason, since libraries swallow exceptions. Use
    it in a process of its own: an audit hook cannot be taken back.
    """
    roots = tuple({os.path.realpath(each) for each in _code()})

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        reason = ""
        if event == "socket.connect":
            reason = _connect_fault(arguments[1], allowed)
        elif event in ("socket.bind", "socket.sendto") or (event == "socket.sendmsg" and arguments[1]):
            reason = "it may only connect"
        elif event == "open":
            reason = _open_fault(arguments[0], arguments[2], roots)
        elif event in STARTS_PROGRAMS:
            reason = "it may start no program"
        if reason:
            refused(reason)
            raise Refused(reason)

    sys.addaudithook(hook)


def _connect_fault(address: Any, allowed: Sequence[Network]) -> str:
    if not (isinstance(address, tuple) and len(address) >= 2 and type(address[0]) is str):
        return "it may connect over IP only"
    return fault(address[0], allowed)


def _open_fault(path: Any, flags: Any, roots: tuple[str, ...]) -> str:
    if isinstance(path, int):
        return ""
    if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
        return "it may write no file"
    name = os.path.realpath(os.fsdecode(path))
    inside = any(name == root or name.startswith(root + os.sep) for root in roots)
    return "" if inside else "it may read no file"


def _code() -> list[str]:
    """Return the directories that hold this program, its libraries and what those always read."""
    package = Path(__file__).resolve().parents[1]
    trust = (
        "/etc/ssl",
        "/etc/mime.types",
        "/usr/share/zoneinfo",
        "/usr/share/mime",
        "/dev/null",
        "/dev/urandom",
    )
    return [
        str(package),
        sys.prefix,
        *(each for each in sys.path if each),
        *trust,
    ]
