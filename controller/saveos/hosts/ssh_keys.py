"""SSH host keys: read what people paste, or ask a host for its keys (a person then confirms them)."""

import base64
import hashlib
import re
import subprocess

from saveos.core.errors import Invalid, Unavailable

KEY_TYPES = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
)
SCAN_SECONDS = 5
MAX_KEYS = 20


def parse_host_keys(lines: list[str], names: set[str], field: str = "ssh_host_keys") -> list[str]:
    """Return the keys in pasted lines as "type base64", without doubles.

    Lines are `type base64 [comment]`, or known_hosts lines, of which only those for `names` count.
    Raises Invalid with a sentence for anything else.
    """
    keys: list[str] = []
    others: set[str] = set()
    for line in (part.strip() for text in lines for part in text.splitlines()):
        if not line or line.startswith("#"):
            continue
        words = line.split()
        if words[0].startswith("@"):
            raise Invalid(
                f"lines marked {words[0][:20]} are not supported: give the host's own key", field=field
            )
        if words[0] not in KEY_TYPES and len(words) >= 3 and words[1] in KEY_TYPES:
            hosts = _known_hosts_names(words[0], field)
            if not hosts & {name.lower() for name in names}:
                others |= hosts
                continue
            words = words[1:]
        key = _key(words, field)
        if key not in keys:
            keys.append(key)
    if not keys and others:
        raise Invalid(
            f"the lines are for {', '.join(sorted(others)[:5])}, not for this host: give its own key",
            field=field,
        )
    if len(keys) > MAX_KEYS:
        raise Invalid(f"a host has at most {MAX_KEYS} keys", field=field)
    return keys


def fingerprint(key: str) -> str:
    """Return the SHA256 fingerprint of a "type base64" key, as ssh shows it."""
    digest = hashlib.sha256(base64.b64decode(key.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def scan(address: str, port: int) -> list[str]:
    """Ask a host for its keys; unproven until a person has compared the fingerprints.

    Raises Unavailable when nothing answers.
    """
    command = [
        "ssh-keyscan",
        "-T",
        str(SCAN_SECONDS),
        "-p",
        str(port),
        "-t",
        "ed25519,ecdsa,rsa",
        "--",
        address,
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SCAN_SECONDS * 3, check=False)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{address} port {port} does not answer: is sshd running there?") from None
    except FileNotFoundError:
        raise Unavailable("ssh-keyscan is missing on the controller: apt install openssh-client") from None
    words = (line.split() for line in done.stdout.splitlines() if not line.startswith("#"))
    keys = [_key(parts[1:], "address") for parts in words if len(parts) >= 3 and parts[1] in KEY_TYPES]
    if not keys:
        raise Unavailable(
            f"{address} port {port} gave no SSH host key: check address and port, and that sshd runs"
        )
    return keys


def _known_hosts_names(word: str, field: str) -> set[str]:
    if word.startswith("|"):
        raise Invalid(
            "the host's name in this known_hosts line is hashed, so it cannot be compared: "
            "paste the key without the first word, or the output of ssh-keyscan",
            field=field,
        )
    return {re.sub(r"^\[(.*)\](:\d+)?$", r"\1", name).lower() for name in word.split(",")}


def _key(words: list[str], field: str) -> str:
    kind = words[0]
    if kind not in KEY_TYPES or len(words) < 2:
        raise Invalid(
            "this is no SSH host key: paste a line of /etc/ssh/ssh_host_*_key.pub, such as ssh-ed25519 AAAA…",
            field=field,
        )
    try:
        blob = base64.b64decode(words[1], validate=True)
    except ValueError:
        raise Invalid(f"the {kind} key is not valid base64: paste the whole line", field=field) from None
    length = int.from_bytes(blob[:4], "big")
    if blob[4 : 4 + length] != kind.encode() or len(blob) < 4 + length + 32:
        raise Invalid(f"the {kind} key is cut off or of another type: paste the whole line", field=field)
    return f"{kind} {base64.b64encode(blob).decode()}"
