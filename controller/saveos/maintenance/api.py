"""Routes of operations: the table, starting one, its history."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response

from saveos.accounts.access import Actor, describe, require
from saveos.core.errors import Forbidden
from saveos.core.pagination import DEFAULT_LIMIT, Cursor, Limit, Page, decode_id, split
from saveos.core.web import SessionDep
from saveos.jobs import service as jobs
from saveos.jobs.doors import door
from saveos.jobs.schemas import JobOut
from saveos.maintenance import service
from saveos.maintenance.operations import OPERATIONS
from saveos.maintenance.schemas import BackupIn, OperationOut, StartIn, Targets

router = APIRouter(tags=["maintenance"])

Reader = Annotated[Actor, Depends(require("jobs:read"))]
IdempotencyKey = Annotated[str | None, Header(description="The same key never makes a second job")]


@router.get("/maintenance")
def list_operations(_actor: Reader) -> Page[OperationOut]:
    """List the operations, with the JSON schemas of their parameters."""
    return Page(
        items=[
            OperationOut(
                name=each.name,
                summary=each.summary,
                supports_check=each.supports_check,
                idempotent=each.idempotent,
                needs=each.needs,
                right=each.right,
                timeout=each.timeout,
                parameters=each.parameters.model_json_schema(),
            )
            for each in OPERATIONS.values()
        ]
    )


@router.get("/maintenance/{operation}")
def list_operation_jobs(
    session: SessionDep, actor: Reader, operation: str, cursor: Cursor = None, limit: Limit = DEFAULT_LIMIT
) -> Page[JobOut]:
    """List the jobs of an operation, newest first."""
    name = service.get_operation(operation).name
    rows = jobs.list_jobs(session, actor.tenant_id, operation=name, before=decode_id(cursor), limit=limit + 1)
    page, following = split(rows, limit, lambda job: [str(job.id)])
    return Page(items=[jobs.describe(job) for job in page], next=following)


@router.post("/maintenance/{operation}", status_code=202)
def start_operation(
    request: Request,
    session: SessionDep,
    actor: Annotated[Actor, Depends(require("jobs:write"))],
    operation: str,
    body: StartIn,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> JobOut:
    """Start an operation on hosts; 202 with the job, whose links lead to its log and events."""
    found = service.get_operation(operation)
    if not actor.may(found.right):
        raise Forbidden(f"this needs the right {found.right}: ask an admin for it, or use another token")
    job = service.start(
        session,
        actor.tenant_id,
        operation,
        body.targets,
        mode=body.mode,
        parameters=body.parameters,
        requested_by=actor.name,
        trigger=door(request, actor),
        idempotency_key=idempotency_key,
    )
    describe(session, f"job:{job.id}", operation=operation, mode=body.mode)
    response.headers["Location"] = f"/api/v1/jobs/{job.id}"
    return jobs.describe(job)


@router.post("/backup", status_code=202)
def back_up(
    request: Request,
    session: SessionDep,
    actor: Annotated[Actor, Depends(require("jobs:write"))],
    body: BackupIn,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> JobOut:
    """Back hosts up now; the short form of POST /maintenance/backup."""
    asked = StartIn(targets=Targets(hosts=body.hosts))
    return start_operation(request, session, actor, "backup", asked, response, idempotency_key)
