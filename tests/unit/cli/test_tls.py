"""Whom the command trusts: a pinned CA alone, never what it sees first."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from saveos.cli import client as client_module
from saveos.cli.client import Client, Login, fetch_ca, read_login, write_login
from saveos.cli.errors import REFUSED, CommandError
from saveos.cli.main import main
from saveos.core import tls


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        text = self.server.ca if self.path.endswith("/ca.pem") else '{"ok": true}'  # type: ignore[attr-defined]
        self.server.asked.append((self.path, self.headers.get("Authorization")))  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, tls.Identity, list[Any]]]:
    """An HTTPS server with a CA of its own: URL, identity, requests that arrived."""
    for name in ("SAVEOS_URL", "SAVEOS_TOKEN", "SAVEOS_CA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SAVEOS_HOME", str(tmp_path / "nothing"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config" / "saveos").mkdir(parents=True)
    identity = tls.ensure(tmp_path / "home", ["127.0.0.1"])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.ca, server.asked = identity.ca_pem, []  # type: ignore[attr-defined]
    server.socket = tls.server_context(identity).wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{server.server_port}", identity, server.asked  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()


def test_an_unknown_ca_gets_no_token(served: Any) -> None:
    url, _, asked = served
    with pytest.raises(CommandError, match="--ca-pin") as caught:
        Client(Login(url, "secret", "test")).get("/hosts")
    assert caught.value.code == REFUSED
    assert asked == []


def test_the_right_pin_is_compared_then_trusted(served: Any) -> None:
    url, identity, asked = served
    colons = ":".join(identity.ca_pin[at : at + 2] for at in range(0, 64, 2)).upper()
    assert fetch_ca(url, colons) == identity.ca_pem
    assert asked == [("/api/v1/ca.pem", None)]
    assert Client(Login(url, "secret", "test", identity.ca_pem)).get("/hosts") == {"ok": True}


def test_a_wrong_pin_is_refused(served: Any) -> None:
    url, identity, _ = served
    with pytest.raises(CommandError, match=identity.ca_pin) as caught:
        fetch_ca(url, "0" * 64)
    assert caught.value.code == REFUSED


def test_a_pinned_ca_is_the_only_one(served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, _, asked = served
    other = tls.ensure(tmp_path / "other", ["127.0.0.1"])
    monkeypatch.setenv("SAVEOS_CA", str(tmp_path / "home" / "tls" / "ca.pem"))
    assert Client(Login(url, "t", "test")).get("/hosts") == {"ok": True}
    asked.clear()
    with pytest.raises(CommandError, match="not trusted"):
        Client(Login(url, "t", "test", other.ca_pem)).get("/hosts")
    assert asked == []


def test_on_its_own_machine_the_home_is_trusted(
    served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAVEOS_HOME", str(tmp_path / "home"))
    assert Client(Login(served[0], "t", "test")).get("/hosts") == {"ok": True}


def test_a_useless_ca_file_is_named(served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAVEOS_CA", str(tmp_path / "absent.pem"))
    with pytest.raises(CommandError, match=r"absent\.pem"):
        Client(Login(served[0], "t", "test"))


def test_the_login_keeps_the_ca(tmp_path: Path, served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    url, identity, _ = served
    file = tmp_path / "config" / "saveos" / "cli.json"
    write_login(file, url, "t", identity.ca_pem)
    assert read_login().ca == identity.ca_pem
    monkeypatch.setenv("SAVEOS_URL", url)
    monkeypatch.setenv("SAVEOS_TOKEN", "other")
    assert read_login() == Login(url, "other", "SAVEOS_URL and SAVEOS_TOKEN", identity.ca_pem)
    monkeypatch.setenv("SAVEOS_URL", "https://elsewhere")
    assert read_login().ca == ""
    assert client_module.trust("http://plain") is True


def _run(*words: str) -> Any:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return ended.value.code


def test_tls_show_and_renew_on_the_controllers_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from saveos.core.settings import get_settings

    monkeypatch.setenv("SAVEOS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SAVEOS_LISTEN", "10.0.0.5:8000")
    get_settings.cache_clear()
    monkeypatch.setattr("os.umask", lambda mask: mask)
    (tmp_path / "home").mkdir(mode=0o700)
    first = tls.ensure(tmp_path / "home", ["10.0.0.5"])
    _run("tls", "show", "--json")
    assert json.loads(capsys.readouterr().out)["ca_pin"] == first.ca_pin
    _run("tls", "renew", "--json")
    shown = json.loads(capsys.readouterr().out)
    assert "10.0.0.5" in shown["names"]
    assert (shown["ca_pin"], shown["key_pin"]) == (first.ca_pin, first.key_pin)
    monkeypatch.setenv("SAVEOS_TLS", "off")
    get_settings.cache_clear()
    assert _run("tls", "renew") == REFUSED
    get_settings.cache_clear()
