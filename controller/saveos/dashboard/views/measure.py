"""How much a policy would back up on a host: of the editor's draft in place, of a kept policy as a job."""

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi import Form as FormData
from fastapi.responses import HTMLResponse, Response

from saveos.core.errors import Invalid, Problem
from saveos.core.i18n import gettext
from saveos.dashboard import actions, forms, measured
from saveos.dashboard.rendering import View, environment, redirect, view
from saveos.dashboard.sentences import sentence
from saveos.jobs import service as jobs
from saveos.jobs.models import ACTIVE, Job
from saveos.policies import service as policies

router = APIRouter(include_in_schema=False)
Reader = Annotated[View, Depends(view("jobs:read"))]
Operator = Annotated[View, Depends(view("jobs:write"))]
Name = Annotated[str, FormData(max_length=253)]
Draft = Annotated[str, FormData(max_length=262_144)]


@router.post("/policies/measure")
def measure_draft(page: Operator, measure_on: Name = "", sources: Draft = "", excludes: Draft = "") -> Response:
    """Start measuring what is typed in the editor; the part of the page then follows the job."""
    try:
        return _part(page, _start(page, measure_on, forms.lines(sources), forms.lines(excludes)))
    except Problem as problem:
        return _part(page, None, sentence(problem.detail))


@router.get("/policies/measured/{job_id}")
def show_measured(page: Reader, job_id: uuid.UUID) -> Response:
    """Return how far measuring is, or what it found."""
    return _part(page, jobs.get_job(page.session, page.tenant_id, job_id))


@router.post("/policies/{policy}/measure")
def measure_policy(page: Operator, policy: str, measure_on: Name = "") -> Response:
    """Measure what a policy matches on a host; the job's page shows what was found."""
    found = policies.get_policy(page.session, page.tenant_id, policy)
    job = _start(page, measure_on, found.sources, found.excludes)
    return redirect(f"/jobs/{job.id}", actions.flash(job))


def _start(page: View, host: str, sources: list[str], excludes: list[str]) -> Job:
    if not host.strip():
        raise Invalid(gettext("Name a host to measure on."), field="measure_on")
    if not sources:
        raise Invalid(gettext("Name at least one source."), field="sources")
    parameters = {"sources": sources, "excludes": excludes}
    return actions.start(page, "measure", [host.strip()], parameters=parameters)


def _part(page: View, job: Job | None, problem: str = "") -> Response:
    values: dict[str, Any] = {"problem": problem, "job": job, "active": False, "host": None, "result": None}
    if job is not None:
        (host,) = jobs.list_hosts(page.session, job, limit=1)
        values |= {
            "active": job.state in ACTIVE,
            "host": host,
            "result": measured.read(host.result.get("measure")),
        }
    return HTMLResponse(environment().get_template("_partials/measuring.html").render(**values))
