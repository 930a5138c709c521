"""Mending a host whose repository was put back: it opens again, and the key comes back from the export."""

from __future__ import annotations

import shutil

from tests.unit.agent.conftest import REPOSITORY


def repository(backed):
    """Where the repository lies."""
    return next(path.parent for path in backed.base.rglob("config") if (path.parent / "data").is_dir())


def test_a_repository_that_was_put_back_is_taken_again(backed):
    """Borg refuses it before, a dry run changes nothing, the nonce is kept, and the next backup is right."""
    place = repository(backed)
    shutil.copytree(place, backed.base / "kept")
    code, record = backed.run("backup", "--wait")
    assert code == 0, record
    shutil.rmtree(place)
    shutil.move(backed.base / "kept", place)
    nonce = next((backed.base / "state/borg").rglob("security/*/nonce")).read_text()
    assert backed.run("snapshots")[0] != 0
    code, planned = backed.run("mend", "--repository", REPOSITORY, "--check")
    assert code == 0 and planned["state"] == "planned" and planned["forgets"], planned
    assert backed.run("snapshots")[0] != 0
    code, mended = backed.run("mend", "--repository", REPOSITORY)
    assert code == 0 and mended["state"] == "mended" and mended["key_imported"] is False, mended
    assert next((backed.base / "state/borg").rglob("security/*/nonce")).read_text() == nonce
    assert len(mended["archives"]) == len(backed.run("snapshots")[1]["items"])
    code, record = backed.run("backup", "--wait")
    assert code == 0, record
