"""What the pages tell people to type exists, and every command is taught by an example."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from saveos.cli.main import app, split_json

ROOT = Path(__file__).resolve().parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TYPED = re.compile(r"^(?:\w+=\S+ )*(?:[\w./-]*/)?saveos (.+)$")
REST = re.compile(r"\s+#|\s[|<>]|;|\s&&")  # a comment, or what the shell does with it
COMMANDS: Any = typer.main.get_command(app)


def typed(page: Path) -> Iterator[str]:
    """Yield what follows `saveos` on the command lines of a page."""
    for block in re.findall(r"^```\w*\n(.*?)^```", page.read_text().replace("\\\n", " "), re.M | re.S):
        for line in block.splitlines():
            if found := TYPED.match(line.removeprefix("$ ")):
                yield REST.split(found[1])[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_a_page_exist(page: Path) -> None:
    for line in typed(page):
        words, command = split_json(shlex.split(line))[0], COMMANDS
        while hasattr(command, "commands") and words and not words[0].startswith("-"):
            assert words[0] in command.commands, f"saveos {line}"
            command, words = command.commands[words[0]], words[1:]
        if not hasattr(command, "commands"):
            command.make_context("saveos", words)  # raises where an option or argument is not what it takes


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_a_sentence_exist(page: Path) -> None:
    """They may lack an argument, so only the command and the options that are named are looked for."""
    prose = re.sub(r"^```\w*\n.*?^```", "", page.read_text(), flags=re.M | re.S)
    for line in re.findall(r"`saveos ([^`]+)`", prose):
        words, command = split_json(shlex.split(REST.split(line.replace("|", " "))[0]))[0], COMMANDS
        while hasattr(command, "commands") and words and not words[0].startswith("-"):
            assert words[0] in command.commands, f"saveos {line}"
            command, words = command.commands[words[0]], words[1:]
        known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
        named = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert named <= known | {"--help"}, f"saveos {line}"


def leaves(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    for word, below in getattr(command, "commands", {}).items():
        if below.hidden:  # another name of what is taught under its own
            continue
        if hasattr(below, "commands"):
            yield from leaves(below, f"{name} {word}")
        else:
            yield f"{name} {word}", below


def test_every_command_is_taught() -> None:
    for name, command in leaves(COMMANDS, "saveos"):
        assert command.help, name
        assert name in (command.epilog or ""), f"{name} has no example"
        assert all(getattr(each, "help", "") for each in command.params), f"{name} has an option without help"
