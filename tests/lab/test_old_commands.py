"""Old command lines against a real installation: docs/reference/old-commands.md shows what they answer."""

import os
import subprocess
from pathlib import Path

import pytest
from serving import BIN, ROOT

pytestmark = pytest.mark.lab


def old(fleet, line: str) -> tuple[int, str]:
    """Run a wrapper as a person would; return its exit code and what it says."""
    ran = subprocess.run(
        f"{ROOT}/scripts/{line}",
        shell=True,
        env=fleet.controller.environment | {"PATH": f"{BIN}:{os.environ['PATH']}"},
        text=True,
        capture_output=True,
        timeout=300,
        check=False,
    )
    if place := os.environ.get("SAVEOS_ANSWERS"):  # for the page: what was said, as it was said
        with Path(place).open("a") as file:
            file.write(f"$ scripts/{line}\n{ran.stdout}{ran.stderr}(exit {ran.returncode})\n\n")
    return ran.returncode, ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("line", "codes", "words"),
    [
        ("backup.sh --full web", (0,), "backup succeeded"),
        ("backup.sh --list web", (0,), "web-"),
        ("restore.sh web --path /srv/data/stamp --dry-run", (0, 3), "1 created"),
        ("manage-dependencies.sh --audit web", (0, 3), "dependencies succeeded"),
        ("cleanup-project.sh --auto --dry-run web", (0, 3), "cleanup succeeded"),
        ("validate-config.sh web", (0, 3), "validation succeeded"),
        ("manage-secrets.sh --validate web", (0, 3), "secrets succeeded"),
        ("manage-secrets.sh --list web", (0,), "passphrase"),
        ("manage-secrets.sh --export-env", (0,), "SAVEOS_TOKEN"),
        ("backup.sh --list nowhere", (2,), "nowhere"),
    ],
)
def test_old_line_answers(fleet, line, codes, words):
    code, said = old(fleet, line)
    assert code in codes, said
    assert words in said
    assert fleet.controller.token not in said
