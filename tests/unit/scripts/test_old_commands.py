"""Old command lines run what docs/reference/old-commands.md says, and that is a command that there is."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer
from saveos.cli.main import app

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/reference/old-commands.md").read_text()
LINES = [
    (old, re.findall(r"`saveos ([^`]+)`", today))
    for old, today in re.findall(r"^\| `([a-z-]+\.sh[^`]*)` \| (.+) \|$", PAGE, re.MULTILINE)
]
WRAPPERS = sorted({old.split()[0] for old, _ in LINES})


def wrapper(line: str, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run an old command line with a `saveos` that only writes down how it was called."""
    fake = tmp_path / "saveos"
    fake.write_text(
        '#!/bin/sh\nfor word; do printf "%s\\n" "$word"; done >> "$0.said"\n'
        'echo -- >> "$0.said"\nexit ${ENDS:-0}\n'
    )
    fake.chmod(0o755)
    name, *words = shlex.split(line)
    return subprocess.run(
        ["sh", ROOT / "scripts" / name, *words],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", **environment},
        text=True,
        capture_output=True,
        check=False,
    )


def said(tmp_path: Path) -> list[list[str]]:
    """How `saveos` was called, once or several times."""
    calls = (tmp_path / "saveos.said").read_text().split("--\n")
    return [call.splitlines() for call in calls if call]


def known(words: list[str]) -> bool:
    """Whether `saveos` has this command, with these options."""
    group = typer.main.get_command(app)
    rest = list(words)
    while hasattr(group, "commands"):
        group = group.commands.get(rest.pop(0))
        if group is None:
            return False
    options = {name for each in group.params for name in (*each.opts, *each.secondary_opts)}
    return all(word in options for word in rest if word.startswith("-") and word != "--json")


def test_the_page_knows_every_wrapper():
    assert len(LINES) > 25
    assert set(WRAPPERS) == {
        "backup.sh",
        "restore.sh",
        "cleanup-project.sh",
        "manage-dependencies.sh",
        "manage-secrets.sh",
        "validate-config.sh",
    }


@pytest.mark.parametrize(("old", "today"), LINES, ids=[old for old, _ in LINES])
def test_old_line_runs_what_the_page_says(old: str, today: list[str], tmp_path: Path):
    ran = wrapper(old, tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert said(tmp_path) == [shlex.split(each) for each in today]
    for each in today:
        assert known(shlex.split(each)), each


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrapper_teaches_and_refuses(name: str, tmp_path: Path):
    ran = wrapper(f"{name} --help", tmp_path)
    assert ran.returncode == 0 and name in ran.stdout and "Today: saveos" in ran.stdout
    ran = wrapper(f"{name} --frobnicate", tmp_path)
    assert ran.returncode == 2 and "--frobnicate is not known" in ran.stderr
    assert not (tmp_path / "saveos.said").exists()


@pytest.mark.parametrize("name", WRAPPERS)
@pytest.mark.parametrize("code", [1, 3, 5])
def test_exit_code_is_passed_on(name: str, code: int, tmp_path: Path):
    line = f"{name} web1" if name == "restore.sh" else name
    assert wrapper(line, tmp_path, ENDS=str(code)).returncode == code


def test_hosts_of_the_environment_are_used(tmp_path: Path):
    assert wrapper("backup.sh --full", tmp_path, SAVEOS_HOSTS="web1 web2").returncode == 0
    assert said(tmp_path) == [["maintenance", "backup", "create", "--wait", "web1", "web2"]]


def test_paths_with_spaces_and_odd_names_stay_whole(tmp_path: Path):
    assert wrapper("restore.sh web1 --path '/srv/my *$(touch x) files'", tmp_path).returncode == 0
    assert "/srv/my *$(touch x) files" in said(tmp_path)[0]


def test_restore_needs_a_host_and_values(tmp_path: Path):
    ran = wrapper("restore.sh --path /etc", tmp_path)
    assert ran.returncode == 2 and "name the host" in ran.stderr
    assert wrapper("restore.sh web1 --path", tmp_path).returncode == 2


def test_without_saveos_it_says_what_to_do(tmp_path: Path):
    copy = tmp_path / "scripts"
    copy.mkdir()
    for name in ("old-commands.sh", "backup.sh"):
        (copy / name).write_text((ROOT / "scripts" / name).read_text())
    ran = subprocess.run(
        ["/bin/sh", copy / "backup.sh"],
        env={"PATH": "/usr/bin:/bin"},
        text=True,
        capture_output=True,
        check=False,
    )
    assert ran.returncode == 127 and "not installed" in ran.stderr
