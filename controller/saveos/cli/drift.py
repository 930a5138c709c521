"""Commands of the operation `drift`: how hosts differ from what provisioning would make of them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from saveos.cli import output
from saveos.cli.client import Client, segment
from saveos.cli.common import Everything, Groups, Hosts, Wait, examples, playbook, targets
from saveos.cli.errors import FAILED, FINDINGS
from saveos.cli.jobs import accepted, follow, summary

Report = Annotated[
    Path | None,
    typer.Option("--markdown", help="Write what differs to this file as Markdown; - prints it."),
]
Last = Annotated[bool, typer.Option("--last", help="Look at nothing: show what the last look found.")]


def add_to(maintenance: typer.Typer) -> None:
    """Mount the command below `saveos maintenance`."""
    maintenance.command(
        "drift",
        epilog=examples(
            "saveos maintenance drift --all --wait",
            "saveos maintenance drift --all --markdown drift.md      for a pipeline: exit 3 if one differs",
            "saveos maintenance drift web1 --last",
        ),
    )(drift)


def drift(
    hosts: Hosts = None,
    groups: Groups = None,
    everything: Everything = False,
    wait: Wait = False,
    markdown: Report = None,
    last: Last = False,
) -> None:
    """Look how hosts differ from what their policy and roles say; it changes nothing.

    With --wait, --markdown or --last it ends with 3 when one of them differs.
    `saveos maintenance provision` converges them.
    """
    if last:
        _last(Client(), set(hosts or ()), markdown)
        return
    asked = targets(hosts, groups, everything)
    client = Client(instead=playbook("drift", asked))
    job = client.post("/maintenance/drift", {"targets": asked, "mode": "run", "parameters": {}}, once=True)
    if not wait and markdown is None:
        accepted(client, job, wait=False)
        return
    job = follow(client, job["id"])
    looked = {item["name"]: item for item in client.page(f"/jobs/{job['id']}/hosts", None)["items"]}
    found = [each for each in client.page("/drift", None)["items"] if each["host"] in looked]
    failed = [item for item in looked.values() if item["state"] in ("failed", "unreachable")]
    _tell(found, failed, len(looked), markdown, job)
    raise typer.Exit(FAILED if job["state"] != "succeeded" else FINDINGS if found else 0)


def _last(client: Client, hosts: set[str], markdown: Path | None) -> None:
    if hosts:
        told = [client.get(f"/hosts/{segment(host)}/drift") for host in sorted(hosts)]
    else:
        told = client.page("/drift", None)["items"]
    found = [each for each in told if each["state"] == "drifted"]
    _tell(found, [], len(told), markdown, None)
    raise typer.Exit(FINDINGS if found else 0)


def _tell(
    found: list[dict[str, Any]],
    failed: list[dict[str, Any]],
    total: int,
    markdown: Path | None,
    job: dict[str, Any] | None,
) -> None:
    if markdown is not None:
        _write(markdown, report(found, failed, total))
    if output.is_json():
        output.emit((job or {}) | {"drift": found})
    elif str(markdown) != "-":
        print(summary(Client(), job) if job else f"{len(found)} hosts differ.")
        for each in found:
            _show(each)


def _show(told: dict[str, Any]) -> None:
    print(f"{told['host']} differs in {told['changes']} places, since {output.when(told['since'])}:")
    for line in told["diff"].splitlines():
        print(f"  {output.clean(line)}")
    print(f"  Converge it: saveos maintenance provision {told['host']} --wait")


def report(found: list[dict[str, Any]], failed: list[dict[str, Any]], total: int) -> str:
    """Return what differs as Markdown, for a comment in a pipeline."""
    lines = ["# Drift", "", f"{len(found)} of {total} hosts differ from the inventory.", ""]
    for each in found:
        fence = "`" * max(3, _longest_run(each["diff"]) + 1)
        lines += [f"## {each['host']}", "", f"{each['changes']} changes, since {each['since']}.", ""]
        lines += [f"{fence}diff", each["diff"].rstrip("\n"), fence, ""]
    if failed:
        lines += ["## Not looked at", ""]
        lines += [f"- {item['name']}: {item['error'] or item['state']}".replace("\n", " ") for item in failed]
        lines.append("")
    return "\n".join(lines)


def _longest_run(text: str) -> int:
    longest = current = 0
    for each in text:
        current = current + 1 if each == "`" else 0
        longest = max(longest, current)
    return longest


def _write(target: Path, text: str) -> None:
    if str(target) == "-":
        print(text)
    else:
        target.write_text(text)
