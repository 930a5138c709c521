"""Schedules: list, one with its history, editor with the next runs, on and off, run now, delete."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi import Form as FormData
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, Field, ValidationError

from saveos.accounts.access import describe
from saveos.core.errors import Invalid, Problem
from saveos.core.i18n import gettext, ngettext, number
from saveos.core.pagination import decode_id, decode_text, split
from saveos.dashboard import actions, forms, queries, words
from saveos.dashboard.rendering import View, environment, redirect, url, view
from saveos.dashboard.sentences import sentence
from saveos.maintenance.operations import OPERATIONS
from saveos.schedules import service
from saveos.schedules.models import Schedule
from saveos.schedules.schemas import ScheduleIn, SchedulePatch

router = APIRouter(include_in_schema=False)
Reader = Annotated[View, Depends(view("schedules:read"))]
Writer = Annotated[View, Depends(view("schedules:write"))]
Typed = Annotated[str, Query(max_length=200)]
Short = Annotated[str, Field(max_length=4096)]
Long = Annotated[str, Field(max_length=65_536)]
LIMIT = 50
RUNS = 10
EMPTY: dict[str, Any] = {
    "name": "",
    "operation": "health",
    "mode": "run",
    "scope": "all",
    "groups": [],
    "hosts": "",
    "parameters": "",
    "cron": "0 4 * * *",
    "zone": "",
    "jitter_minutes": "0",
    "enabled": "true",
    "catch_up": "",
}


class Form(BaseModel):
    """What the editor sends; text as typed, checked by ScheduleIn."""

    name: Short = ""
    operation: Short = ""
    mode: Short = "run"
    scope: Short = "all"
    groups: Annotated[list[Short], Field(max_length=500)] = []
    hosts: Long = ""
    parameters: Long = ""
    cron: Short = ""
    zone: Short = ""
    jitter_minutes: Short = "0"
    enabled: Short = ""
    catch_up: Short = ""


Sent = Annotated[Form, FormData()]


@router.get("/schedules")
def list_schedules(page: Reader, cursor: Annotated[str, Query(max_length=1000)] = "") -> Response:
    """List schedules by name: what, when next, what became of the last time."""
    found = service.list_schedules(page.session, page.tenant_id, decode_text(cursor or None), LIMIT + 1)
    schedules, following = split(found, LIMIT, lambda schedule: [schedule.name])
    return page.render(
        "schedules/list.html",
        rows=[(row, targets(row.targets)) for row in service.describe_schedules(page.session, schedules)],
        can_schedule=page.actor.may("schedules:write"),
        first_page="/schedules" if cursor else "",
        next_page=url("/schedules", cursor=following) if following else "",
    )


def targets(asked: dict[str, Any]) -> str:
    """Return what a schedule is for, in words."""
    if asked.get("all"):
        return gettext("all hosts")
    names = [gettext("group %(name)s") % {"name": name} for name in asked.get("groups", [])]
    hosts = asked.get("hosts", [])
    if len(hosts) > 2:
        names.append(ngettext("%(num)s host", "%(num)s hosts", len(hosts)) % {"num": number(len(hosts))})
    else:
        names += hosts
    return ", ".join(names)


@router.get("/schedules/new")
def new_schedule(page: Writer) -> Response:
    """Show the editor, empty."""
    return _editor(page, None, EMPTY)


@router.post("/schedules/new")
def create_schedule(page: Writer, sent: Sent) -> Response:
    """Make a schedule, or show the form again with what is wrong."""
    try:
        with page.session.begin_nested():
            schedule = service.create_schedule(page.session, page.actor, ScheduleIn(**_values(sent)))
    except (ValidationError, Problem) as error:
        return _editor(page, None, sent.model_dump(), error)
    describe(page.session, f"schedule:{schedule.name}", operation=schedule.operation, cron=schedule.cron)
    return redirect(f"/schedules/{schedule.id}", "created")


@router.get("/schedules/preview")
def preview(_page: Reader, cron: Typed = "", zone: Typed = "") -> Response:
    """Return the next runs of an expression while it is typed."""
    template = environment().get_template("_partials/next_runs.html")
    return HTMLResponse(template.render(ahead=look_ahead(cron, zone)))


def look_ahead(cron: str, zone: str) -> dict[str, Any]:
    """Return the next runs of an expression, or why there are none."""
    try:
        found = service.preview(cron, zone.strip() or "UTC", RUNS)
    except Problem as problem:
        return {"runs": [], "zone": "", "cron": "", "problem": sentence(problem.detail)}
    return {"runs": found.runs, "zone": found.zone, "cron": found.cron, "problem": ""}


@router.get("/schedules/{schedule}")
def show_schedule(page: Reader, schedule: str, cursor: Annotated[str, Query(max_length=1000)] = "") -> Response:
    """Show a schedule, its next runs, and what became of each time before."""
    found = service.get_schedule(page.session, page.tenant_id, schedule)
    rows = service.list_runs(page.session, found, decode_id(cursor or None), LIMIT + 1)
    runs, following = split(rows, LIMIT, lambda run: [str(run.id)])
    here = f"/schedules/{found.id}"
    return page.render(
        "schedules/detail.html",
        schedule=service.describe_schedules(page.session, [found])[0],
        targets=targets(found.targets),
        parameters=forms.as_yaml(found.parameters),
        ahead=look_ahead(found.cron, found.zone),
        can_schedule=page.actor.may("schedules:write"),
        runs=runs,
        first_page=here if cursor else "",
        next_page=url(here, cursor=following) if following else "",
    )


@router.get("/schedules/{schedule}/edit")
def edit_schedule(page: Writer, schedule: str) -> Response:
    """Show the editor with a schedule."""
    found = service.get_schedule(page.session, page.tenant_id, schedule)
    return _editor(page, found, _form(found))


@router.post("/schedules/{schedule}/edit")
def change_schedule(page: Writer, schedule: str, sent: Sent) -> Response:
    """Change a schedule, or show the form again with what is wrong."""
    found = service.get_schedule(page.session, page.tenant_id, schedule)
    try:
        with page.session.begin_nested():
            asked = SchedulePatch(**_values(sent))
            service.change_schedule(page.session, page.actor, found, asked)
    except (ValidationError, Problem) as error:
        page.session.expire(found)
        return _editor(page, found, sent.model_dump(), error)
    describe(page.session, f"schedule:{found.name}", operation=found.operation, cron=found.cron)
    return redirect(f"/schedules/{found.id}", "saved")


@router.post("/schedules/{schedule}/switch")
def switch_schedule(page: Writer, schedule: str, enabled: Annotated[bool, FormData()] = False) -> Response:
    """Switch a schedule on or off; times that pass while it is off are not missed."""
    found = service.get_schedule(page.session, page.tenant_id, schedule)
    service.change_schedule(page.session, page.actor, found, SchedulePatch(enabled=enabled))
    describe(page.session, f"schedule:{found.name}", enabled=enabled)
    return page.back("/schedules", "enabled" if enabled else "disabled")


@router.post("/schedules/{schedule}/run")
def run_schedule(page: Writer, schedule: str) -> Response:
    """Start a schedule's operation now; its next time stays."""
    found = service.get_schedule(page.session, page.tenant_id, schedule)
    job = service.run_now(page.session, page.actor, found, trigger="dashboard")
    describe(page.session, f"schedule:{found.name}", job=str(job.id))
    return page.back("/schedules", actions.flash(job))


