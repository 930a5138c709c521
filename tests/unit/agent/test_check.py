"""The host's own check of its repository, by the real borg."""

import random
from pathlib import Path

REPOSITORY = "0193aaaa-0000-7000-8000-000000000001"  # of the host in conftest.py


def segments(base: Path) -> list[Path]:
    return sorted((base / "repository" / "data").rglob("[0-9]*"), key=lambda path: path.is_file())


def test_archives_and_data_are_in_order(backed, saved):
    name = backed.archives()[0]
    for kind in ("archives", "data"):
        code, found = backed.run("check", "--kind", kind)
        assert (code, found["kind"], found["schema"]) == (0, kind, 1)
        (repository,) = found["repositories"]
        assert (repository["repository_id"], repository["state"]) == (REPOSITORY, "ok")
        assert [(each["name"], each["state"], len(each["id"])) for each in repository["archives"]] == [
            (name, "ok", 64)
        ]


def test_a_flipped_bit_in_the_data_is_found(backed):
    (backed.sources / "large").write_bytes(random.Random(5).randbytes(400_000))
    backed.run("backup", "--wait")
    largest = max(
        (path for path in segments(backed.base) if path.is_file()), key=lambda path: path.stat().st_size
    )
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 4
    largest.write_bytes(content)
    code, found = backed.run("check", "--kind", "data")
    (repository,) = found["repositories"]
    assert code == 1
    assert repository["state"] == "damaged"
    assert "integrity" in repository["detail"].lower()
    assert not [each for each in repository["archives"] if each["state"] == "ok"]


def test_a_repository_that_cannot_be_reached_is_no_proof_of_damage(backed, saved):
    (backed.base / "repository").rename(backed.base / "elsewhere")
    code, found = backed.run("check")
    assert (code, found["repositories"][0]["state"]) == (1, "failed")
    assert found["repositories"][0]["detail"]
    (backed.base / "elsewhere").rename(backed.base / "repository")


def test_only_known_repositories_are_checked(backed):
    code, found = backed.run("check", "--repository", "another")
    assert code != 0
    assert "another" in found["error"]["message"]
