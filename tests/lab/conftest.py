"""Fixtures of the lab: real hosts, and one fleet with a real controller for all tests that need one."""

import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # lab.py and its neighbours; bench/ uses them the same way

from fleet import start_fleet

SERVE = """
from saveos.alerts import watch
from saveos.cli.main import main
watch.EVERY = 3.0  # seconds, as `saveos serve` has fifteen: tests wait for hosts to be judged often
main()
"""

# The first file wants a fleet that nothing else has touched; then those that take longest, so that with two
# workers (--dist loadfile --no-loadscope-reorder) none of them is left for the end.
FIRST = ("test_validation.py", "test_up.py", "test_undo.py", "test_operation_doors.py")


def pytest_collection_modifyitems(items):
    """Put some files first."""
    last = len(FIRST)
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else last)


@pytest.fixture(scope="session", autouse=True)
def _machine():
    """Skip with a sentence where hosts cannot run; under CI a skip would hide a failure."""
    missing = "root" if os.geteuid() else "podman" if not shutil.which("podman") else ""
    if missing and os.environ.get("CI"):
        pytest.fail(f"lab tests need {missing}, and under CI they must not be skipped", pytrace=False)
    if missing:
        pytest.skip(f"lab tests need {missing}: real hosts run in rootful podman")


@pytest.fixture(scope="session")
def fleet():
    """A storage server and three agents, added to a controller as a person would, and provisioned over HTTP."""
    with start_fleet(program=[sys.executable, "-I", "-c", SERVE, "serve"]) as started:
        yield started
