"""Every command of maintenance is there and teaches: what it does, and an example of the command itself."""

import pytest
from saveos.cli.main import main

COMMANDS = (
    "backup create",
    "backup list",
    "backup restore",
    "restore",
    "provision",
    "cleanup run",
    "cleanup cache",
    "cleanup logs",
    "cleanup temp",
    "cleanup containers",
    "dependencies audit",
    "dependencies update",
    "dependencies security",
    "dependencies repair",
    "validation config",
    "validation setup",
    "validation compose",
    "secrets generate",
    "secrets rotate",
    "secrets list",
    "secrets validate",
    "secrets cleanup",
    "secrets export-env",
    "health check",
    "health monitor",
    "drift",
    "findings",
    "fix",
    "results list",
    "results show",
)


def help_of(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["maintenance", *words.split(), "--help"])
    assert not caught.value.code
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("words", COMMANDS)
def test_command_teaches(words, capsys):
    shown = help_of(words, capsys)
    assert f"Usage: saveos maintenance {words}" in shown
    if words not in ("backup list", "results list"):
        assert f"Examples: saveos maintenance {words}" in shown


@pytest.mark.parametrize(("short", "whole"), [("deps", "dependencies"), ("validate", "validation")])
def test_short_names_work_too(short, whole, capsys):
    assert help_of(short, capsys).replace(short, whole, 1) == help_of(whole, capsys)
