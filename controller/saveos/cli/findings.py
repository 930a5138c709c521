"""Commands about what operations found, and what the commands of operations with findings share."""

from typing import Annotated, Any

import typer

from saveos.cli import output
from saveos.cli.client import Client, segment
from saveos.cli.common import All, Limit, Wait, confirm, examples, group, playbook, targets
from saveos.cli.errors import FAILED, FINDINGS, USAGE, CommandError
from saveos.cli.jobs import accepted, follow, summary

Operation = Annotated[str, typer.Option("--operation", "-o", help="cleanup, validation, dependencies, …")]
OnHost = Annotated[str, typer.Option("--host", help="Only of this host, by name or id.")]
FINDING_COLUMNS: dict[str, Any] = {
    "severity": "severity",
    "host": "host",
    "operation": "operation",
    "finding": lambda f: output.clean(f["title"]),
    "since": lambda f: output.when(f["first_seen"]),
    "fix": lambda f: "saveos maintenance fix " + f["id"] if f["fixable"] else output.clean(f["fix"]),
}

results = group("What operations came to on hosts, and what changed since the time before.")


def add_to(maintenance: typer.Typer) -> None:
    """Mount these commands below `saveos maintenance`."""
    maintenance.add_typer(results, name="results")
    maintenance.command(
        "findings",
        epilog=examples(
            "saveos maintenance findings", "saveos maintenance findings -o validation --severity critical"
        ),
    )(list_findings)
    maintenance.command(
        "fix",
        epilog=examples(
            "saveos maintenance fix 0199a7c4-… --check --wait",
            "saveos maintenance fix --all -o cleanup --kind apt-archives --wait",
        ),
    )(fix_findings)


def run_operation(
    operation: str,
    hosts: list[str] | None,
    groups: list[str] | None,
    everything: bool,
    *,
    check: bool = False,
    wait: bool = False,
    parameters: dict[str, Any] | None = None,
) -> None:
    """Start an operation that tells findings; with `wait` show them and exit with 3 while some are open.

    Open ones of severity info do not count. A parameter is the playbook's variable of the same name.
    """
    asked = targets(hosts, groups, everything)
    said = {f"maintenance_{name}": value for name, value in (parameters or {}).items() if value not in ("", [])}
    client = Client(instead=playbook(operation, asked, check, said))
    body = {"targets": asked, "mode": "check" if check else "run", "parameters": parameters or {}}
    job = client.post(f"/maintenance/{operation}", body, once=True)
    if wait:
        finish(client, follow(client, job["id"]))
    else:
        accepted(client, job, wait=False)


def finish(client: Client, *jobs: dict[str, Any]) -> None:
    """Print what final jobs found and exit: 0 nothing open, 1 failed, 3 warnings or worse are open."""
    told = {job["id"]: client.page("/maintenance/results", None, job=job["id"])["items"] for job in jobs}
    if output.is_json():
        shown = [job | {"results": told[job["id"]]} for job in jobs]
        output.emit(shown[0] if len(shown) == 1 else shown)
    else:
        for job in jobs:
            print(summary(client, job))
            for result in told[job["id"]]:
                _show(client, result)
    if any(job["state"] != "succeeded" for job in jobs):
        raise typer.Exit(FAILED)
    open_ = any(result["state"] != "ok" for items in told.values() for result in items)
    raise typer.Exit(FINDINGS if open_ else 0)


def _show(client: Client, result: dict[str, Any]) -> None:
    """Print one host's result: its summary in a line, then a line per finding and how to mend it."""
    words = "; ".join(
        f"{name.replace('_', ' ')} {_value(name, value)}"
        for name, value in result["summary"].items()
        if value not in ("", None)
    )
    print(f"  {result['host']}: {result['state']}" + (f" ({output.clean(words)})" if words else ""))
    if not any(result[severity] for severity in ("critical", "warning", "info", "fixed")):
        return
    check = result["mode"] == "check"
    told = result if "findings" in result else client.get(f"/maintenance/results/{result['id']}")
    for finding in told["findings"]:
        mark = ("would fix" if check else "fixed") if finding["fixed"] else finding["severity"]
        print(f"    {mark}: {output.clean(finding['title'])}")
        if finding["fix"] and not finding["fixed"]:
            print(f"      {output.clean(finding['fix'])}")


def _value(name: str, value: Any) -> str:
    if name.endswith("bytes") and isinstance(value, int):
        return output.size(value)
    return str(value)


