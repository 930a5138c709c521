"""Commands about jobs, and the live view that every `--wait` shows."""

from typing import Annotated, Any

import typer

from saveos.cli import output
from saveos.cli.client import Client, segment
from saveos.cli.common import All, Limit, Wait, examples, group
from saveos.cli.errors import FAILED, FINDINGS, CommandError

FINAL = ("succeeded", "partial", "failed", "canceled", "timed_out", "lost")

jobs = group("Tracked runs of operations.")
Job = Annotated[str, typer.Argument(help="The job's id.", metavar="JOB")]


def add_to(app: typer.Typer) -> None:
    """Mount these commands."""
    app.add_typer(jobs, name="jobs")


@jobs.command(
    "list", epilog=examples("saveos jobs list --state running", "saveos jobs list --host web1 --limit 5")
)
def list_jobs(
    state: Annotated[str, typer.Option(help="queued, running, succeeded, partial, failed, …")] = "",
    operation: Annotated[str, typer.Option(help="provision, backup, restore, …")] = "",
    host: Annotated[str, typer.Option(help="Only jobs of this host.")] = "",
    trigger: Annotated[str, typer.Option(help="api, cli, dashboard, timer, hand, …")] = "",
    limit: Limit = 20,
    everything: All = False,
) -> None:
    """List jobs, the newest first."""
    filters = {"state": state, "operation": operation, "host": host, "trigger": trigger}
    body = Client().page("/jobs", None if everything else limit, **filters)
    columns = {
        "id": "id",
        "operation": lambda j: j["operation"] + (" (check)" if j["mode"] == "check" else ""),
        "state": "state",
        "hosts": lambda j: f"{j['hosts_done']}/{j['hosts_total']}",
        "trigger": "trigger",
        "created": lambda j: output.when(j["created_at"]),
        "took": lambda j: output.duration(output.elapsed(j)),
    }
    output.page(body, columns, "No job yet.")


@jobs.command("show", epilog=examples("saveos jobs show 0199a7c4-…"))
def show_job(job: Job) -> None:
    """Show one job and its hosts."""
    client = Client()
    found = client.get(f"/jobs/{segment(job)}")
    hosts = client.page(f"/jobs/{segment(job)}/hosts", None)["items"]
    if output.is_json():
        output.emit(found | {"hosts": hosts})
        return
    output.fields(
        found,
        {
            "id": "id",
            "operation": lambda j: j["operation"] + (" (check)" if j["mode"] == "check" else ""),
            "state": "state",
            "asked by": lambda j: f"{j.get('requested_by') or '-'} ({j['trigger']})",
            "created": lambda j: output.when(j["created_at"]),
            "took": lambda j: output.duration(output.elapsed(j)),
            "waits for": "blocked_by",
            "error": "error",
        },
    )
    print()
    rows = [
        [h["name"], h["state"], _counts(h.get("counts") or {}), output.clean(h.get("error") or "")]
        for h in hosts
    ]
    output.table(["host", "state", "counts", "error"], rows)


@jobs.command("follow", epilog=examples("saveos jobs follow 0199a7c4-…"))
def follow_job(job: Job) -> None:
    """Show a job's log as it grows, and end with its outcome."""
    client = Client()
    client.get(f"/jobs/{segment(job)}")  # a stream waits a minute for a controller that is away: ask at once
    finish(client, follow(client, job))


@jobs.command("cancel", epilog=examples("saveos jobs cancel 0199a7c4-… --wait"))
def cancel_job(job: Job, wait: Wait = False) -> None:
    """Stop a job, on its hosts too."""
    client = Client()
    found = client.post(f"/jobs/{segment(job)}/cancel")
    if wait:
        found = follow(client, job)
    if output.is_json():
        output.emit(found)
    else:
        print(f"{job} is {found['state']}.")


@jobs.command("retry", epilog=examples("saveos jobs retry 0199a7c4-… --wait"))
def retry_job(job: Job, wait: Wait = False) -> None:
    """Run a job again on the hosts that failed; makes a new job."""
    client = Client()
    accepted(client, client.post(f"/jobs/{segment(job)}/retry", once=True), wait)


