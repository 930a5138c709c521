"""Routes of schedules."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from saveos.accounts.access import Actor, describe, require
from saveos.core.inputs import Text
from saveos.core.pagination import DEFAULT_LIMIT, Cursor, Limit, Page, decode_id, decode_text, split
from saveos.core.web import SessionDep
from saveos.jobs import service as jobs
from saveos.jobs.doors import door
from saveos.jobs.schemas import JobOut
from saveos.schedules import service
from saveos.schedules.apply import AppliedOut, ApplyIn, apply
from saveos.schedules.models import Schedule
from saveos.schedules.schemas import (
    Outcome,
    PreviewOut,
    ScheduleIn,
    ScheduleOut,
    SchedulePatch,
    ScheduleRunOut,
)

router = APIRouter(tags=["schedules"])

Reader = Annotated[Actor, Depends(require("schedules:read"))]
Writer = Annotated[Actor, Depends(require("schedules:write"))]
ScheduleRef = Annotated[str, Path(max_length=100, description="Id or name")]


@router.get("/schedules")
def list_schedules(
    session: SessionDep, actor: Reader, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Page[ScheduleOut]:
    """List schedules by name."""
    rows = service.list_schedules(session, actor.tenant_id, decode_text(cursor), limit + 1)
    schedules, following = split(rows, limit, lambda schedule: [schedule.name])
    return Page(items=service.describe_schedules(session, schedules), next=following)


@router.post("/schedules", status_code=201)
def create_schedule(session: SessionDep, actor: Writer, body: ScheduleIn) -> ScheduleOut:
    """Let an operation run by itself. It needs the operation's own right too."""
    schedule = service.create_schedule(session, actor, body)
    describe(session, f"schedule:{schedule.name}", operation=schedule.operation, cron=schedule.cron)
    return _out(session, schedule)


@router.post("/schedules/apply")
def apply_schedules(session: SessionDep, actor: Writer, body: ApplyIn) -> list[AppliedOut]:
    """Make schedules what a file says, all or none; with dry_run what would change is only told."""
    told = apply(session, actor, body)
    changed = [each.name for each in told if each.outcome != "unchanged"]
    describe(session, "schedules", dry_run=body.dry_run, changed=changed[:50])
    return told


@router.get("/schedules/preview")
def preview_times(
    _actor: Reader,
    cron: Text,
    zone: Text = "UTC",
    count: Annotated[int, Query(ge=1, le=100)] = 10,
) -> PreviewOut:
    """Show the next times of an expression on a zone's clock; nothing is stored."""
    return service.preview(cron, zone, count)


@router.get("/schedules/{schedule}")
def get_schedule(session: SessionDep, actor: Reader, schedule: ScheduleRef) -> ScheduleOut:
    """Show a schedule."""
    return _out(session, service.get_schedule(session, actor.tenant_id, schedule))


@router.patch("/schedules/{schedule}")
def change_schedule(
    session: SessionDep, actor: Writer, schedule: ScheduleRef, body: SchedulePatch
) -> ScheduleOut:
    """Change a schedule, or switch it off or on; it counts from now."""
    found = service.get_schedule(session, actor.tenant_id, schedule)
    service.change_schedule(session, actor, found, body)
    describe(session, f"schedule:{found.name}", changed=sorted(body.model_fields_set))
    return _out(session, found)


@router.delete("/schedules/{schedule}", status_code=204)
def delete_schedule(session: SessionDep, actor: Writer, schedule: ScheduleRef) -> None:
    """Delete a schedule and its history; its jobs stay."""
    found = service.get_schedule(session, actor.tenant_id, schedule)
    describe(session, f"schedule:{found.name}")
    service.delete_schedule(session, found)


@router.post("/schedules/{schedule}/run", status_code=202)
def run_schedule(
    request: Request, session: SessionDep, actor: Writer, schedule: ScheduleRef, response: Response
) -> JobOut:
    """Start a schedule's operation now; its next time stays."""
    found = service.get_schedule(session, actor.tenant_id, schedule)
    job = service.run_now(session, actor, found, trigger=door(request, actor))
    describe(session, f"schedule:{found.name}", job=str(job.id))
    response.headers["Location"] = f"/api/v1/jobs/{job.id}"
    return jobs.describe(job)


@router.get("/schedules/{schedule}/history")
def list_schedule_runs(
    *,
    session: SessionDep,
    actor: Reader,
    schedule: ScheduleRef,
    outcome: Outcome | None = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[ScheduleRunOut]:
    """List what became of each time at which a schedule was due, newest first."""
    found = service.get_schedule(session, actor.tenant_id, schedule)
    rows = service.list_runs(session, found, decode_id(cursor), limit + 1, outcome or "")
    page, following = split(rows, limit, lambda run: [str(run.id)])
    return Page(items=[ScheduleRunOut.model_validate(run) for run in page], next=following)


def _out(session: SessionDep, schedule: Schedule) -> ScheduleOut:
    return service.describe_schedules(session, [schedule])[0]
