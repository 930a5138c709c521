"""Jobs: list, one job with its grid and log, start, cancel, retry."""

import uuid
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Query
from fastapi.responses import HTMLResponse, Response, StreamingResponse

from saveos.accounts.access import Actor, describe, require
from saveos.archives.models import Archive
from saveos.core.i18n import gettext, number, size
from saveos.core.inputs import Filter
from saveos.core.pagination import decode_id, encode_cursor
from saveos.core.web import State, StateDep
from saveos.dashboard import actions, measured, queries, words
from saveos.dashboard.rendering import View, environment, redirect, url, view
from saveos.jobs import logs, service
from saveos.jobs.models import ACTIVE, FINAL, Job, JobHost
from saveos.maintenance import service as maintenance

router = APIRouter(include_in_schema=False)
Reader = Annotated[View, Depends(view("jobs:read"))]
Writer = Annotated[View, Depends(view("jobs:write"))]
LIMIT = 50
PINNED = 20  # running jobs above the list
GRID_HOSTS = 100
GRID_TASKS = 60
ALL_HOSTS = 5000
_ORDER = {"failed": 0, "unreachable": 0, "running": 1, "queued": 3}


@router.get("/jobs")
def list_jobs(
    page: Reader,
    *,
    state: Filter = "",
    operation: Filter = "",
    trigger: Filter = "",
    host: Filter = "",
    cursor: Annotated[str, Query(max_length=1000)] = "",
) -> Response:
    """List jobs, filtered and in pages."""
    filters = {"state": state, "operation": operation, "trigger": trigger, "host": host.strip()}
    before = decode_id(cursor or None)
    if state == "problem":
        found = queries.list_jobs_with_problems(
            page.session, page.tenant_id, operation=operation, before=before, limit=LIMIT + 1
        )
    else:
        found = service.list_jobs(page.session, page.tenant_id, **filters, before=before, limit=LIMIT + 1)
    following = encode_cursor([str(found[LIMIT - 1].id)]) if len(found) > LIMIT else ""
    running = [] if cursor or state else _running(page, filters)
    pinned = {job.id for job in running}
    return page.render(
        "jobs/list.html",
        running=queries.job_rows(page.session, running),
        jobs=queries.job_rows(page.session, [job for job in found[:LIMIT] if job.id not in pinned]),
        filters=filters,
        filtered=any(filters.values()),
        chips=_chips(filters),
        first_page=url("/jobs", **filters) if cursor else "",
        next_page=url("/jobs", **filters, cursor=following) if following else "",
    )


def _running(page: View, filters: dict[str, str]) -> list[Job]:
    """Return what runs now, which an on-call person looks for first however long ago it began."""
    found: list[Job] = []
    for state in ("running", "canceling"):
        wanted = filters | {"state": state}
        found += service.list_jobs(page.session, page.tenant_id, **wanted, before=None, limit=PINNED)
    return found


def _chips(filters: dict[str, str]) -> list[dict[str, Any]]:
    choices = [
        ("", "none", gettext("All jobs")),
        ("active", "busy", gettext("Active")),
        ("problem", "bad", gettext("With problems")),
        ("succeeded", "good", gettext("Succeeded")),
        ("canceled", "idle", gettext("Canceled")),
    ]
    return [
        {
            "tone": tone,
            "label": label,
            "href": url("/jobs", **filters | {"state": state}),
            "current": filters["state"] == state,
        }
        for state, tone, label in choices
    ]


@router.get("/jobs/active")
def show_active(page: Reader) -> Response:
    """Return the menu's number of active jobs, alone."""
    count = queries.count_active(page.session, page.tenant_id)
    return HTMLResponse(environment().get_template("_partials/active_jobs.html").render(active_jobs=count))


@router.get("/jobs/{job_id}")
def show_job(page: Reader, job_id: uuid.UUID, host: Filter = "", all: bool = False) -> Response:
    """Show a job: figures, host and task grid, results, log."""
    job = service.get_job(page.session, page.tenant_id, job_id)
    hosts = service.list_hosts(page.session, job, limit=ALL_HOSTS)
    hosts.sort(key=lambda each: (_ORDER.get(each.state, 2), each.name))
    shown = hosts if all else hosts[:GRID_HOSTS]
    tasks = _tasks(shown)
    archives = queries.job_archives(page.session, job)
    return page.render(
        "jobs/detail.html",
        job=job,
        row=queries.job_rows(page.session, [job])[0],
        is_active=job.state in ACTIVE,
        seconds=queries.job_seconds(job),
        can_retry=_can_retry(job, hosts),
        figures=_figures(archives),
        hosts=[{"host": each, "cells": _cells(each, tasks)} for each in shown],
        tasks=tasks,
        hidden_hosts=len(hosts) - len(shown),
        results=[result for each in shown if (result := _result(each, archives))],
        scope=host if any(each.name == host for each in hosts) else "",
    )


def _can_retry(job: Job, hosts: list[JobHost]) -> bool:
    undone = any(each.is_target and each.state not in ("ok", "changed") for each in hosts)
    return job.state in FINAL and job.timeout > 0 and undone


