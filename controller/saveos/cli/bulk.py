"""`saveos hosts bulk`: one action for many hosts."""

from typing import Annotated, Any

import typer

from saveos.cli import output
from saveos.cli.client import Client
from saveos.cli.common import Hosts, Wait, confirm, examples
from saveos.cli.errors import FAILED, FINDINGS, USAGE, CommandError
from saveos.cli.hosts import hosts
from saveos.cli.jobs import accepted, follow, outcome, summary
from saveos.cli.schedules import Parameters, read_parameters

ACTIONS = (
    "pause",
    "resume",
    "add_tags",
    "remove_tags",
    "add_group",
    "remove_group",
    "policy",
    "follow_groups",
    "decommission",
    "operation",
)


EXAMPLES = examples(
    "saveos hosts bulk pause --tag rack-7 --dry-run",
    "saveos hosts bulk add-tags -v web -v paris web1 web2",
    "saveos hosts bulk policy -v nightly --in-group web",
    "saveos hosts bulk operation -v provision --drift --wait",
    "saveos hosts bulk decommission --query old- --yes",
)


def add_to(_app: typer.Typer) -> None:
    """Mount this command, in the group of hosts."""
    hosts.command("bulk", epilog=EXAMPLES)(bulk)


def bulk(
    action: Annotated[
        str,
        typer.Argument(
            help="pause, resume, decommission, operation, policy, follow-groups, (add|remove)-(tags|group)."
        ),
    ],
    names: Hosts = None,
    values: Annotated[
        list[str] | None,
        typer.Option("--value", "-v", help="Tag, group, policy or operation; tags and groups may be repeated."),
    ] = None,
    query: Annotated[str, typer.Option("--query", "-q", help="Hosts with this in name, address or tag.")] = "",
    state: Annotated[str, typer.Option(help="Hosts that are pending, enrolled or paused.")] = "",
    protection: Annotated[str, typer.Option(help="Hosts that are late, failing, silent, never, …")] = "",
    in_group: Annotated[str, typer.Option("--in-group", "-g", help="Hosts of this group.")] = "",
    tag: Annotated[str, typer.Option(help="Hosts with this tag.")] = "",
    with_policy: Annotated[str, typer.Option("--with-policy", help="Hosts with this policy.")] = "",
    drift: Annotated[bool, typer.Option("--drift", help="Hosts that have yet to follow their policy.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="All hosts.")] = False,
    parameters: Parameters = None,
    check: Annotated[bool, typer.Option("--check", help="Operation: change nothing on the hosts.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would become of them.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before hosts are taken out.")] = False,
    wait: Wait = False,
) -> None:
    """Do one thing to many hosts: those named, or all that the filters find. Exit 3: some were refused."""
    verb = action.replace("-", "_")
    filters = {"q": query, "state": state, "protection": protection, "group": in_group}
    filters |= {"tag": tag, "policy": with_policy, "drift": "true" if drift else ""}
    filters = {key: value for key, value in filters.items() if value}
    if sum((bool(names), bool(filters), everything)) != 1:
        raise CommandError("Name hosts, or filter them, or use --all: one of these.", USAGE)
    body: dict[str, Any] = {"action": verb, "dry_run": dry_run} | _values(verb, values or [])
    body |= {"hosts": names} if names else {"filter": filters}
    if verb == "operation":
        body |= {"parameters": read_parameters(parameters), "mode": "check" if check else "run"}
    client = Client()
    if verb == "decommission" and not (yes or dry_run):
        found = client.post("/hosts/bulk", body | {"dry_run": True})
        if not confirm(f"Stop taking care of {found['changed']} hosts? Their archives stay."):
            raise CommandError("Nothing was changed.", FAILED)
    _tell(client, client.post("/hosts/bulk", body), wait)


def _values(verb: str, values: list[str]) -> dict[str, Any]:
    """Return what an action needs, from its --value options."""
    if verb not in ACTIONS:
        known = ", ".join(name.replace("_", "-") for name in ACTIONS)
        raise CommandError(f"There is no action {verb}: there are {known}.", USAGE)
    if verb in ("pause", "resume", "follow_groups", "decommission"):
        if values:
            raise CommandError(f"{verb} takes no --value.", USAGE)
        return {}
    if not values:
        raise CommandError(f"Say which with --value: {verb.replace('_', '-')} -v NAME.", USAGE)
    if verb.endswith("_tags"):
        return {"tags": values}
    if verb.endswith("_group"):
        return {"groups": values}
    if len(values) > 1:
        raise CommandError(f"{verb} takes one --value.", USAGE)
    return {verb: values[0]}


def _tell(client: Client, out: dict[str, Any], wait: bool) -> None:
    if out["job"] and wait:
        out["job"] = follow(client, out["job"]["id"])
    if output.is_json():
        output.emit(out)
    else:
        _print(client, out, wait)
    code = outcome(client, out["job"]) if out["job"] and wait else 0
    raise typer.Exit(code or (FINDINGS if out["refused"] else 0))


def _print(client: Client, out: dict[str, Any], wait: bool) -> None:
    word = "would change" if out["dry_run"] else "changed"
    if out["action"] == "operation":
        word = "would be in the job" if out["dry_run"] else "are in the job"
    print(f"Of {out['matched']} hosts {out['changed']} {word}, {out['unchanged']} were so already.")
    for each in out["refused"]:
        more = ", …" if each["count"] > len(each["hosts"]) else ""
        names = ", ".join(map(output.clean, each["hosts"]))
        print(f"  {each['count']} refused: {output.clean(each['reason'])} ({names}{more})")
    if out["job"] and wait:
        print(summary(client, out["job"]))
    elif out["job"]:
        accepted(client, out["job"], wait)
