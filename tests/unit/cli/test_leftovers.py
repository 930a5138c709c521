import pwd
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from saveos.cli import keeper, leftovers, local_ssh, process
from saveos.cli.installation import Installation

KEY = 'from="127.0.0.1,::1" ssh-ed25519 AAAAC3 saveos-controller:{home}'


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Directories of a machine in which two installations left marks: one lives, one was deleted."""
    for name in ("units", "cron", "root/.ssh", "living"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr(process, "UNITS", tmp_path / "units")
    monkeypatch.setattr(leftovers, "CRON", tmp_path / "cron")
    monkeypatch.setattr(local_ssh, "authorized_keys", lambda: tmp_path / "root/.ssh/authorized_keys")
    living, deleted = Installation(tmp_path / "living"), Installation(tmp_path / "deleted")
    living.marker.write_text("{}")
    lines = ["ssh-ed25519 AAAAperson me@laptop", *(KEY.format(home=each.home) for each in (living, deleted))]
    (tmp_path / "root/.ssh/authorized_keys").write_text("\n".join(lines) + "\n")
    for each in (living, deleted):
        cron = tmp_path / "cron" / each.named("saveos-backup")
        cron.write_text(f"0 2 * * * root saveos-agent --config {each.home}/agent/etc backup --trigger timer\n")
    return living, deleted


@pytest.fixture
def storage(tmp_path, monkeypatch):
    """A storage directory as the role makes it, its user and a person's; return it and who was removed."""
    place, removed = tmp_path / "srv", []
    for name in (".ssh", "repositories"):
        (place / name).mkdir(parents=True)
    (place / ".ssh/authorized_keys").write_text("restrict ...\n")
    monkeypatch.setattr(Installation, "storage", place)
    monkeypatch.setattr(Installation, "instance", "")
    users = [("saveos-borg", 990, place), ("saveos-borg-acme", 991, place / "tenants/acme")]
    users += [
        ("saveos-borg", 1001, place),
        ("saveos-borg-0a1b2c3d", 992, "/opt/second/storage"),
        ("root", 0, "/"),
    ]
    made = [
        pwd.struct_passwd((name, "x", uid, uid, "", str(home), leftovers.SHELL)) for name, uid, home in users
    ]
    made.append(pwd.struct_passwd(("saveos-borg-own", "x", 993, 993, "", str(place), "/bin/bash")))
    monkeypatch.setattr(pwd, "getpwall", lambda: made)
    monkeypatch.setattr(leftovers, "_remove_storage_user", lambda name: removed.append(name) or True)
    return place, removed


def test_a_storage_without_repositories_goes_and_so_do_the_users_that_saveos_made(storage):
    place, removed = storage
    assert leftovers.remove_storage(Installation(Path("/x"))) == removed == ["saveos-borg", "saveos-borg-acme"]
    assert not place.exists()


@pytest.mark.parametrize("left", ["repositories/r1", "tenants/acme", ".ssh/id_ed25519", "mine"])
def test_a_storage_that_holds_anything_stays_whole_and_so_do_its_users(storage, left):
    place, removed = storage
    (place / left).mkdir(parents=True)
    assert leftovers.remove_storage(Installation(Path("/x"))) == removed == []
    assert (place / ".ssh/authorized_keys").exists()


def test_the_users_shell_is_the_one_that_the_role_gives():
    module = Path(__file__).parents[3] / "plugins/modules/server_storage.py"
    assert f'SHELL = "{leftovers.SHELL}"' in module.read_text()


def mine(found: list[Installation], directory: Path) -> list[Path]:
    """Leave out what is really on this machine."""
    return [each.home for each in found if each.home.is_relative_to(directory)]


def test_only_the_installation_whose_home_was_deleted_is_found(machine):
    living, deleted = machine
    assert mine(leftovers.deleted(), living.home.parent) == [deleted.home]


def test_its_marks_go_and_those_of_others_stay(machine):
    living, deleted = machine
    removed = leftovers.remove(deleted)
    assert removed == ["line in root's authorized_keys", "cron lines"]
    keys = local_ssh.authorized_keys().read_text()
    assert "me@laptop" in keys
    assert str(living.home) in keys
    assert str(deleted.home) not in keys
    assert [path.name for path in leftovers.CRON.iterdir()] == [living.named("saveos-backup")]
    assert leftovers.remove(deleted) == []
    assert mine(leftovers.deleted(), living.home.parent) == []


def test_a_controller_of_a_deleted_home_is_stopped(machine):
    _, deleted = machine
    command = [sys.executable, "-I", "-S", keeper.__file__, str(deleted.home), "sleep", "60"]
    keeping = subprocess.Popen(command)
    while not Path(f"/proc/{keeping.pid}/cmdline").read_bytes():
        time.sleep(0.01)  # the kernel shows a new program's arguments a moment after it says that it runs
    try:
        assert "running processes" in leftovers.remove(deleted)
        assert keeping.wait(30) in (0, -signal.SIGTERM)  # it may not have set its handler yet
    finally:
        keeping.kill()
        keeping.wait()
