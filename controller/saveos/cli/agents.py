"""Commands about agents: how they are, and what runs on hosts now."""

from typing import Annotated, Any

import typer

from saveos.cli import output
from saveos.cli.client import Client, segment
from saveos.cli.common import All, Limit, examples, group

agents = group("What agents on hosts say: their state, and backups that go on now.")


def add_to(app: typer.Typer) -> None:
    """Mount these commands."""
    app.add_typer(agents, name="agents")


@agents.command("stats", epilog=examples("saveos agents stats", "saveos --json agents stats"))
def agent_stats() -> None:
    """Count agents by version and by when they were heard of; name what needs a look."""
    stats = Client().get("/agents/stats")
    if output.is_json():
        output.emit(stats)
        return
    heard = stats["heartbeats"]
    names = {
        "hosts": stats["hosts"],
        "heard in 10 minutes": heard["10m"],
        "heard in an hour": heard["1h"],
        "heard in a day": heard["24h"],
        "running now": stats["running"],
        "clock over a minute off": stats["skewed"],
        "records not delivered": stats["spooled"],
    }
    for program, versions in stats["versions"].items():
        names[program] = ", ".join(f"{version} ({count})" for version, count in versions.items())
    output.fields(names)


@agents.command("running", epilog=examples("saveos agents running", "saveos agents running --host web1"))
def running(
    host: Annotated[str, typer.Option("--host", help="Only this host, by name or id.")] = "",
    limit: Limit = 50,
    everything: All = False,
) -> None:
    """List backups and restores that go on now, whoever started them: a timer, a job or a person."""
    columns = {
        "host": "host",
        "kind": "kind",
        "started by": "trigger",
        "phase": "phase",
        "began": lambda run: output.when(run["started_at"]),
        "files": "files",
        "read": lambda run: output.size(run["original_size"]),
        "of about": lambda run: output.size(run["expected_size"]),
        "new": lambda run: output.size(run["deduplicated_size"]),
        "run": "run_id",
    }
    output.page(_running(host, None if everything else limit), columns, "Nothing runs now.")


def _running(host: str, limit: int | None) -> dict[str, Any]:
    if not host:
        return Client().page("/running", limit)
    found = Client().get(f"/hosts/{segment(host)}/running")
    return {"items": [found] if found else [], "next": None}
