"""Fixtures of the lab: real hosts, and one fleet with a real controller for all tests that need one."""

import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # lab.py and its neighbours; bench/ uses them the same way

from fleet import start_fleet


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
    with start_fleet() as started:
        yield started
