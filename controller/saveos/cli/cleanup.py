"""Commands of the operation `cleanup`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from saveos.cli.common import Check, Everything, Groups, Hosts, Wait, examples, group
from saveos.cli.errors import USAGE, CommandError
from saveos.cli.findings import run_operation

cleanup = group(
    "Free space on hosts: caches, old logs, temporary files, untagged container images.\n\n"
    "Every rule has a root, patterns and a minimum age. It never leaves its root, never follows a symbolic "
    "link, never crosses a mount, and leaves what is open or has several names. Look first with --check: the "
    "run frees exactly what the check said."
)
OlderThan = Annotated[
    float,
    typer.Option(
        "--older-than", help="Days, instead of each rule's own minimum age, as far as it lets that be lowered."
    ),
]
Only = Annotated[
    list[str] | None, typer.Option("--rule", help="Only this rule, such as apt-archives; may be repeated.")
]
Journal = Annotated[int, typer.Option("--journal-mb", help="So much of the archived journal stays, in MB.")]
RulesFile = Annotated[
    Path | None,
    typer.Option(
        "--rules-file",
        help="JSON list of rules of your own: name, root, patterns, perhaps kind, min_age_days, directories.",
    ),
]
NOT_SAID, JOURNAL_MB = -1.0, 500


def add_to(maintenance: typer.Typer) -> None:
    """Mount these commands below `saveos maintenance`."""
    maintenance.add_typer(cleanup, name="cleanup")


@cleanup.command(
    "run",
    epilog=examples(
        "saveos maintenance cleanup run web1 --check --wait",
        "saveos maintenance cleanup run --all --wait",
        "saveos maintenance cleanup run web1 --rule apt-archives --older-than 0 --wait",
    ),
)
def run(
    hosts: Hosts = None,
    groups: Groups = None,
    everything: Everything = False,
    only: Only = None,
    older_than: OlderThan = NOT_SAID,
    journal_mb: Journal = JOURNAL_MB,
    rules_file: RulesFile = None,
    check: Check = False,
    wait: Wait = False,
) -> None:
    """Carry out every rule, or those that are named."""
    asked = _said(older_than=older_than, journal_mb=journal_mb)
    asked |= {"rules": only} if only else {}
    asked |= {"custom": _read(rules_file)} if rules_file else {}
    run_operation("cleanup", hosts, groups, everything, check=check, wait=wait, parameters=asked)


def _said(**asked: Any) -> dict[str, Any]:
    """Return what was asked for, but for what is so anyway."""
    usual = {"older_than": NOT_SAID, "journal_mb": JOURNAL_MB}
    return {name: value for name, value in asked.items() if usual.get(name) != value}


def _read(path: Path) -> list[Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CommandError(f"{path} cannot be read as JSON: {error}", USAGE) from None
    if not isinstance(found, list):
        raise CommandError(f"{path} must hold a JSON list of rules.", USAGE)
    return found


def _one_kind(kind: str, what: str) -> None:
    """Add the command that carries out the rules of one kind."""

    def command(
        hosts: Hosts = None,
        groups: Groups = None,
        everything: Everything = False,
        older_than: OlderThan = NOT_SAID,
        check: Check = False,
        wait: Wait = False,
    ) -> None:
        asked = _said(rule_kinds=[kind], older_than=older_than)
        run_operation(
            "cleanup",
            hosts,
            groups,
            everything,
            check=check,
            wait=wait,
            parameters=asked,
        )

    command.__doc__ = what
    cleanup.command(kind, epilog=examples(f"saveos maintenance cleanup {kind} web1 --check --wait"))(command)


_one_kind("cache", "Only caches: of package managers, languages and Borg; kernels that are long replaced.")
_one_kind("logs", "Only logs: the archived journal by size and age, and rotated logs.")
_one_kind("temp", "Only temporary files, core dumps and crash reports.")
_one_kind("containers", "Only untagged images of podman and docker that no container uses.")
