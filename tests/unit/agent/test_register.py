"""What a host does to join: it trusts the pinned CA only, and lets the controller in once."""

from __future__ import annotations

import argparse
import base64
import json
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from saveos.core import tls

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHyQkzk7mYIRR4zJ4F8kQmtiYyTjTaQ9LkI5ZJ4Hh0Qx saveos:default"


class Handler(BaseHTTPRequestHandler):
    """A controller that shows its CA and takes whatever is asked."""

    def _serve(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.command, self.path, self.headers.get("Authorization"), body))
        content = (
            self.server.ca.encode() if self.path.endswith("/ca.pem") else json.dumps({"ok": True}).encode()
        )
        status = 200
        if self.server.problem and not self.path.endswith("/ca.pem"):
            status, content = 403, json.dumps(self.server.problem).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = _serve

    def log_message(self, *_):
        pass


@pytest.fixture
def controller(tmp_path):
    """A server with a certificate of the controller's own CA, and what it was asked."""
    identity = tls.ensure(tmp_path / "home", ["127.0.0.1"])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.ca, server.problem = [], identity.ca_pem, None
    server.socket = tls.server_context(identity).wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield SimpleNamespace(
        url=f"https://127.0.0.1:{server.server_port}", pin=identity.ca_pin, server=server, asked=server.asked
    )
    server.shutdown()
    server.server_close()


def text(**content):
    packed = base64.urlsafe_b64encode(json.dumps({"i": "1", "s": "secret", **content}).encode()).decode()
    return "saveos1." + packed.rstrip("=")


def test_the_pinned_ca_and_no_other_is_trusted(agent, controller):
    ticket = agent.read_ticket(text(u=controller.url, p=controller.pin))
    assert agent.Controller.pinned(ticket).call("POST", "/register", "secret", {"name": "web1"}) == {"ok": True}
    assert controller.asked[0] == ("GET", "/api/v1/ca.pem", None, b"")
    assert controller.asked[1][:3] == ("POST", "/api/v1/agents/register", "Bearer secret")


def test_another_pin_is_refused_before_anything_secret_is_sent(agent, controller):
    ticket = agent.read_ticket(text(u=controller.url, p="0" * 64))
    with pytest.raises(agent.AgentError) as caught:
        agent.Controller.pinned(ticket)
    assert caught.value.exit_code == agent.EXIT_REFUSED
    assert f"the pin {controller.pin}" in caught.value.message
    assert [request[1] for request in controller.asked] == ["/api/v1/ca.pem"]


def test_a_machine_in_between_that_shows_our_ca_is_not_spoken_to(agent, controller, tmp_path):
    """It can copy the CA's certificate, but its own is of another CA."""
    real = tls.ensure(tmp_path / "real", ["127.0.0.1"])
    controller.server.ca = real.ca_pem
    pinned = agent.Controller.pinned(agent.read_ticket(text(u=controller.url, p=real.ca_pin)))
    with pytest.raises(agent.ControllerError, match=r"cannot be reached.*certificate verify failed"):
        pinned.call("POST", "/register", "secret", {})
    assert len(controller.asked) == 1


def test_a_refusal_keeps_the_controllers_words(agent, controller):
    controller.server.problem = {"type": "urn:saveos:problem:enrolment-token-used", "detail": "it is used up"}
    pinned = agent.Controller.pinned(agent.read_ticket(text(u=controller.url, p=controller.pin)))
    with pytest.raises(agent.ControllerError) as caught:
        pinned.call("POST", "/register", "secret", {})
    assert caught.value.as_dict() == {"code": "enrolment-token-used", "message": "It is used up.", "fix": ""}
    assert (caught.value.status, caught.value.exit_code) == (403, agent.EXIT_REFUSED)


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "saveos1.",
        "saveos1.%%%",
        "saveos_made_up",
        "saveos1.bnVsbA",
        text(u="file:///etc", p=""),
        text(u="", p=""),
    ],
)
def test_what_is_no_token_is_said_to_be_none(agent, wrong):
    with pytest.raises(agent.AgentError) as caught:
        agent.read_ticket(wrong)
    assert (caught.value.exit_code, "cut off" in caught.value.message) == (agent.EXIT_USAGE, True)


def test_a_secret_never_travels_in_the_clear(agent):
    with pytest.raises(agent.AgentError, match="in the clear"):
        agent.read_ticket(text(u="http://10.0.0.1:8000", p=""))
    assert agent.read_ticket(text(u="http://127.0.0.1:8000/", p="")).url == "http://127.0.0.1:8000"


