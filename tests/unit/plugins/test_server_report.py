"""What a storage server sees of repositories in Borg's form, made here byte by byte."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.saveos.fleet.plugins.modules import server_report

HOUR = 3600


class Repository:
    """A directory as Borg 1 leaves it: two segments a directory, each transaction ended by a mere commit."""

    def __init__(self, root: Path, name: str = "r1") -> None:
        self.path = root / "repositories" / name
        (self.path / "data").mkdir(parents=True)
        (self.path / "config").write_text("[repository]\nversion = 1\nsegments_per_dir = 2\n")

    def segment(self, number: int, hours_ago: float, content: bytes = b"BORG_SEG data") -> None:
        path = self.path / "data" / str(number // 2) / str(number)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (time.time() - hours_ago * HOUR,) * 2)

    def commit(self, number: int, hours_ago: float, *, indexed: bool = True) -> None:
        self.segment(number, hours_ago, b"BORG_SEG" + server_report.COMMIT)
        if indexed:
            for old in self.path.glob("index.*"):
                old.unlink()
            (self.path / f"index.{number}").write_text("")

    def seen(self) -> dict[str, Any]:
        (found,) = server_report.report(str(self.path.parents[1]), os.getuid(), 10)
        return found

    def hours(self) -> float:
        return round(self.seen()["commit_age"] / HOUR, 1)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def test_the_last_commit_counts(repository: Repository) -> None:
    repository.segment(0, 48)
    repository.commit(1, 47)
    repository.segment(2, 24)
    repository.commit(3, 23)
    assert repository.hours() == 23


def test_a_backup_that_goes_on_is_no_commit(repository: Repository) -> None:
    repository.segment(0, 24)
    repository.commit(1, 23)
    for number in range(2, 9):
        repository.segment(number, 0)
    assert repository.hours() == 23


def test_a_commit_without_its_index_counts(repository: Repository) -> None:
    repository.commit(1, 23)
    repository.segment(4, 2)
    repository.commit(5, 1, indexed=False)
    assert repository.hours() == 1


def test_a_repository_without_any_commit_or_config_has_no_age(repository: Repository) -> None:
    repository.segment(0, 1)
    assert "commit_age" not in repository.seen()
    repository.commit(1, 1)
    (repository.path / "config").write_text("[repository]\nsegments_per_dir = none\n")
    assert "commit_age" not in repository.seen()
    (repository.path / "config").unlink()
    found = repository.seen()
    assert not found["initialised"]
    assert "commit_age" not in found


def test_sizes_are_added_up_and_links_are_not_followed(repository: Repository, tmp_path: Path) -> None:
    repository.commit(1, 1)
    before = repository.seen()["bytes"]
    (tmp_path / "outside").write_bytes(b"x" * 1000)
    (repository.path / "data/0/7").symlink_to(tmp_path / "outside")
    (repository.path / "more").symlink_to(tmp_path)
    assert repository.seen()["bytes"] == before
    repository.segment(3, 1, b"x" * 500)
    assert repository.seen()["bytes"] == before + 500
    assert repository.hours() == 1  # what the link points to is no commit


def test_files_of_others_are_counted(repository: Repository) -> None:
    repository.commit(1, 1)
    assert repository.seen()["foreign"] == 0
    (found,) = server_report.report(str(repository.path.parents[1]), os.getuid() + 1, 10)
    assert found["foreign"] == 5  # config, data, data/0, the segment, the index


def test_without_time_there_are_no_sizes_but_commits(repository: Repository) -> None:
    repository.commit(1, 1)
    (found,) = server_report.report(str(repository.path.parents[1]), os.getuid(), -1)
    assert "bytes" not in found
    assert found["commit_age"] >= HOUR


def test_other_things_beside_repositories_are_passed_over(repository: Repository) -> None:
    repository.commit(1, 1)
    parent = repository.path.parent
    (parent / "a file").write_text("")
    (parent / "..odd").mkdir()
    assert repository.seen()["id"] == "r1"
    assert server_report.report(str(parent / "nowhere"), 0, 1) == []
