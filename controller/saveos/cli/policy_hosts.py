"""Commands about policies and hosts: who has which, what that makes of a host, when it runs, how much it is."""

from typing import Annotated, Any

import typer

from saveos.cli import output
from saveos.cli.archives import follow_quietly
from saveos.cli.client import Client, segment
from saveos.cli.common import examples
from saveos.cli.errors import FINDINGS, USAGE, CommandError
from saveos.cli.jobs import finish, outcome

Name = Annotated[str, typer.Argument(help="The policy's name.")]
OneHost = Annotated[str, typer.Argument(help="Host, by name or id.", metavar="HOST")]


def add_host_commands(policies: typer.Typer) -> None:
    """Mount these commands below `policies`."""
    policies.command(
        "assign",
        epilog=examples(
            "saveos policies assign web --host web1 --host web2",
            "saveos policies assign db --group databases --priority 10",
            "saveos policies assign none --host web1",
        ),
    )(assign)
    policies.command("effective", epilog=examples("saveos policies effective web1 --yaml"))(effective)
    policies.command("runs", epilog=examples("saveos policies runs web --count 5"))(runs)
    policies.command(
        "measure",
        epilog=examples(
            "saveos policies measure web1", "saveos policies measure web1 --source /srv --exclude '*.iso'"
        ),
    )(measure)


def assign(
    name: Annotated[str, typer.Argument(help="The policy's name, or none to take it away.")],
    hosts: Annotated[
        list[str] | None, typer.Option("--host", help="A host's own choice; may be repeated.")
    ] = None,
    groups: Annotated[
        list[str] | None, typer.Option("--group", "-g", help="For a group's hosts without an own choice.")
    ] = None,
    priority: Annotated[int, typer.Option(min=0, help="Of groups: the lowest wins, then the name.")] = 100,
) -> None:
    """Give hosts or groups a policy. A host's own choice beats its groups, and those beat the default."""
    if not hosts and not groups:
        raise CommandError("name hosts with --host or groups with --group", USAGE)
    client, policy, told = Client(), None if name == "none" else name, []
    for host in hosts or []:
        told.append(client.patch(f"/hosts/{segment(host)}", {"policy": policy}))
    for each in groups or []:
        body = {"policy": policy, "priority": priority}
        told.append(client.put(f"/groups/{segment(each)}/policy", body))
    if output.is_json():
        output.emit({"items": told})
        return
    for row in told:
        if "group" in row:
            print(
                f"group {row['group']}: {row['policy'] or 'no policy'}, which {row['hosts']} hosts have from it"
            )
        else:
            print(f"{row['name']}: {row['policy_name']} ({row['policy_source']})")
    print("They follow with: saveos maintenance provision HOST… --wait")


def effective(
    host: OneHost,
    yaml: Annotated[bool, typer.Option("--yaml", help="Print borgmatic's configuration only.")] = False,
) -> None:
    """Show which policy a host has and why, whether it is in place, and what it makes of the host.

    Exit 3 when the host has yet to follow (drift).
    """
    told = Client().get(f"/hosts/{segment(host)}/policy")
    if output.is_json():
        output.emit(told)
    elif yaml:
        print("---\n".join(told["rendered"].values()) or f"# {told['problem']}\n", end="")
    else:
        _show(told)
    if told["drift"]:
        raise typer.Exit(FINDINGS)


def _show(told: dict[str, Any]) -> None:
    fields = {
        "host": "host",
        "policy": lambda t: f"{t['policy']}, version {t['version']}",
        "in place": lambda t: f"version {t['applied_version']}" if t["applied_version"] else "no version of it",
        "drift": lambda t: f"yes: saveos maintenance provision {t['host']} --wait" if t["drift"] else "no",
        "cannot be": "problem",
    }
    output.fields(told, fields)
    rows = [
        [
            choice["source"],
            output.clean(choice["policy"] or "-"),
            str(choice["priority"] if choice["priority"] is not None else ""),
            "applies" if choice["applies"] else "",
        ]
        for choice in told["chain"]
    ]
    print()
    output.table(["from", "policy", "priority", ""], rows)


def runs(name: Name, count: Annotated[int, typer.Option(min=1, max=100, help="How many runs.")] = 10) -> None:
    """Show when a policy runs next, by its own time zone's clock."""
    told = Client().get(f"/policies/{segment(name)}/runs", count=count)
    columns = {
        "run": "local",
        "in UTC": lambda run: run["at"],
        "latest start": lambda run: run["latest"],
    }
    output.page({"items": told["items"], "next": None}, columns, "")


def measure(
    host: OneHost,
    sources: Annotated[
        list[str] | None, typer.Option("--source", "-s", help="Instead of the host's policy; may be repeated.")
    ] = None,
    excludes: Annotated[
        list[str] | None, typer.Option("--exclude", "-x", help="Pattern to leave out; may be repeated.")
    ] = None,
    policy: Annotated[str, typer.Option(help="Measure what this policy would match on the host.")] = "",
) -> None:
    """Count the files and bytes that a backup of a host would hold, on the host; nothing is stored."""
    client = Client()
    if policy:
        found = client.get(f"/policies/{segment(policy)}")
        sources, excludes = found["sources"], found["excludes"]
    elif excludes and not sources:
        raise CommandError("name sources too: --exclude alone would change what the policy says", USAGE)
    parameters = {"sources": sources or [], "excludes": excludes or []}
    asked = {"targets": {"hosts": [host]}, "mode": "run", "parameters": parameters}
    job = follow_quietly(client, client.post("/maintenance/measure", asked, once=True))
    if outcome(client, job):
        finish(client, job)
    told = client.page(f"/jobs/{job['id']}/hosts", None)["items"][0]["result"]["measure"]
    if output.is_json():
        output.emit(told)
        return
    rows = [
        [output.clean(each["path"]), str(each["files"]), output.size(each["bytes"])] for each in told["sources"]
    ]
    output.table(["source", "files", "size"], [*rows, ["all", str(told["files"]), output.size(told["bytes"])]])
    print(f"{told['excluded']} left out, {told['unreadable']} not readable")