def test_the_identity_is_made_once(agent, tmp_path):
    etc = tmp_path / "etc"
    public, token = agent.make_identity(etc, "web1")
    assert agent.make_identity(etc, "other") == (public, token)
    assert public.startswith("ssh-ed25519 ") and len(token) >= 43
    modes = {path.name: path.stat().st_mode & 0o777 for path in (etc, etc / "token", etc / "ssh/id_ed25519")}
    assert modes == {"etc": 0o700, "token": 0o600, "id_ed25519": 0o600}


def test_the_controller_is_let_in_once_beside_others(agent, tmp_path, monkeypatch):
    monkeypatch.setattr(agent.pwd, "getpwuid", lambda _: SimpleNamespace(pw_dir=str(tmp_path)))
    path = tmp_path / ".ssh/authorized_keys"
    path.parent.mkdir(mode=0o700)
    path.write_bytes(b"ssh-ed25519 AAAAother someone \xe9")
    assert agent.let_in(KEY, {}) is True
    assert path.read_bytes() == b"ssh-ed25519 AAAAother someone \xe9\n" + KEY.encode() + b"\n"
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.stat()
    assert agent.let_in(KEY.replace("default", "renamed"), {}) is False
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert agent.let_in(KEY, {"authorizedkeysfile": "%h/keys/%u /elsewhere"}) is True
    assert (tmp_path / "keys/root").read_text() == f"{KEY}\n"
    with pytest.raises(agent.AgentError, match="as root with a key"):
        agent.let_in(KEY, {"permitrootlogin": "no"})
    for wrong in (f'command="sh" {KEY}', f"{KEY}\nssh-ed25519 AAAA", "ssh-rsa AAAA"):
        with pytest.raises(agent.AgentError, match="not readable"):
            agent.let_in(wrong, {})


def test_a_fingerprint_is_as_ssh_keygen_shows_it(agent, tmp_path):
    (tmp_path / "key.pub").write_text(KEY + "\n")
    shown = subprocess.run(
        ["ssh-keygen", "-lf", tmp_path / "key.pub"], capture_output=True, text=True, check=True
    ).stdout
    assert shown.split()[1] == agent.key_fingerprint(KEY).split()[1]


def test_another_controllers_token_does_not_take_a_host_over(agent, host):
    data = json.loads((host.etc / "agent.json").read_text()) | {"controller": {"url": "https://a.example/"}}
    (host.etc / "agent.json").write_text(json.dumps(data))
    ticket = agent.read_ticket(text(u="https://b.example", p=""))
    options = argparse.Namespace(controller="", move=False)
    with pytest.raises(agent.AgentError, match=r"a\.example takes care of this host"):
        agent.refuse_foreign(host.etc, ticket, options)
    agent.refuse_foreign(host.etc, ticket, argparse.Namespace(controller="", move=True))
    agent.refuse_foreign(host.etc, agent.read_ticket(text(u="https://a.example", p="")), options)
    with pytest.raises(agent.AgentError, match=r"not for https://c\.example"):
        agent.refuse_foreign(host.etc, ticket, argparse.Namespace(controller="https://c.example", move=True))


def test_a_plain_user_has_a_configuration_of_their_own(agent, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SAVEOS_AGENT_CONFIG", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert agent.default_config() == ("/etc/saveos" if os.geteuid() == 0 else f"{tmp_path}/.config/saveos")
    monkeypatch.setattr(agent.os, "geteuid", lambda: 1000)
    assert agent.main(["register"]) == 0
    own = Path(tmp_path, ".config/saveos")
    assert own.is_dir() and "run this as root" in capsys.readouterr().out
    (own / "agent.json").write_text(json.dumps({"repositories": [{"id": "r", "config": "borgmatic/own.yaml"}]}))
    settings = agent.load_settings(Path(agent.default_config()))
    assert settings.repositories[0].config == own / "borgmatic/own.yaml"
    assert settings.state == tmp_path / ".local/state/saveos-agent"


def test_the_token_is_read_from_file_or_environment(agent, tmp_path, monkeypatch):
    monkeypatch.setenv("SAVEOS_ENROLMENT_TOKEN", "of-the-environment")
    (tmp_path / "token").write_text("of-the-file\n")
    assert agent.enrolment_token(argparse.Namespace(token_file="")) == "of-the-environment"
    assert agent.enrolment_token(argparse.Namespace(token_file=str(tmp_path / "token"))) == "of-the-file\n"
    with pytest.raises(agent.AgentError, match="cannot be read"):
        agent.enrolment_token(argparse.Namespace(token_file=str(tmp_path / "none")))
