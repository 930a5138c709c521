"""Routes of jobs: find, follow, cancel. Retry, and reports of runs by hand, are in maintenance/api.py."""

import uuid
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.responses import PlainTextResponse, StreamingResponse

from saveos.accounts.access import Actor, describe, require
from saveos.core.inputs import Filter
from saveos.core.pagination import DEFAULT_LIMIT, Cursor, Limit, Page, decode_id, decode_text, split
from saveos.core.web import SessionDep, StateDep
from saveos.jobs import logs, service, streams
from saveos.jobs.schemas import EventOut, JobHostOut, JobOut, LogOut

router = APIRouter(prefix="/jobs", tags=["jobs"])

Reader = Annotated[Actor, Depends(require("jobs:read"))]
Writer = Annotated[Actor, Depends(require("jobs:write"))]


@router.get("")
def list_jobs(
    session: SessionDep,
    actor: Reader,
    state: Filter = "",
    operation: Filter = "",
    host: Filter = "",
    trigger: Filter = "",
    requested_by: Filter = "",
    cursor: Cursor = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[JobOut]:
    """List jobs, newest first. `state` takes `active` and `final` too."""
    rows = service.list_jobs(
        session,
        actor.tenant_id,
        limit=limit + 1,
        before=decode_id(cursor),
        state=state,
        operation=operation,
        host=host,
        trigger=trigger,
        requested_by=requested_by,
    )
    page, following = split(rows, limit, lambda job: [str(job.id)])
    return Page(items=[service.describe(job) for job in page], next=following)


@router.get("/{job_id}")
def get_job(session: SessionDep, actor: Reader, job_id: uuid.UUID) -> JobOut:
    """Return a job."""
    return service.describe(service.get_job(session, actor.tenant_id, job_id))


@router.get("/{job_id}/hosts")
def list_job_hosts(
    session: SessionDep,
    actor: Reader,
    job_id: uuid.UUID,
    state: Filter = "",
    cursor: Cursor = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[JobHostOut]:
    """List the hosts of a job by name, with what each came to."""
    job = service.get_job(session, actor.tenant_id, job_id)
    rows = service.list_hosts(session, job, state=state, after=decode_text(cursor) or "", limit=limit + 1)
    page, following = split(rows, limit, lambda row: [row.name])
    return Page(items=[JobHostOut.model_validate(row) for row in page], next=following)


@router.get("/{job_id}/log", response_model=LogOut)
def get_job_log(
    session: SessionDep,
    actor: Reader,
    job_id: uuid.UUID,
    start: Annotated[int, Query(ge=1, le=2**53)] = 1,
    count: Annotated[int, Query(ge=1, le=logs.MAX_COUNT)] = 1000,
    format: Literal["json", "text"] = "json",
) -> LogOut | Response:
    """Return a part of a job's log by event numbers, as JSON or as plain text."""
    job = service.get_job(session, actor.tenant_id, job_id)
    events = logs.read(session, job.id, start, count)
    if format == "text":
        return PlainTextResponse(logs.as_text(events))
    return LogOut(start=start, total=job.events, events=[EventOut(**event) for event in events])


@router.get("/{job_id}/events", response_class=StreamingResponse)
def follow_job(
    state: StateDep,
    actor: Annotated[Actor, Depends(require("jobs:read", audit=False))],
    job_id: uuid.UUID,
    after: Annotated[int, Query(ge=0, le=2**53)] = 0,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> StreamingResponse:
    """Stream a job: `log` frames with events, `state` frames with the job, `end` when it is final."""
    with state.database.session() as session:
        service.get_job(session, actor.tenant_id, job_id)
    if last_event_id and last_event_id.isdigit():
        after = int(last_event_id)
    return StreamingResponse(
        streams.follow(state.database, state.feed, actor.tenant_id, job_id, after),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


@router.post("/{job_id}/cancel", status_code=202)
def cancel_job(session: SessionDep, actor: Writer, job_id: uuid.UUID) -> JobOut:
    """Cancel a job, on its hosts too."""
    job = service.cancel(session, actor.tenant_id, job_id, actor.name)
    describe(session, f"job:{job.id}", operation=job.operation)
    return service.describe(job)
