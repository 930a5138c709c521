"""The guard with a real Borg on a storage server in a directory."""

from pathlib import Path

import pytest

from tests.guarded import Storage
from tests.unit.agent.conftest import programs  # noqa: F401 - a fixture


@pytest.fixture(scope="module")
def three_archives(tmp_path_factory: pytest.TempPathFactory, programs: tuple[str, str]) -> Storage:  # noqa: F811
    """A repository with three archives, judged once: all is in order. Not to be changed."""
    made = Storage(tmp_path_factory.mktemp("storage"), programs[0])
    for number in range(3):
        made.write(f"file{number}", number)
        made.back_up(f"a{number}")
    made.wait()
    report = made.told_and_run()
    assert (report["state"], report["reasons"]) == ("ok", []), report
    return made


@pytest.fixture
def storage(tmp_path: Path, three_archives: Storage) -> Storage:
    """A repository with three archives of one's own."""
    return Storage(tmp_path, three_archives.borg_path, like=three_archives)