def _tasks(hosts: list[JobHost]) -> list[str]:
    """Return the names of the tasks in the order in which they ran."""
    names: dict[str, None] = {}
    for host in hosts:
        for name, _ in host.tasks:
            names.setdefault(name)
    return list(names)[:GRID_TASKS]


def _cells(host: JobHost, tasks: list[str]) -> list[str]:
    """Return the host's state for each task; empty where it has none."""
    states: dict[str, str] = dict(host.tasks)
    return [states.get(task, "") for task in tasks]


def _figures(archives: dict[uuid.UUID, list[Archive]]) -> dict[str, int]:
    every = [archive for each in archives.values() for archive in each]
    return {
        "archives": len(every),
        "original": sum(archive.original_size or 0 for archive in every),
        "deduplicated": sum(archive.deduplicated_size or 0 for archive in every),
    }


def _result(host: JobHost, archives: dict[uuid.UUID, list[Archive]]) -> dict[str, Any] | None:
    """Return what a host came to, for the table of results; None when there is nothing to tell."""
    made = archives.get(host.host_id, []) if host.host_id else []
    run = host.result.get("run") or {}
    restored = run.get("restore") if isinstance(run, dict) else None
    health, size = host.result.get("health"), measured.read(host.result.get("measure"))
    if not (host.error or made or restored or health or size):
        return None
    return {
        "name": host.name,
        "error": host.error,
        "archives": made,
        "measured": size,
        "restored": _restored(restored) if isinstance(restored, dict) else None,
        "health": _health(health) if isinstance(health, dict) else [],
    }


def _restored(told: dict[str, Any]) -> dict[str, Any]:
    files = told.get("files")
    return {"files": files if isinstance(files, int) else 0, "destination": str(told.get("destination", ""))}


def _health(told: dict[str, Any]) -> list[dict[str, str]]:
    """Return the lines of a health check; a host wrote them, so nothing about their shape is believed."""
    tones = {"critical": "bad", "warning": "warn"}
    findings = told.get("findings")
    lines = [
        {
            "tone": tones.get(str(each.get("severity")), "warn"),
            "text": f"{each.get('message', '')} {each.get('fix', '')}".strip(),
        }
        for each in (findings if isinstance(findings, list) else [])[:20]
        if isinstance(each, dict)
    ]
    if not lines:
        lines = [{"tone": "good", "text": gettext("Nothing to complain about")}]
    disks = told.get("disks")
    for disk in (disks if isinstance(disks, list) else [])[:5]:
        if isinstance(disk, dict) and isinstance(disk.get("free_bytes"), int):
            text = gettext("%(path)s: %(free)s free")
            lines.append(
                {
                    "tone": "good",
                    "text": text % {"path": disk.get("path", ""), "free": size(disk["free_bytes"])},
                }
            )
    if isinstance(told.get("spool"), int) and told["spool"]:
        lines.append(
            {"tone": "warn", "text": gettext("%(count)s runs not delivered") % {"count": number(told["spool"])}}
        )
    return lines


@router.get("/jobs/{job_id}/log.txt")
def show_raw_log(
    state: StateDep, actor: Annotated[Actor, Depends(require("jobs:read", audit=False))], job_id: uuid.UUID
) -> StreamingResponse:
    """Return the whole log as plain text, a page of events at a time."""
    with state.database.session() as session:
        last = service.get_job(session, actor.tenant_id, job_id).events
    return StreamingResponse(_raw(state, job_id, last), media_type="text/plain; charset=utf-8")


def _raw(state: State, job_id: uuid.UUID, last: int) -> Iterator[str]:
    for start in range(1, last + 1, logs.MAX_COUNT):
        with state.database.session() as session:
            events = logs.read(session, job_id, start, logs.MAX_COUNT)
        yield logs.as_text(events)


@router.post("/operations/{operation}")
def start(
    page: Writer,
    operation: str,
    host: Annotated[list[str] | None, Form()] = None,
    all: Annotated[bool, Form()] = False,
    mode: Annotated[str, Form(pattern="^(run|check)$")] = "run",
) -> Response:
    """Start an operation on hosts; the toast then leads to its job."""
    if operation not in words.operations or operation in ("browse", "restore", "transfer"):
        operation = ""  # these have forms of their own; get_operation then says what there is
    job = actions.start(page, operation, host or [], everything=all, mode=mode)
    return page.back("/jobs", actions.flash(job))


@router.post("/jobs/{job_id}/cancel")
def cancel(page: Writer, job_id: uuid.UUID) -> Response:
    """Ask a job to stop."""
    job = service.cancel(page.session, page.tenant_id, job_id, page.actor.name)
    describe(page.session, f"job:{job.id}", operation=job.operation)
    return page.back(f"/jobs/{job_id}", "canceled")


@router.post("/jobs/{job_id}/retry")
def retry(page: Writer, job_id: uuid.UUID) -> Response:
    """Run a job again for the hosts that failed, and go to the new job."""
    job = maintenance.retry(page.session, page.actor, job_id, trigger="dashboard")
    describe(page.session, f"job:{job.id}", operation=job.operation, retry_of=str(job_id))
    return redirect(f"/jobs/{job.id}", actions.flash(job))
