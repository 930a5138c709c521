import os
import shutil
import tempfile
from pathlib import Path

import pytest
from saveos.cli import preflight
from saveos.cli.errors import REFUSED, USAGE, CommandError
from saveos.core import settings


@pytest.fixture
def home(monkeypatch):
    tmp_path = Path(tempfile.mkdtemp())  # pytest's own is closed to others, and the storage user must pass
    tmp_path.chmod(0o711)
    monkeypatch.setenv("SAVEOS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SAVEOS_LISTEN", "127.0.0.1:0")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    settings.get_settings.cache_clear()
    yield tmp_path / "home"
    settings.get_settings.cache_clear()
    shutil.rmtree(tmp_path)


def test_a_machine_that_can_is_not_changed(home):
    assert preflight.check([Path("/usr")]).home == home
    assert not home.exists()


def test_without_root_it_says_how(home, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(CommandError, match="needs root: sudo") as caught:
        preflight.check([])
    assert caught.value.code == REFUSED


@pytest.mark.parametrize("source", ["relative", "/no/such/directory", "/etc/passwd"])
def test_a_source_must_be_a_directory(home, source):
    with pytest.raises(CommandError, match="is no directory here") as caught:
        preflight.check([Path(source)])
    assert caught.value.code == USAGE


def test_a_home_with_other_files_is_refused(home):
    home.mkdir()
    (home / "thesis.odt").touch()
    with pytest.raises(CommandError, match="holds other files"):
        preflight.check([])
    (home / "kek").touch()
    assert preflight.check([]).home == home


def test_a_home_that_is_a_file_is_refused(home):
    home.touch()
    with pytest.raises(CommandError, match="no directory"):
        preflight.check([])


def test_a_home_that_cron_and_sshd_could_misread_is_refused(home, monkeypatch):
    monkeypatch.setenv("SAVEOS_HOME", '/tmp/a b"c')
    with pytest.raises(CommandError, match="letters, digits"):
        preflight.check([])


def test_a_closed_way_to_the_home_needs_acls(home, monkeypatch):
    home.parent.chmod(0o700)
    tools = {"setfacl": "/usr/bin/setfacl"}
    monkeypatch.setattr(preflight.shutil, "which", tools.get)
    assert preflight.check([]).home == home
    tools.clear()
    with pytest.raises(CommandError, match=rf"under {home.parent}, which only its owner.*package acl"):
        preflight.check([])


def test_a_full_disk_is_a_sentence(home, monkeypatch):
    monkeypatch.setattr(preflight, "HOME_MEGABYTES", 10**9)
    with pytest.raises(CommandError, match=r"Only \d+ MB are free"):
        preflight.check([])


def test_a_bad_setting_is_named(home, monkeypatch):
    monkeypatch.setenv("SAVEOS_LISTEN", "8000")
    with pytest.raises(CommandError, match="SAVEOS_LISTEN") as caught:
        preflight.check([])
    assert caught.value.code == USAGE


def test_the_local_address_of_a_controller_that_listens_everywhere():
    assert preflight.local_url(("0.0.0.0", 80)) == "http://127.0.0.1:80"
    assert preflight.local_url(("::", 80)) == "http://[::1]:80"
    assert preflight.local_url(("127.0.0.1", 8000)) == "http://127.0.0.1:8000"