@router.post("/schedules/{schedule}/delete")
def delete_schedule(
    page: Writer, schedule: str, name: Annotated[str, FormData(max_length=200)] = ""
) -> Response:
    """Delete a schedule and its history, when its name was typed."""
    found = service.get_schedule(page.session, page.tenant_id, schedule)
    if name.strip() != found.name:
        raise Invalid(gettext("Type the name as it is written: %(name)s") % {"name": found.name}, field="name")
    describe(page.session, f"schedule:{found.name}")
    service.delete_schedule(page.session, found)
    return redirect("/schedules", "deleted")


def _form(schedule: Schedule) -> dict[str, Any]:
    asked = schedule.targets
    return {
        "name": schedule.name,
        "operation": schedule.operation,
        "mode": schedule.mode,
        "scope": "all" if asked.get("all") else "some",
        "groups": asked.get("groups", []),
        "hosts": "\n".join(asked.get("hosts", [])),
        "parameters": forms.as_yaml(schedule.parameters),
        "cron": schedule.cron,
        "zone": schedule.zone,
        "jitter_minutes": f"{schedule.jitter_seconds / 60:g}",
        "enabled": "true" if schedule.enabled else "",
        "catch_up": "true" if schedule.catch_up else "",
    }


def _values(sent: Form) -> dict[str, Any]:
    """Return what ScheduleIn takes. Raises Invalid on what is no mapping or no number."""
    everything = sent.scope != "some"
    hosts = [] if everything else [name for line in forms.lines(sent.hosts) for name in line.split()]
    try:
        jitter = round(float(sent.jitter_minutes or 0) * 60)
    except (ValueError, OverflowError) as error:
        raise Invalid(gettext("Give a number of minutes."), field="jitter_minutes") from error
    return {
        "name": sent.name.strip(),
        "operation": sent.operation,
        "mode": sent.mode,
        "targets": {"all": everything, "groups": [] if everything else sent.groups, "hosts": hosts},
        "parameters": forms.mapping(sent.parameters, "parameters"),
        "cron": sent.cron,
        "zone": sent.zone.strip() or "UTC",
        "jitter_seconds": jitter,
        "enabled": bool(sent.enabled),
        "catch_up": bool(sent.catch_up),
    }


def _editor(
    page: View,
    schedule: Schedule | None,
    form: dict[str, Any],
    error: ValidationError | Problem | None = None,
) -> Response:
    found, sentence = forms.problems(error, {*EMPTY, "jitter_seconds"}) if error else ({}, "")
    if "jitter_seconds" in found:
        found["jitter_minutes"] = found.pop("jitter_seconds")
    return page.render(
        "schedules/edit.html",
        422 if error else 200,
        schedule=schedule,
        form=form,
        problems=found,
        error=sentence,
        ahead=look_ahead(form["cron"], form["zone"]),
        groups=queries.groups(page.session, page.tenant_id),
        operations=_operations(),
        zones=forms.zones(),
    )


def _operations() -> list[dict[str, Any]]:
    """Return the operations to choose from, with the names of their parameters."""
    return [
        {
            "name": name,
            "label": gettext(words.operations[name]) if name in words.operations else name,
            "parameters": list(each.parameters.model_fields),
        }
        for name, each in OPERATIONS.items()
    ]
