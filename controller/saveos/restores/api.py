"""Routes of restores."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from saveos.accounts.access import Actor, require
from saveos.accounts.access import describe as note
from saveos.core.pagination import DEFAULT_LIMIT, Cursor, Limit, Page, decode_id, split
from saveos.core.web import SessionDep
from saveos.jobs import service as jobs
from saveos.jobs.doors import door
from saveos.restores import service
from saveos.restores.schemas import RestoreCreated, RestoreIn, RestoreOut

router = APIRouter(prefix="/restores", tags=["restores"])


@router.get("")
def list_restores(
    session: SessionDep,
    actor: Annotated[Actor, Depends(require("restores:read"))],
    host: Annotated[str, Query(max_length=253)] = "",
    cursor: Cursor = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[RestoreOut]:
    """List restores, newest first."""
    rows = service.list_restores(session, actor.tenant_id, host=host, before=decode_id(cursor), limit=limit + 1)
    page, following = split(rows, limit, lambda restore: [str(restore.id)])
    return Page(items=service.describe(session, page), next=following)


@router.post("", status_code=202)
def create_restore(
    request: Request,
    session: SessionDep,
    actor: Annotated[Actor, Depends(require("restores:write"))],
    body: RestoreIn,
    response: Response,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> RestoreCreated:
    """Bring paths of an archive back to a directory of its host; 202 with the restore and its job."""
    restore, job = service.request(
        session,
        actor.tenant_id,
        archive=body.archive,
        host=body.host,
        paths=body.paths,
        destination=body.destination,
        target_host=body.target_host,
        requested_by=actor.name,
        trigger=door(request, actor),
        idempotency_key=idempotency_key,
    )
    note(session, f"restore:{restore.id}", job=str(job.id))
    response.headers["Location"] = f"/api/v1/jobs/{job.id}"
    return RestoreCreated(restore=service.describe(session, [restore])[0], job=jobs.describe(job))
