"""A repository's owner is who has its directory: compact runs as that user, and an undo gives it back."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guarded import Storage

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
UID, GID = 61_234, 61_235


@pytest.fixture
def owned(three_archives: Storage) -> Iterator[Storage]:
    """A repository of a user of its own, where that user can come to."""
    base = Path(tempfile.mkdtemp())
    base.chmod(0o711)
    made = Storage(base, three_archives.borg_path, like=three_archives)
    subprocess.run(["chown", "-R", f"{UID}:{GID}", made.path], check=True)
    yield made
    shutil.rmtree(base)


def test_compact_runs_as_the_repository_s_owner(owned: Storage) -> None:
    """The program sees that user, no group but its own, and a home that it can write to and others cannot."""
    log = owned.base / "log"
    log.touch()
    os.chown(log, UID, GID)
    borg = owned.base / "borg"
    borg.write_text(
        f'#!/bin/sh\necho "$1" $(id -u) $(id -G) >> {log}\ntouch "$BORG_BASE_DIR/mine" "{owned.path}/touched"\n'
    )
    borg.chmod(0o755)
    owned.settings.update(borg=str(borg), compact_share=-1)
    assert owned.told_and_run()["state"] == "compacted"
    assert set(log.read_text().splitlines()) == {f"compact {UID} {GID}"}
    assert (owned.state / f".homes/{UID}").stat().st_mode & 0o777 == 0o700


def give(storage: Storage, uid: int, gid: int) -> None:
    """What the user has, and what a client then writes, is another user's; what the guard took is not."""
    for file in (storage.path, *storage.path.rglob("*")):
        if file.stat().st_mode & 0o777 != 0o440:
            os.chown(file, uid, gid)


def test_what_is_linked_is_readable_for_its_owner(owned: Storage) -> None:
    """When the repository is given to another user, the group of older links follows."""
    segment = owned.path / "data/0/0"
    for uid, gid in ((UID, GID), (UID + 10, GID + 10)):
        owned.write("more", uid)
        owned.client("create", f"{owned.url}::{uid}", str(owned.source))
        give(owned, uid, gid)
        owned.run()
        found = segment.stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (0, gid, 0o440)


def test_an_undo_gives_a_repository_that_is_gone_back_to_its_owner(owned: Storage) -> None:
    owned.run()
    shutil.rmtree(owned.path)
    assert owned.run()["state"] == "missing"
    assert owned.undo()["state"] == "done"
    assert {(file.stat().st_uid, file.stat().st_gid) for file in (owned.path, owned.path / "config")} == {
        (UID, GID)
    }
