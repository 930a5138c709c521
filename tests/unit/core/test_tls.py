"""The CA and the listener's certificate: made once, renewed, pinned, taken up by a running server."""

import base64
import hashlib
import socket
import ssl
import stat
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from saveos.core import tls

NOW = datetime.now(UTC)


def _openssl(*words: str) -> str:
    return subprocess.run(["openssl", *words], capture_output=True, text=True, check=True).stdout


def test_first_start_makes_private_files_that_openssl_trusts(tmp_path: Path) -> None:
    found = tls.ensure(tmp_path, ["saveos.example", "10.0.0.5", "::1", "0.0.0.0", ""])
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "tls").glob("*.*") if p.suffix}
    assert modes == dict.fromkeys(("ca.pem", "ca.key", "server.pem", "server.key"), 0o600)
    assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) == 0o700
    assert found.names == ("10.0.0.5", "::1", "localhost", "saveos.example")
    ca = str(tmp_path / "tls" / "ca.pem")
    said = _openssl(
        "verify", "-x509_strict", "-verify_hostname", "saveos.example", "-CAfile", ca, str(found.cert_path)
    )
    assert said.strip().endswith("OK")
    at = datetime.now(UTC)  # other tests may have run for a while since NOW
    assert timedelta(days=89) < found.not_after - at <= timedelta(days=90, minutes=1)
    assert timedelta(days=3649) < found.ca_not_after - at
    assert tls.current(tmp_path) == found


def test_the_pins_are_what_openssl_and_curl_compute(tmp_path: Path) -> None:
    found = tls.ensure(tmp_path, ["saveos.example"])
    printed = _openssl("x509", "-in", str(tmp_path / "tls" / "ca.pem"), "-noout", "-fingerprint", "-sha256")
    assert printed.strip().partition("=")[2].replace(":", "").lower() == found.ca_pin
    assert tls.pin_of_pem(found.ca_pem) == found.ca_pin
    public = subprocess.run(
        ["openssl", "pkey", "-in", str(found.key_path), "-pubout", "-outform", "DER"],
        capture_output=True,
        check=True,
    ).stdout
    assert found.key_pin == "sha256//" + base64.b64encode(hashlib.sha256(public).digest()).decode()


def test_nothing_changes_until_it_is_due(tmp_path: Path) -> None:
    first = tls.ensure(tmp_path, ["a.example"])
    assert tls.ensure(tmp_path, ["a.example"]) == first
    assert tls.ensure(tmp_path, ["a.example"], now=NOW + timedelta(days=59)) == first
    later = tls.ensure(tmp_path, ["a.example"], now=NOW + timedelta(days=61))
    assert later.not_after > first.not_after
    assert (later.key_pin, later.ca_pin) == (first.key_pin, first.ca_pin)


def test_other_names_and_a_wish_renew_and_keep_the_pins(tmp_path: Path) -> None:
    first = tls.ensure(tmp_path, ["a.example"])
    other = tls.ensure(tmp_path, ["b.example"])
    assert "b.example" in other.names
    assert "a.example" not in other.names
    wished = tls.ensure(tmp_path, ["b.example"], renew=True, now=NOW + timedelta(days=1))
    assert wished.not_after > other.not_after
    assert {first.key_pin, other.key_pin, wished.key_pin} == {first.key_pin}


def test_starting_together_makes_one_ca(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: tls.ensure(tmp_path, ["a.example"]).ca_pin, range(8)))
    assert len(found) == 1


def test_a_lost_ca_key_never_makes_another_ca(tmp_path: Path) -> None:
    first = tls.ensure(tmp_path, ["a.example"])
    (tmp_path / "tls" / "ca.key").unlink()
    assert tls.ensure(tmp_path, ["a.example"]) == first
    with pytest.raises(tls.BrokenIdentity, match=r"ca\.key is gone"):
        tls.ensure(tmp_path, ["a.example"], renew=True)


@pytest.mark.parametrize("name", ["ca.pem", "ca.key", "server.pem", "server.key"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    tls.ensure(tmp_path, ["a.example"])
    (tmp_path / "tls" / name).write_text("-----BEGIN NOTHING-----\n")
    with pytest.raises(tls.BrokenIdentity, match=name.replace(".", r"\.")):
        tls.ensure(tmp_path, ["a.example"])


def test_no_identity_yet(tmp_path: Path) -> None:
    assert tls.current(tmp_path) is None


@contextmanager
def _serving(context: ssl.SSLContext) -> Iterator[int]:
    """Answer TLS handshakes on a port until the end."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                plain, _ = listening.accept()
            except OSError:
                return
            with plain:
                try:
                    context.wrap_socket(plain, server_side=True).close()
                except (ssl.SSLError, OSError):
                    continue

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.close()


def _shown(port: int, ca: str) -> str:
    client = ssl.create_default_context(cadata=ca)
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        client.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        certificate = secured.getpeercert()
    assert certificate
    return str(certificate["serialNumber"])


def test_a_running_server_takes_up_a_renewed_certificate(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def look() -> tls.Identity:
        return tls.ensure(
            tmp_path, ["a.example"], life=timedelta(seconds=60), renew_before=timedelta(seconds=59)
        )

    caplog.set_level("INFO", "saveos.core.tls")
    first = look()
    context = tls.server_context(first)
    keeper = tls.Keeper(context, first, look, seconds=0.1)
    with _serving(context) as port:
        before = _shown(port, first.ca_pem)
        keeper.start()
        try:
            deadline = threading.Event()
            for _ in range(600):
                if "renewed" in caplog.text:
                    break
                deadline.wait(0.1)
        finally:
            keeper.stop()
            keeper.join(5)
        assert "was renewed" in caplog.text
        assert _shown(port, first.ca_pem) != before