def accepted(client: Client, job: dict[str, Any], wait: bool) -> None:
    """Tell that a job was accepted; with `wait` follow it and end with its outcome."""
    if wait:
        finish(client, follow(client, job["id"]))
    elif output.is_json():
        output.emit(job)
    else:
        print(
            f"Job {job['id']} ({job['operation']}) is {job['state']}. Follow it: saveos jobs follow {job['id']}"
        )


def follow(client: Client, job_id: str, kinds: frozenset[str] | None = None) -> dict[str, Any]:
    """Show a job's progress until it is final; return it.

    Silent with `--json`; with `kinds` only log events of these kinds are shown.
    """
    from saveos.cli.progress import view

    job: dict[str, Any] = {}
    with view(kinds) as show:
        for event, data in client.events(f"/jobs/{segment(job_id)}/events"):
            if event == "state":
                job = data
                show.state(job)
            elif event == "log" and data:
                show.log(data["events"])
    return job if job.get("state") in FINAL else client.get(f"/jobs/{segment(job_id)}")


def finish(client: Client, job: dict[str, Any]) -> None:
    """Print how a job ended and exit with it: 0 done, 1 failed, 3 when a check found changes."""
    if output.is_json():
        output.emit(job)
    else:
        print(summary(client, job))
    raise typer.Exit(outcome(client, job))


def outcome(client: Client, job: dict[str, Any]) -> int:
    """Return the exit code that a final job stands for."""
    if job["state"] != "succeeded":
        return FAILED
    if job["mode"] == "check" and changed(client, job):
        return FINDINGS
    return 0


def changed(client: Client, job: dict[str, Any]) -> int:
    """Return how many tasks of a job changed something, or would have."""
    hosts = client.page(f"/jobs/{job['id']}/hosts", None)["items"]
    return sum((host.get("counts") or {}).get("changed", 0) for host in hosts)


def summary(client: Client, job: dict[str, Any]) -> str:
    """Return a final job as one paragraph: what came of it at each host, and what went wrong where."""
    took = output.duration(output.elapsed(job))
    lines = [
        f"{job['operation']} {job['state']} after {took}: {job['hosts_done']} of {job['hosts_total']} hosts."
    ]
    lines += [_line(job["error"])] if job.get("error") else []
    for host in client.page(f"/jobs/{job['id']}/hosts", None)["items"]:
        words = _line(host.get("error") or "") or result_words(host.get("result") or {})
        if words and f"{host['name']}: {words}" not in lines:  # the job's own error may be this host's
            lines.append(f"  {host['name']}: {words}")
    return "\n".join(lines)


def _line(error: str) -> str:
    """Return what went wrong in one line, as ssh and others tell it in several."""
    return output.clean(" ".join(error.split()))


def result_words(result: dict[str, Any]) -> str:
    """Return what a backup, restore or drill came to on a host, in words; "" for other operations."""
    if drilled := result.get("drill"):
        return _drill_words(drilled)
    run = result.get("run") or {}
    restored = run.get("restore")
    if restored:
        return f"{restored.get('files')} files restored to {output.clean(restored.get('destination'))}"
    words = []
    for each in run.get("results") or []:
        archive = each.get("archive") or {}
        if archive.get("name"):
            size, added = (
                output.size(archive.get("original_size")),
                output.size(archive.get("deduplicated_size")),
            )
            words.append(
                f"{output.clean(archive['name'])} ({archive.get('nfiles')} files, {size}, {added} added)"
            )
        words += [f"warning: {output.clean(warning)}" for warning in (each.get("warnings") or [])[:3]]
    return "; ".join(words)


def _drill_words(drilled: dict[str, Any]) -> str:
    dumps = [dump for each in drilled.get("repositories") or [] for dump in each.get("databases") or []]
    loaded = sum(dump.get("state") == "proven" for dump in dumps)
    words = f"{output.clean(drilled.get('state'))}: {drilled.get('sampled')} files restored, "
    words += f"{drilled.get('compared')} of them compared with the live file"
    return words + (f", {loaded} of {len(dumps)} dumps loaded" if dumps else "")


def require_success(client: Client, job: dict[str, Any]) -> dict[str, Any]:
    """Return a final job. Raises CommandError with its story unless it succeeded."""
    if job["state"] != "succeeded":
        raise CommandError(summary(client, job), FAILED)
    return job


def _counts(counts: dict[str, int]) -> str:
    return " ".join(f"{name}={number}" for name, number in counts.items() if number)
