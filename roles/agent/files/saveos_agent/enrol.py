# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Enrolment: ask a controller to take care of this host."""

from __future__ import annotations

import argparse
import base64
import hashlib
import http.client
import json
import os
import platform
import pwd
import re
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from saveos_agent.answers import Answer, printable
from saveos_agent.delivery import POST_SECONDS, NoRedirect
from saveos_agent.errors import EXIT_FAILED, EXIT_REFUSED, AgentError, refused, usage
from saveos_agent.files import read_json, write_json
from saveos_agent.machine import os_name
from saveos_agent.settings import VERSION

TOKEN_PREFIX = "saveos1."
TOKEN_VARIABLE = "SAVEOS_ENROLMENT_TOKEN"
HOST_KEY_TYPES = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")
SSH_KEY_LINE = re.compile(r"ssh-ed25519 [A-Za-z0-9+/]+={0,2}( [\w:.@ -]*)?")
REGISTER_POLL_SECONDS = 2.0
TRANSIENT = (0, 429, 500, 502, 503, 504)  # answers after which asking again may help; 0 is none at all


@dataclass(frozen=True)
class Ticket:
    """What an enrolment token says: where the controller is, what pins it, and the secret."""

    url: str
    pin: str
    secret: str


def read_ticket(text: str) -> Ticket:
    """Raises AgentError on what is no enrolment token, and on one that would send its secret in the clear."""
    try:
        packed = text.strip().removeprefix(TOKEN_PREFIX)
        data = json.loads(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))
        ticket = Ticket(str(data["u"]).rstrip("/"), str(data["p"]).lower(), str(data["s"]))
    except (ValueError, KeyError, TypeError):
        ticket = Ticket("", "", "")
    parts = urllib.parse.urlsplit(ticket.url)
    if not text.strip().startswith(TOKEN_PREFIX) or parts.scheme not in ("http", "https") or not ticket.secret:
        raise usage(
            "This is no enrolment token, or it is cut off.",
            f"Copy the whole text, which begins with {TOKEN_PREFIX}: `saveos enrol tokens create` shows it.",
        )
    if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise refused(
            f"The token's controller {ticket.url} has no TLS, so the token would travel in the clear.",
            "Give the controller an https address (SAVEOS_URL) and make a new token.",
        )
    return ticket


class Controller:
    """The controller, as a host that is not provisioned yet speaks to it: only `ca` is trusted, where given."""

    def __init__(self, url: str, ca: str) -> None:
        self.url, self.ca = url, ca
        context = ssl.create_default_context(cadata=ca) if ca else ssl.create_default_context()
        self._opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), NoRedirect)

    @classmethod
    def pinned(cls, ticket: Ticket) -> Controller:
        """Fetch the controller's CA unverified, and trust it, and it only, when it is the one that is pinned.

        Nothing secret is sent before. Raises AgentError where it is another one.
        """
        if not ticket.pin:
            return cls(ticket.url, "")
        blind = ssl.create_default_context()
        blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=blind), NoRedirect)
        try:
            with opener.open(f"{ticket.url}/api/v1/ca.pem", timeout=POST_SECONDS) as answer:
                pem = answer.read(65536).decode("ascii", "replace").strip() + "\n"
            found = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
        except (OSError, ValueError) as error:
            raise AgentError(
                "controller",
                f"The CA of {ticket.url} cannot be fetched: {getattr(error, 'reason', error)}.",
                "Check that this machine reaches the controller, and that the token is whole.",
            ) from None
        if found != ticket.pin:
            raise refused(
                f"The controller's CA has the pin {found}, but the token says {ticket.pin}: this is not the "
                "controller that made the token, or somebody is in between. Nothing was sent to it.",
                "Make a new token where the controller runs (`saveos tls show` shows its pin there).",
            )
        return cls(ticket.url, pem)

    def call(self, method: str, path: str, credential: str, body: Any = None) -> dict[str, Any]:
        """Send one request below /api/v1/agents. Raises AgentError with the controller's own reason."""
        content = None if body is None and method == "GET" else json.dumps(body or {}).encode()
        request = urllib.request.Request(f"{self.url}/api/v1/agents{path}", data=content, method=method)
        request.add_header("Content-Type", "application/json")
        request.add_header("Authorization", f"Bearer {credential}")
        request.add_header("User-Agent", f"saveos-agent/{VERSION}")
        try:
            with self._opener.open(request, timeout=POST_SECONDS * 3) as response:
                return dict(json.loads(response.read(1024 * 1024)))
        except urllib.error.HTTPError as error:
            raise _refusal(error) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise ControllerError(
                0, f"The controller {self.url} cannot be reached: {reason}.", "Try again when it answers."
            ) from None


