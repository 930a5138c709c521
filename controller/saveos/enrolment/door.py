"""How hosts find and trust this controller: address, pins, the token's text and the line to paste."""

import base64
import hashlib
import json
import runpy
import shlex
import uuid
from dataclasses import dataclass
from pathlib import Path
from string import Template

from saveos.core import tls
from saveos.core.settings import Settings

PREFIX = "saveos1."
SCRIPT = Path(__file__).with_name("enrol.sh")


@dataclass(frozen=True)
class Door:
    """The controller's address and, where its certificate is of its own CA, what pins it (else empty)."""

    url: str
    ca_pem: str = ""
    ca_pin: str = ""
    key_pin: str = ""


def door(settings: Settings) -> Door:
    """Return this installation's door. Behind a proxy the certificate is the proxy's, and public."""
    identity = tls.current(settings.home) if settings.serves_tls else None
    if identity is None:
        return Door(settings.public_url)
    return Door(settings.public_url, identity.ca_pem, identity.ca_pin, identity.key_pin)


def token_text(place: Door, token_id: uuid.UUID, secret: str) -> str:
    """Return what a person carries to a host: where to go, what to trust, and the secret."""
    content = {"u": place.url, "p": place.ca_pin, "i": str(token_id), "s": secret}
    encoded = base64.urlsafe_b64encode(json.dumps(content, separators=(",", ":")).encode())
    return PREFIX + encoded.decode().rstrip("=")


def one_line(place: Door, token: str) -> str:
    """Return the line that enrols a host when root pastes it there."""
    pinned = f"--pinnedpubkey {shlex.quote(place.key_pin)} -k " if place.key_pin else ""
    fetch = f"curl -fsS {pinned}{shlex.quote(f'{place.url}/enrol.sh')}"
    return f"{fetch} | SAVEOS_ENROLMENT_TOKEN={shlex.quote(token)} sh"


def agent_file(settings: Settings) -> bytes:
    """Return `saveos-agent`, the same file that the role installs: packed by the collection's own function."""
    packer = runpy.run_path(str(settings.fleet_dir / "plugins/module_utils/packed_program.py"))
    packed: bytes = packer["pack"](settings.fleet_dir / "roles/agent/files/saveos_agent")
    return packed


def script(settings: Settings) -> str:
    """Return enrol.sh for this controller: with its address, its CA and the hash of the agent."""
    place = door(settings)
    values = {
        "url": shlex.quote(place.url),
        "ca": shlex.quote(place.ca_pem.strip()),
        "sha256": hashlib.sha256(agent_file(settings)).hexdigest(),
    }
    return Template(SCRIPT.read_text()).substitute(values)
