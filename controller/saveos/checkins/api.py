"""Routes of check-ins and runs."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Depends

from saveos.accounts.access import Actor, require
from saveos.checkins import service
from saveos.checkins.schemas import CheckinIn, CheckinOut, RunOut, RunWithLog
from saveos.core.errors import Forbidden
from saveos.core.inputs import Text
from saveos.core.pagination import DEFAULT_LIMIT, Cursor, Limit, Page, split, time_and_id
from saveos.core.web import SessionDep

router = APIRouter(tags=["check-ins"])

Reader = Annotated[Actor, Depends(require("runs:read"))]
Agent = Annotated[Actor, Depends(require("checkins:write"))]


@router.post("/agents/checkins")
def check_in(session: SessionDep, actor: Agent, body: CheckinIn) -> CheckinOut:
    """Take over a host's run records (agent token); sending one twice changes nothing."""
    if actor.host_id is None:
        raise Forbidden("only an agent's token can check in")
    records = [service.parse_record(each, f"runs.{n}") for n, each in enumerate(body.runs)]
    return service.record_runs(session, actor.tenant_id, actor.host_id, records)


@router.get("/runs")
def list_runs(
    session: SessionDep, actor: Reader, host: Text = "", limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Page[RunOut]:
    """List runs, newest first."""
    rows = service.list_runs(session, actor.tenant_id, host=host, cursor=cursor, limit=limit + 1)
    items, following = split(rows, limit, lambda row: time_and_id(row.started_at, row.id))
    return Page(items=items, next=following)


@router.get("/runs/{run_id}")
def get_run(session: SessionDep, actor: Reader, run_id: uuid.UUID) -> RunWithLog:
    """Show a run with the end of its log."""
    return service.get_run(session, actor.tenant_id, run_id)