class ControllerError(AgentError):
    """The controller refused, or did not answer (`status` 0)."""

    def __init__(self, status: int, message: str, fix: str, code: str = "controller") -> None:
        exit_code = EXIT_FAILED if status in TRANSIENT else EXIT_REFUSED
        super().__init__(code, message, fix, exit_code)
        self.status = status


def _refusal(error: urllib.error.HTTPError) -> ControllerError:
    try:
        problem = json.loads(error.read(65536))
        said, kind = str(problem["detail"]), str(problem["type"]).rpartition(":")[2]
    except (ValueError, KeyError, TypeError, OSError):
        said, kind = f"{error.url} answered {error.code}: is this the controller?", "controller"
    sentence = printable(said[:1].upper() + said[1:])
    return ControllerError(error.code, sentence + ("" if sentence.endswith((".", "?")) else "."), "", kind)


def make_identity(etc: Path, name: str) -> tuple[str, str]:
    """Make what is born here and never leaves, each once: Borg's SSH key and the agent token.

    The role uses the same files. Returns the key's public half and the token.
    """
    for directory in (etc, etc / "ssh"):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    key, token = etc / "ssh/id_ed25519", etc / "token"
    if not key.exists():
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"saveos:{name}", "-f", str(key)]
        try:
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError) as error:
            raise AgentError(
                "ssh", f"The SSH key {key} cannot be made: {error}.", "Install the OpenSSH client."
            ) from None
    if not token.exists() or not token.read_text().strip():
        handle = os.open(token, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(handle, "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
    public = Path(f"{key}.pub").read_text().split()
    return " ".join(public[:2]), token.read_text().strip()


def ssh_host_keys(directory: Path) -> list[str]:
    """The public keys of this host's sshd, type and base64."""
    keys = [path.read_text().split()[:2] for path in sorted(directory.glob("ssh_host_*_key.pub"))]
    found = [" ".join(words) for words in keys if words and words[0] in HOST_KEY_TYPES]
    if not found:
        raise AgentError(
            "ssh",
            f"sshd has no host key in {directory}, and the controller comes by SSH.",
            "Install and start it (apt install openssh-server, or dnf install openssh-server; ssh-keygen -A).",
        )
    return found


def key_fingerprint(key: str) -> str:
    """A public key's fingerprint, as `ssh-keygen -l` and the dashboard show it."""
    kind, blob = key.split()[:2]
    digest = base64.b64encode(hashlib.sha256(base64.b64decode(blob)).digest()).decode().rstrip("=")
    return f"{kind} SHA256:{digest}"


def sshd_settings() -> dict[str, str]:
    """sshd's settings in force, in lower case; of those that repeat, the first. Empty when it tells none."""
    program = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        return {}
    try:
        told = subprocess.run(
            [program, "-T"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    found: dict[str, str] = {}
    for line in told.stdout.splitlines():
        name, _, value = line.partition(" ")
        found.setdefault(name.lower(), value.strip())
    return found


def let_in(key: str, sshd: dict[str, str]) -> bool:
    """Let the controller's SSH key in as root; returns whether the file changed. Raises AgentError."""
    if not SSH_KEY_LINE.fullmatch(key):
        raise AgentError("controller", "The controller's SSH key is not readable.", "Update the controller.")
    if sshd.get("permitrootlogin") == "no" or sshd.get("pubkeyauthentication") == "no":
        raise refused(
            "sshd lets nobody in as root with a key, and the controller comes as root.",
            "Set `PermitRootLogin prohibit-password` and `PubkeyAuthentication yes` in /etc/ssh/sshd_config, "
            "reload sshd, and run this again.",
        )
    home = Path(pwd.getpwuid(os.geteuid()).pw_dir)
    place = (sshd.get("authorizedkeysfile") or ".ssh/authorized_keys").split()[0]
    path = home / place.replace("%h", str(home)).replace("%u", "root").replace("%%", "%")
    lines = path.read_text(errors="surrogateescape").splitlines() if path.exists() else []
    wanted = key.split()[1]
    if any(wanted in line.split() for line in lines if not line.startswith("#")):
        return False
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = "".join(f"{line}\n" for line in [*lines, key])
    fresh = path.with_name(f".{path.name}.saveos-new")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(handle, "w", errors="surrogateescape") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path.resolve())
    if restorecon := shutil.which("restorecon"):
        subprocess.run([restorecon, "-R", str(path.parent)], check=False, capture_output=True)
    return True


def outgoing_address(url: str) -> str:
    """This host's address on the way to the controller; empty where that is not one that others reach."""
    parts = urllib.parse.urlsplit(url)
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_DGRAM)
        with socket.socket(found[0][0], socket.SOCK_DGRAM) as probe:
            probe.connect(found[0][4])
            address = str(probe.getsockname()[0])
    except OSError:
        return ""
    return "" if address.startswith("127.") or address == "::1" else address


def own_token(etc: Path) -> str:
    return (etc / "token").read_text().strip()


def refuse_foreign(etc: Path, ticket: Ticket, options: argparse.Namespace) -> None:
    """Refuse a token of another controller than the one asked for, or than the one in charge already."""
    if options.controller and options.controller.rstrip("/") != ticket.url:
        raise refused(
            f"The token is for the controller {ticket.url}, not for {options.controller.rstrip('/')}.",
            "Use the line that `saveos enrol tokens create` printed, as a whole.",
        )
    agent = read_json(etc / "agent.json") or {}
    current = str((agent.get("controller") or {}).get("url") or "").rstrip("/")
    if current and current != ticket.url and not options.move:
        raise refused(
            f"The controller {current} takes care of this host, and the token is for {ticket.url}.",
            "Take the host out there first, then add --move.",
        )


def register_here(
    controller: Controller, ticket: Ticket, etc: Path, options: argparse.Namespace
) -> dict[str, Any]:
    name = (options.name or platform.node() or "").strip().lower()
    sshd = sshd_settings()
    keys = ssh_host_keys(Path("/etc/ssh"))
    public, token = make_identity(etc, name)
    body: dict[str, Any] = {
        "name": name,
        "port": options.port or int(sshd.get("port") or 22),
        "user": "root",
        "ssh_host_keys": keys,
        "agent_public_key": public,
        "agent_token_sha256": hashlib.sha256(token.encode()).hexdigest(),
        "os": os_name()[:60],
        "versions": {"saveos-agent": VERSION, "python": platform.python_version()},
    }
    address = options.address or outgoing_address(ticket.url)
    body |= {"address": address} if address else {}
    said = controller.call("POST", "/register", ticket.secret, body)
    record = {"url": ticket.url, "ca": controller.ca, "registration_id": said["registration_id"]}
    if read_json(etc / "registration.json") != record:
        write_json(etc / "registration.json", record)
    return said


def follow_registration(
    controller: Controller, etc: Path, said: dict[str, Any], options: argparse.Namespace
) -> Answer:
    """Do what the registration's state asks for until it is done. Raises AgentError when it cannot be."""
    deadline, told, first = time.monotonic() + options.timeout, "", True
    path, name = f"/register/{said['registration_id']}", printable(str(said["name"]))
    while True:
        state = str(said["state"])
        if state != told:
            _tell_registration(state, name, str(said.get("reason") or ""))
            told = state
        if state == "done":
            return Answer(said, [f"{name} is enrolled" + (" already; nothing was changed." if first else ".")])
        if state == "refused":
            raise refused(f"The controller refused this host: {printable(str(said['reason']))}.", "")
        if state == "failed" and not first:
            raise AgentError(
                "provisioning",
                f"The host was let in, but its provisioning failed: {printable(str(said['reason']))}",
                "Mend that and run `saveos-agent register` again.",
            )
        if state in ("approved", "failed") and (first or not said["ready"]):
            let_in(str(said["controller_ssh_key"]), sshd_settings())
            said = controller.call("POST", f"{path}/ready", own_token(etc))
            first = False
            continue
        first = False
        if options.no_wait:
            return Answer(said, [f"{name} is {state}: run `saveos-agent register` again to go on."])
        if time.monotonic() >= deadline:
            raise AgentError("timeout", f"{name} is still {state}.", "Run `saveos-agent register` again.")
        said = _poll_registration(controller, path, own_token(etc), said)


def _poll_registration(controller: Controller, path: str, token: str, said: dict[str, Any]) -> dict[str, Any]:
    """Look again; while the controller does not answer, what it said last holds."""
    time.sleep(REGISTER_POLL_SECONDS)
    try:
        return controller.call("GET", path, token)
    except ControllerError as error:
        if error.status not in TRANSIENT:
            raise
        return said


def _tell_registration(state: str, name: str, reason: str) -> None:
    lines = {
        "waiting": f"{name} asked to join and waits for approval. Its fingerprints, to be compared there:",
        "approved": f"{name} is approved.",
        "provisioning": "The controller is provisioning this host.",
    }
    text = [lines[state]] if state in lines else []
    if state == "waiting":
        text += [f"  {key_fingerprint(key)}" for key in ssh_host_keys(Path("/etc/ssh"))]
        text += [f"  Before that: {printable(reason)}"] if reason else []
    for line in text:
        print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Verb:
    help: str
    options: Callable[[argparse.ArgumentParser], None]
    do: Callable[[Any, argparse.Namespace], Answer]
    provisioned: bool = True  # whether it needs agent.json, which provisioning writes
