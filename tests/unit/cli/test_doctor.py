"""What the doctor says about trust: certificate and recovery key."""

from types import SimpleNamespace
from typing import Any

import pytest
from saveos.cli import doctor
from saveos.cli.installation import current
from saveos.core import sealing, tls
from saveos.core.settings import get_settings
from saveos.secrets import service


@pytest.fixture
def database_kind() -> str:
    return "sqlite"


def _said(check: Any) -> list[doctor.Finding]:
    get_settings.cache_clear()
    return list(check(current()))


def test_it_says_who_can_open_the_escrow(installation: SimpleNamespace, database: Any, tenant_id: Any) -> None:
    (found,) = _said(doctor._recovery)
    assert "hosts seal nothing" in found.sentence
    public, private = sealing.new_pair()
    with database.session() as session:
        service.init_recovery(session, tenant_id, public)
    (found,) = _said(doctor._recovery)
    assert found.sentence == f"{sealing.fingerprint(public)[:16]}, offline"
    public, private = sealing.new_pair()
    with database.session() as session:
        service.init_recovery(session, tenant_id, public, "managed", private, replace=True)
    (found,) = _said(doctor._recovery)
    assert "MANAGED" in found.sentence


def test_what_only_root_may_see_is_a_finding(
    installation: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(_here: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    for name in ("_home", "_database", "_tls", "_recovery", "_controller", "_ssh", "_deleted"):
        monkeypatch.setattr(doctor, name, closed)
    assert {found.sentence for found in doctor.examine() if not found.ok} >= {doctor.ROOT_ONLY}


def test_looking_makes_no_database(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAVEOS_HOME", str(tmp_path))
    monkeypatch.delenv("SAVEOS_DATABASE_URL", raising=False)
    assert _said(doctor._recovery) == []
    assert list(tmp_path.iterdir()) == []


def test_it_shows_the_certificates_end(installation: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _said(doctor._tls) == []  # plain HTTP on a loopback address
    monkeypatch.setenv("SAVEOS_LISTEN", "10.0.0.5:8000")
    assert "none yet" in _said(doctor._tls)[0].sentence
    made = tls.ensure(installation.home, ["10.0.0.5"])
    (found,) = _said(doctor._tls)
    assert found.ok
    assert made.ca_pin in found.sentence
    (installation.home / "tls" / "server.pem").write_text("nothing")
    assert not _said(doctor._tls)[0].ok