@results.command(
    "list",
    epilog=examples(
        "saveos maintenance results list -o cleanup", "saveos maintenance results list --host web1"
    ),
)
def list_results(
    operation: Operation = "",
    host: OnHost = "",
    job: Annotated[str, typer.Option(help="Only of this job.")] = "",
    state: Annotated[str, typer.Option(help="ok, warning or critical.")] = "",
    limit: Limit = 20,
    everything: All = False,
) -> None:
    """List results, the newest first; the last 100 per host and operation are kept."""
    filters = {"operation": operation, "host": host, "job": job, "state": state}
    body = Client().page("/maintenance/results", None if everything else limit, **filters)
    columns = {
        "id": "id",
        "operation": lambda r: r["operation"] + (" (check)" if r["mode"] == "check" else ""),
        "host": "host",
        "at": lambda r: output.when(r["at"]),
        "state": "state",
        "critical": "critical",
        "warning": "warning",
        "info": "info",
        "fixed": "fixed",
    }
    output.page(body, columns, "No result yet.")


@results.command("show", epilog=examples("saveos maintenance results show 0199a7c4-…"))
def show_result(result: Annotated[str, typer.Argument(help="The result's id.", metavar="RESULT")]) -> None:
    """Show one result: what was found, what is new and what is gone since the one before."""
    client = Client()
    found = client.get(f"/maintenance/results/{segment(result)}")
    if output.is_json():
        output.emit(found)
        return
    check = " (check)" if found["mode"] == "check" else ""
    print(f"{found['operation']}{check} on {found['host']} at {output.when(found['at'])}")
    _show(client, found)
    for word in ("new", "gone"):
        for finding in found[word] if found["before"] else []:
            print(f"  {word} since the result before: {output.clean(finding['title'])}")


def list_findings(
    operation: Operation = "",
    severity: Annotated[str, typer.Option(help="critical, warning or info.")] = "",
    kind: Annotated[str, typer.Option(help="Only of this kind, such as apt-archives.")] = "",
    host: OnHost = "",
    group: Annotated[str, typer.Option("--group", "-g", help="Only of a group's hosts.")] = "",
    resolved: Annotated[bool, typer.Option("--resolved", help="Those that are gone, too (90 days).")] = False,
    limit: Limit = 50,
    everything: All = False,
) -> None:
    """List what is open on hosts, the worst first. Ends with 3 when a warning or worse is."""
    filters = {"operation": operation, "severity": severity, "kind": kind, "host": host, "group": group}
    filters |= {"open": "false"} if resolved else {}
    body = Client().page("/maintenance/findings", None if everything else limit, **filters)
    output.page(body, FINDING_COLUMNS, "Nothing is open.")
    open_ = [each for each in body["items"] if not each["resolved_at"] and each["severity"] != "info"]
    raise typer.Exit(FINDINGS if open_ else 0)


def fix_findings(
    findings: Annotated[
        list[str] | None, typer.Argument(help="Findings, by id.", metavar="FINDING…", show_default=False)
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All that can be mended of those that the filters leave.")
    ] = False,
    operation: Operation = "",
    severity: Annotated[str, typer.Option(help="With --all: critical, warning or info.")] = "",
    kind: Annotated[str, typer.Option(help="With --all: only of this kind.")] = "",
    host: OnHost = "",
    group: Annotated[str, typer.Option("--group", "-g", help="With --all: only of a group's hosts.")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --all: do not ask.")] = False,
    check: Annotated[bool, typer.Option("--check", "--dry-run", help="Only tell what would be done.")] = False,
    wait: Wait = False,
) -> None:
    """Let the operations that found them mend findings: each runs again with what it is to mend."""
    filters = {"operation": operation, "severity": severity, "kind": kind, "host": host, "group": group}
    if bool(findings) == everything or (findings and any(filters.values())):
        raise CommandError(
            "Name findings (saveos maintenance findings lists them), or --all with filters.", USAGE
        )
    client = Client()
    body: dict[str, Any] = {"mode": "check" if check else "run"}
    if everything:
        shown = [
            each for each in client.page("/maintenance/findings", None, **filters)["items"] if each["fixable"]
        ]
        hosts = len({each["host"] for each in shown})
        question = f"Mend {len(shown)} findings on {hosts} hosts?"
        if not (check or yes or confirm(question)):
            raise CommandError("Nothing was changed.", FAILED)
        body["matching"] = filters
    else:
        body["findings"] = findings
    jobs = client.post("/maintenance/findings/fix", body, once=True)["jobs"]
    if wait:
        finish(client, *(follow(client, job["id"]) for job in jobs))
        return
    if output.is_json():
        output.emit(jobs)
        return
    for job in jobs:
        accepted(client, job, wait=False)
