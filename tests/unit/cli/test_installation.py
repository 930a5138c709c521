import stat
from pathlib import Path

import pytest
from saveos.cli import installation
from saveos.cli.errors import CommandError
from saveos.cli.installation import Installation


def test_the_default_home_has_plain_names():
    here = Installation(Path("/var/lib/saveos"))
    own = {"agent_own_sources": ["/var/lib/saveos/export"]}
    assert (here.instance, here.unit, here.host_variables) == ("", "saveos-controller.service", own)
    assert here.storage == Path("/srv/saveos")


def test_another_home_keeps_everything_below_it_and_has_names_of_its_own():
    here = Installation(Path("/srv/second"))
    variables = here.host_variables
    assert len(here.instance) == 8
    assert here.unit == f"saveos-controller-{here.instance}.service"
    assert variables["server_user"] == f"saveos-borg-{here.instance}"
    assert len(variables["server_user"]) <= 32
    assert variables["server_root"] == "/srv/second/storage"
    assert variables["agent_home"] == "/srv/second/agent"
    assert Installation(Path("/srv/third")).instance != here.instance


def test_settings_are_stored_privately_and_come_back(tmp_path, monkeypatch):
    for name in installation.STORED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SAVEOS_HOME", str(tmp_path))
    monkeypatch.setenv("SAVEOS_LISTEN", "127.0.0.1:8123")
    monkeypatch.setenv("SAVEOS_DATABASE_URL", 'postgresql+psycopg://u:p"w=$x@h/d')
    monkeypatch.setenv("SAVEOS_TOKEN", "saveos_never_stored")
    here = installation.current()
    here.write_environment()
    assert stat.S_IMODE(here.environment.stat().st_mode) == 0o600
    assert "never_stored" not in here.environment.read_text()
    monkeypatch.delenv("SAVEOS_LISTEN")
    monkeypatch.setenv("SAVEOS_DATABASE_URL", "sqlite://")
    installation.current()
    assert installation.os.environ["SAVEOS_LISTEN"] == "127.0.0.1:8123"
    assert installation.os.environ["SAVEOS_DATABASE_URL"] == "sqlite://"
    assert here.read_environment()["SAVEOS_DATABASE_URL"] == 'postgresql+psycopg://u:p"w=$x@h/d'


def test_settings_that_a_person_wrote_are_read(tmp_path):
    here = Installation(tmp_path)
    here.environment.write_text(
        "SAVEOS_LISTEN=127.0.0.1:8123\nSAVEOS_TLS='on'\nSAVEOS_URL=\"https://x\nSAVEOS_FORKS=5\n"
    )
    wanted = {
        "SAVEOS_LISTEN": "127.0.0.1:8123",
        "SAVEOS_TLS": "on",
        "SAVEOS_URL": "https://x",
        "SAVEOS_FORKS": "5",
    }
    assert here.read_environment() == {
        key: value for key, value in wanted.items() if key in installation.STORED
    }


def test_a_relative_home_is_refused(monkeypatch):
    monkeypatch.setenv("SAVEOS_HOME", "data")
    with pytest.raises(CommandError, match="absolute path"):
        installation.current()
