"""scripts/setup.sh: what its checkout gets, and what others on the machine may see of it."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
FAKE_SUDO = '#!/bin/sh\nprintf "%s\\n" "$@" >"$SEEN"\n'


@pytest.fixture
def checkout(tmp_path):
    """A copy of what setup.sh needs; its virtual environment looks up to date and is first on PATH."""
    for name in (
        "scripts/setup.sh",
        "scripts/link-collection.sh",
        "pyproject.toml",
        "requirements/runtime.txt",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(CHECKOUT / name, tmp_path / name)
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)
    version = subprocess.run(["/usr/bin/python3", "-V"], capture_output=True, check=True).stdout
    lock = (tmp_path / "pyproject.toml").read_bytes() + (tmp_path / "requirements/runtime.txt").read_bytes()
    stamp = hashlib.sha256(version + f"{tmp_path}\n".encode() + lock).hexdigest()[:32]
    (tmp_path / f".venv/.runtime-{stamp}").touch()
    for name, text in {"saveos": "#!/bin/sh\n", "id": "#!/bin/sh\necho 1000\n", "sudo": FAKE_SUDO}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return tmp_path


def setup(checkout, *arguments, **variables):
    environment = {"PATH": os.environ["PATH"], "SEEN": str(checkout / "seen"), **variables}
    command = ["sh", str(checkout / "scripts/setup.sh"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_sudo_keeps_settings_and_its_command_line_shows_no_secret(checkout):
    done = setup(checkout, "up", SAVEOS_TOKEN="canary 1", SAVEOS_DATABASE_URL="canary2", PATHS="/etc /srv")
    assert done.returncode == 0, done.stderr
    seen = (checkout / "seen").read_text()
    assert "canary" not in seen
    kept = next(line for line in seen.splitlines() if line.startswith("--preserve-env="))
    assert set(kept.partition("=")[2].split(",")) == {"PATHS", "SAVEOS_TOKEN", "SAVEOS_DATABASE_URL"}


def test_the_environment_of_a_checkout_resolves_the_collection(checkout):
    done = setup(checkout, "venv")
    assert done.returncode == 0, done.stderr
    assert (checkout / ".collections/ansible_collections/saveos/fleet/pyproject.toml").is_file()
