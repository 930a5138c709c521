"""Commands about the audit trail: who did what, when, and from where."""

import json
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from saveos.cli import output
from saveos.cli.client import Client
from saveos.cli.common import All, Limit, examples, group, moment
from saveos.cli.download import save
from saveos.cli.errors import USAGE, CommandError

audit = group("Who did what, when, and from where.")
Actor = Annotated[str, typer.Option(help="Only of this user and their tokens.")]
Action = Annotated[str, typer.Option(help='Only this action, as the list has it: "add host".')]
Object = Annotated[
    str, typer.Option("--object", help="Only objects with this in them: host:web1, policy:, user:ana.")
]
Address = Annotated[str, typer.Option(help="Only from this address.")]
Since = Annotated[
    str, typer.Option(help="Not before this time: 7d, 12h, 2026-11-01 or 2026-11-01T14:00.", metavar="TIME")
]
Until = Annotated[str, typer.Option(help="Not after this time; a day counts to its end.", metavar="TIME")]

To = Annotated[
    str, typer.Option("--to", help="File to write, or - for standard output (else one named by the day).")
]


def add_to(app: typer.Typer) -> None:
    """Mount these commands."""
    app.add_typer(audit, name="audit")


@audit.command(
    "list",
    epilog=examples(
        "saveos audit list --actor ana --since 7d",
        "saveos audit list --object host:web1 --limit 200",
        'saveos audit list --action "delete policy" --since 2026-11-01 --until 2026-11-07 --json',
    ),
)
def list_acts(
    actor: Actor = "",
    action: Action = "",
    object_: Object = "",
    address: Address = "",
    since: Since = "",
    until: Until = "",
    limit: Limit = 50,
    everything: All = False,
) -> None:
    """List what was done, the newest first."""
    filters = _filters(actor, action, object_, address, since, until)
    columns = {
        "when": lambda a: output.when(a["at"]),
        "who": "actor",
        "from": "address",
        "did": "action",
        "what": "object",
        "detail": lambda a: _detail(a["detail"]),
    }
    output.page(Client().page("/audit", None if everything else limit, **filters), columns, "No such act.")


@audit.command(
    "export",
    epilog=examples(
        "saveos audit export --since 30d                          a CSV file in this directory",
        "saveos audit export --format jsonl --to audit.jsonl",
        "saveos audit export --format jsonl --to - | jq -r 'select(.action == \"log in\") | .address'",
    ),
)
def export_acts(
    actor: Actor = "",
    action: Action = "",
    object_: Object = "",
    address: Address = "",
    since: Since = "",
    until: Until = "",
    kind: Annotated[str, typer.Option("--format", help="csv, or jsonl: a JSON object a line.")] = "csv",
    to: To = "",
) -> None:
    """Write all that was done to a file, as it comes, the newest first; however many."""
    if kind not in ("csv", "jsonl"):
        raise CommandError("--format is csv or jsonl.", USAGE)
    filters = _filters(actor, action, object_, address, since, until)
    written = save(Client(), f"/audit/export?{urlencode({**filters, 'format': kind})}", to)
    if to == "-":
        return
    if output.is_json():
        output.emit({"file": str(written), "bytes": written.stat().st_size})
    else:
        print(f"{written}: {output.size(written.stat().st_size)}")


def _filters(actor: str, action: str, object_: str, address: str, since: str, until: str) -> dict[str, str]:
    given = {
        "actor": actor,
        "action": action,
        "object": object_,
        "address": address,
        "since": moment(since, "--since") if since else "",
        "until": moment(until, "--until", end=True) if until else "",
    }
    return {name: value for name, value in given.items() if value}


def _detail(detail: dict[str, Any]) -> str:
    """Return what the trail says besides, in one line."""
    words = (
        f"{key}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for key, value in detail.items()
    )
    return " ".join(words)[:120]
