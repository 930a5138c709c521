"""The guard with a real Borg on a storage server in a directory."""

from pathlib import Path

import pytest

from tests.guarded import Storage
from tests.unit.agent.conftest import programs  # noqa: F401 - a fixture


@pytest.fixture
def storage(tmp_path: Path, programs: tuple[str, str]) -> Storage:  # noqa: F811
    """A repository with three archives, judged once: all is in order."""
    made = Storage(tmp_path, programs[0])
    for number in range(3):
        made.write(f"file{number}", number)
        made.back_up(f"a{number}")
    made.wait()
    report = made.told_and_run()
    assert (report["state"], report["reasons"]) == ("ok", []), report
    return made
