"""Routes of check-ins, heartbeats, progress and runs.

What agents send goes through the intake, which knows the agent by its token; it is not audited.
"""

import uuid
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel

from saveos.accounts.access import Actor, bearer_scheme, client_address, require
from saveos.checkins import service, versions
from saveos.checkins.intake import bearer
from saveos.checkins.schemas import (
    AgentStats,
    AgentVersions,
    CheckinIn,
    CheckinOut,
    HeartbeatOut,
    HeartbeatTold,
    ProgressTold,
    RunningOut,
    RunOut,
    RunWithLog,
)
from saveos.core.inputs import Text
from saveos.core.pagination import DEFAULT_LIMIT, Cursor, Limit, Page, split, time_and_id
from saveos.core.web import MAX_BODY, SessionDep, StateDep, get_state, raw_body, read_body

MAX_STATE = 64 * 1024  # bytes of a heartbeat or a progress

router = APIRouter(tags=["check-ins"])

Reader = Annotated[Actor, Depends(require("runs:read"))]
HostRef = Annotated[str, Path(max_length=253, description="Id or name")]
AGENT: Any = [Depends(bearer_scheme)]  # for the reference; the intake knows the token


async def _take_in(request: Request, limit: int, read: Callable[[bytes], Any]) -> Response:
    token = bearer(request.headers.get("authorization", ""))
    body = await read_body(request, limit)
    outcome = await get_state(request).intake.submit(token, client_address(request), body, read)
    if isinstance(outcome, BaseModel):
        return Response(outcome.model_dump_json(), media_type="application/json")
    return Response(status_code=204)


@router.post(
    "/agents/checkins", response_model=CheckinOut, openapi_extra=raw_body(CheckinIn), dependencies=AGENT
)
async def check_in(request: Request) -> Response:
    """Take over a host's run records (agent token); sending one twice changes nothing."""
    return await _take_in(request, MAX_BODY, service.read_records)


@router.post(
    "/agents/heartbeat", response_model=HeartbeatOut, openapi_extra=raw_body(HeartbeatTold), dependencies=AGENT
)
async def beat(request: Request) -> Response:
    """Take over how a host is (agent token); the newest counts."""
    return await _take_in(request, MAX_STATE, service.read_heartbeat)


@router.post("/agents/progress", status_code=204, openapi_extra=raw_body(ProgressTold), dependencies=AGENT)
async def tell_progress(request: Request) -> Response:
    """Take over how far a host's run is (agent token); the newest counts, until the run's record comes."""
    return await _take_in(request, MAX_STATE, service.read_progress)


@router.get("/agents/stats")
def agent_stats(session: SessionDep, actor: Reader) -> AgentStats:
    """Count the fleet's agents by versions, by when they were heard of, and by what needs a look."""
    return service.agent_stats(session, actor.tenant_id)


@router.get("/agents/versions")
def list_agent_versions(
    session: SessionDep,
    state: StateDep,
    actor: Reader,
    outdated: Annotated[bool, Query(description="Only agents that differ from what is offered")] = False,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[AgentVersions]:
    """List agents by host, with their versions of agent, borg and borgmatic, and those that are offered."""
    wanted = versions.offered(state.settings.fleet_dir)
    rows = versions.list_versions(
        session, actor.tenant_id, wanted, outdated=outdated, cursor=cursor, limit=limit + 1
    )
    items, following = split(rows, limit, lambda row: [row.host])
    return Page(items=items, next=following)


@router.get("/running")
def list_running(
    session: SessionDep, actor: Reader, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Page[RunningOut]:
    """List the backups and restores that go on now, by host, whoever started them."""
    rows = service.list_running(session, actor.tenant_id, cursor=cursor, limit=limit + 1)
    items, following = split(rows, limit, lambda row: [row.host])
    return Page(items=items, next=following)


@router.get("/hosts/{host}/running")
def get_running(session: SessionDep, actor: Reader, host: HostRef) -> RunningOut | None:
    """Show the backup or restore that goes on at a host; null when there is none."""
    return service.get_running(session, actor.tenant_id, host)


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
