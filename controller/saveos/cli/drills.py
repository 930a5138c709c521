"""Commands about drills: the proof that archives can be restored."""

import time
from typing import Annotated, Any

import typer

from saveos.cli import output
from saveos.cli.client import Client
from saveos.cli.common import All, Everything, Groups, Hosts, Limit, Wait, examples, group, playbook, targets
from saveos.cli.errors import FAILED, USAGE, CommandError
from saveos.cli.jobs import accepted

drills = group("Prove that archives can be restored, and see when that was last proven.")
PROOFS = ("proven", "old", "failed", "never", "none")


def add_to(app: typer.Typer) -> None:
    """Mount these commands."""
    app.add_typer(drills, name="drills")


@drills.command("list", epilog=examples("saveos drills list", "saveos drills list --proof failed"))
def list_drills(
    proof: Annotated[
        str, typer.Option("--proof", help="Only hosts that are proven, old, failed, never or none.")
    ] = "",
    limit: Limit = 50,
    everything: All = False,
) -> None:
    """List hosts with what drills say of their archives: when they were last proven, and what failed."""
    if proof and proof not in PROOFS:
        raise CommandError(f"--proof is one of {', '.join(PROOFS)}.", USAGE)
    query = {"proof": proof} if proof else {}
    columns: dict[str, Any] = {
        "host": "name",
        "proof": "proof",
        "last proven": lambda host: output.when(host["last_proven_at"]),
        "last drill": lambda host: output.when(host["last_drill_at"]),
        "outcome": "last_drill_state",
        "what failed": "drill_error",
    }
    found = Client().page("/hosts", None if everything else limit, **query)
    output.page(found, columns, "No host matches.")


@drills.command(
    "run",
    epilog=examples(
        "saveos drills run web1 --wait",
        "saveos drills run --all",
        "saveos drills run web1 --seed 7",
        "saveos drills run web1 --sandbox spare",
    ),
)
def run_drill(
    hosts: Hosts = None,
    groups: Groups = None,
    everything: Everything = False,
    sample: Annotated[
        int, typer.Option("--sample", min=1, max=1000, help="Restore so many files of each archive.")
    ] = 20,
    seed: Annotated[
        int, typer.Option("--seed", min=-1, help="Draw the files of an earlier drill again; -1 draws others.")
    ] = -1,
    sandbox: Annotated[
        str,
        typer.Option(
            "--sandbox", help="Another host, to which what was restored must come whole; for one host."
        ),
    ] = "",
    wait: Wait = False,
) -> None:
    """Restore a random sample and every database dump of the newest archives on their hosts, and compare.

    Nothing that was restored stays on a host. A drill that finds something that cannot be restored
    fails and names it.
    """
    asked = targets(hosts, groups, everything)
    said = {"maintenance_sample": sample} | ({"maintenance_seed": seed} if seed >= 0 else {})
    client = Client(instead="" if sandbox else playbook("drill", asked, variables=said))
    parameters = {"sample": sample, "seed": seed} | ({"sandbox": sandbox} if sandbox else {})
    body = {"targets": asked, "mode": "run", "parameters": parameters}
    accepted(client, client.post("/maintenance/drill", body, once=True), wait)


@drills.command(
    "rebuild",
    epilog=examples(
        "saveos drills rebuild web1 --on spare --wait",
        "saveos drills rebuild web1 --on spare --destination /srv/rebuilt",
    ),
)
def rebuild_host(
    host: Annotated[str, typer.Argument(help="The host whose newest archive is proven.")],
    sandbox: Annotated[str, typer.Option("--on", help="Another host, empty or not, that is made anew.")],
    destination: Annotated[
        str, typer.Option("--destination", help="An absent or empty directory there; else one of the agent's.")
    ] = "",
    wait: Wait = False,
) -> None:
    """Rebuild a host on another one, and time it: provision, bring the whole newest archive there, check.

    What was restored stays in its directory for people to look at. Exit 1 when --wait ends with a rebuild
    that failed; it says which step or check did.
    """
    client = Client()
    body = {"host": host, "sandbox": sandbox, "destination": destination}
    made = client.post("/drills/rebuilds", body, once=True)
    while wait and made["state"] == "running":
        time.sleep(2)
        made = client.get(f"/drills/rebuilds/{made['id']}")
    if output.is_json():
        output.emit(made)
    else:
        print(rebuild_lines(made))
    if made["state"] == "failed":
        raise typer.Exit(FAILED)


@drills.command(
    "rebuilds", epilog=examples("saveos drills rebuilds", "saveos drills rebuilds --host web1 --json")
)
def list_rebuilds(
    host: Annotated[str, typer.Option("--host", help="Only rebuilds of this host.")] = "",
    limit: Limit = 50,
    everything: All = False,
) -> None:
    """List rebuilds, newest first, with the time that each took; --json has each step and check."""
    columns: dict[str, Any] = {
        "host": "host",
        "on": "sandbox",
        "state": "state",
        "started": lambda each: output.when(each["created_at"]),
        "took": lambda each: output.duration(each["seconds"]),
        "steps": lambda each: ", ".join(_step(step) for step in each["steps"]),
        "what failed": "error",
    }
    query = {"host": host} if host else {}
    found = Client().page("/drills/rebuilds", None if everything else limit, **query)
    output.page(found, columns, "No host was rebuilt yet: saveos drills rebuild HOST --on OTHER.")


def rebuild_lines(rebuild: dict[str, Any]) -> str:
    """Return how a rebuild goes, for people."""
    lines = [f"{rebuild['host']} on {rebuild['sandbox']}, archive {rebuild['archive']}: {rebuild['state']}"]
    if rebuild["state"] == "running":
        return f"{lines[0]}. See: saveos drills rebuilds --host {rebuild['host']}"
    lines += [f"  {_step(step)}" for step in rebuild["steps"]]
    lines += [
        f"  {'ok' if each['ok'] else 'FAILED'} {each['name']}: {each['text']}" for each in rebuild["checks"]
    ]
    lines += [f"  FAILED {rebuild['error']}"] if rebuild["error"] else []
    return "\n".join(
        [*lines, f"{output.duration(rebuild['seconds'])} in all; data in {rebuild['destination']}"]
    )


def _step(step: dict[str, Any]) -> str:
    return f"{step['name']} {output.duration(step['seconds'])}"
