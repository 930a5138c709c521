"""Options and helpers that several commands share."""

import json
import re
import shlex
import sys
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from saveos.cli.errors import USAGE, CommandError

PACKAGE = Path(__file__).resolve().parents[1]
# As core.settings.fleet_dir; pydantic would cost every command 0.15 s.
FLEET = PACKAGE.parents[1] if (PACKAGE.parents[1] / "playbooks").is_dir() else PACKAGE / "_fleet"

Limit = Annotated[int, typer.Option("--limit", min=1, help="Show at most so many.")]
All = Annotated[bool, typer.Option("--all", help="Show all, however many.")]
Hosts = Annotated[list[str] | None, typer.Argument(help="Hosts, by name or id.", metavar="HOST…")]
Groups = Annotated[
    list[str] | None, typer.Option("--group", "-g", help="All hosts of a group; may be repeated.")
]
Everything = Annotated[bool, typer.Option("--all", help="All hosts.")]
Wait = Annotated[bool, typer.Option("--wait", "-w", help="Show progress, and end with the job's outcome.")]
Check = Annotated[
    bool, typer.Option("--check", "--dry-run", help="Change nothing, show what would change (exit 3: drift).")
]


class Commands(TyperGroup):
    """A group of commands whose help shows the whole first sentence of each, however narrow the terminal."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the table of commands."""
        shown = [(name, command) for name, command in self.commands.items() if not command.hidden]
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(limit=300)) for name, command in shown])


def group(help_: str) -> typer.Typer:
    """Return a command group in the house style."""
    return typer.Typer(
        cls=Commands, help=help_, no_args_is_help=True, rich_markup_mode=None, add_completion=False
    )


def examples(*lines: str) -> str:
    """Return an epilog that shows examples, one a line."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def targets(hosts: list[str] | None, groups: list[str] | None, everything: bool) -> dict[str, Any]:
    """Return the `targets` of a request. Raises CommandError when nothing is named."""
    if not (hosts or groups or everything):
        raise CommandError("Name hosts, or use --group GROUP or --all.", USAGE)
    if everything and (hosts or groups):
        raise CommandError("--all already means every host: leave out the hosts and groups.", USAGE)
    return {"hosts": hosts or [], "groups": groups or [], "all": everything}


def playbook(
    name: str,
    asked: dict[str, Any] | None = None,
    check: bool = False,
    variables: dict[str, Any] | None = None,
    **extra: str,
) -> str:
    """Return the ansible-playbook line that does the same as a request, without the controller.

    `extra` are variables of text, `variables` those that may be lists and switches.
    """
    limit = ":".join([*(asked or {}).get("hosts", []), *(asked or {}).get("groups", [])])
    beside = Path(sys.executable).with_name("ansible-playbook")
    program = (
        ".venv/bin/ansible-playbook" if beside == FLEET / ".venv/bin/ansible-playbook" else "ansible-playbook"
    )
    words = [program, f"playbooks/{name}.yml"]
    words += ["--limit", limit] if limit else []
    words += ["--check", "--diff"] if check else []
    for key, value in extra.items():
        if value:
            words += ["-e", f"{key}={value}"]
    words += ["-e", json.dumps(variables)] if variables else []
    return f"cd {shlex.quote(str(FLEET))} && {shlex.join(words)}"


def confirm(question: str) -> bool:
    """Ask a person. Raises CommandError when nobody is there."""
    if not sys.stdin.isatty():
        raise CommandError("Nobody is there to confirm: add --yes.", USAGE)
    return typer.confirm(question, err=True)


def length(text: str) -> timedelta | None:
    """Return a length of time that was typed: 30m, 8h, 7d or 2w; None for anything else."""
    found = re.fullmatch(r"(\d{1,4})([mhdw])", text.strip())
    units = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
    return timedelta(**{units[found[2]]: int(found[1])}) if found else None


def moment(text: str, option: str, *, end: bool = False) -> str:
    """Return a time that was typed, as ISO in UTC: how long ago, or a day or time of this machine's zone.

    With `end` a day means its end. Raises CommandError.
    """
    if (ago := length(text)) is not None:
        return (datetime.now(UTC) - ago).isoformat()
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError as error:
        sentence = f"{option} takes how long ago (7d, 12h, 30m), a day (2026-11-01) or 2026-11-01T14:00."
        raise CommandError(sentence, USAGE) from error
    if end and len(text.strip()) <= len("2026-11-01"):
        found = datetime.combine(found.date(), time.max)
    return found.astimezone(UTC).isoformat()
