"""Commands about agents: how they are, and what runs on hosts now."""

from typing import Annotated, Any

import typer

from saveos.cli import output
from saveos.cli.client import Client, segment
from saveos.cli.common import (
    All,
    Check,
    Everything,
    Groups,
    Hosts,
    Limit,
    Wait,
    examples,
    group,
    playbook,
    targets,
)
from saveos.cli.errors import FINDINGS, USAGE, CommandError
from saveos.cli.jobs import accepted

agents = group("Agents on hosts: their state, their versions, and backups that go on now.")


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


@agents.command("versions", epilog=examples("saveos agents versions", "saveos agents versions --outdated"))
def versions(
    outdated: Annotated[bool, typer.Option("--outdated", help="Only those that could be updated.")] = False,
    limit: Limit = 50,
    everything: All = False,
) -> None:
    """List the versions of agent, borg and borgmatic by host. Ends with 3 when one is outdated."""
    asked = {"outdated": "true"} if outdated else {}
    body = Client().page("/agents/versions", None if everything else limit, **asked)
    columns = {
        "host": "host",
        **{name: _beside(name) for name in ("agent", "borg", "borgmatic")},
        "update": lambda row: f"saveos agents update {row['host']}" if row["outdated"] else "",
    }
    output.page(body, columns, "No agent is outdated." if outdated else "No agent yet.")
    raise typer.Exit(FINDINGS if any(row["outdated"] for row in body["items"]) else 0)


def _beside(name: str) -> Any:
    def show(row: dict[str, Any]) -> str:
        return f"{row[name]} (offered: {row['offered'][name]})" if name in row["outdated"] else row[name]

    return show


@agents.command(
    "update",
    epilog=examples("saveos agents update web1 --wait", "saveos agents update --outdated --check --wait"),
)
def update(
    hosts: Hosts = None,
    groups: Groups = None,
    everything: Everything = False,
    outdated: Annotated[bool, typer.Option("--outdated", help="All hosts that could be updated.")] = False,
    check: Check = False,
    wait: Wait = False,
) -> None:
    """Bring agent, borg and borgmatic of hosts to the versions that are offered, by provisioning them."""
    if outdated:
        if hosts or groups or everything:
            raise CommandError("--outdated already says which hosts: leave out the others.", USAGE)
        rows = Client().page("/agents/versions", None, outdated="true")["items"]
        hosts = [row["host"] for row in rows]
        if not hosts:
            output.emit({"hosts": []}) if output.is_json() else print("No agent is outdated.")
            return
    asked = targets(hosts, groups, everything)
    client = Client(instead=playbook("site", asked, check))
    body = {"targets": asked, "mode": "check" if check else "run", "parameters": {}}
    accepted(client, client.post("/maintenance/provision", body, once=True), wait)


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
