"""Routes of restores."""

import uuid
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session

from saveos.accounts.access import Actor, require
from saveos.accounts.access import describe as note
from saveos.archives.catalogue import from_ref, show, to_ref
from saveos.core.errors import Forbidden
from saveos.core.inputs import Moment
from saveos.core.pagination import DEFAULT_LIMIT, Cursor, Limit, Page, decode_id, split
from saveos.core.web import SessionDep, StateDep
from saveos.hosts.service import get_host
from saveos.jobs import service as jobs
from saveos.jobs.doors import door
from saveos.restores import content, differences, kit, service
from saveos.restores.schemas import (
    DifferenceIn,
    EscrowOut,
    EscrowStateOut,
    Form,
    RestoreCreated,
    RestoreIn,
    RestoreOut,
    TextIn,
)
from saveos.secrets.schemas import EscrowState

router = APIRouter(tags=["restores"])


@router.get("/restores")
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


@router.post("/restores", status_code=202)
def create_restore(
    request: Request,
    session: SessionDep,
    actor: Annotated[Actor, Depends(require("restores:write"))],
    body: RestoreIn,
    response: Response,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> RestoreCreated:
    """Bring paths of an archive back to its host, or with `preview` say what that would do; 202 with its job.

    In place it needs the right restores:in_place, too; to another host restores:other_host; as a download,
    which GET /restores/{id}/content reads, the right download.
    """
    other_host = body.target_host is not None and service.is_other_host(
        session, actor.tenant_id, archive=body.archive, host=body.host, target_host=body.target_host
    )
    for right in service.needed_rights(body.in_place, other_host=other_host, download=body.download):
        if not actor.may(right):
            raise Forbidden(f"this needs the right {right}: ask an admin for it, or name another destination")
    restore, job = service.request(
        session,
        actor.tenant_id,
        archive=body.archive,
        host=body.host,
        selection=body,
        preview=body.preview,
        target_host=body.target_host,
        download=body.download,
        requested_by=actor.name,
        trigger=door(request, actor),
        idempotency_key=idempotency_key,
    )
    note(session, f"restore:{restore.id}", job=str(job.id))
    response.headers["Location"] = f"/api/v1/jobs/{job.id}"
    return RestoreCreated(restore=service.describe(session, [restore])[0], job=jobs.describe(job))


@router.get("/restores/{restore_id}")
def get_restore(
    session: SessionDep, actor: Annotated[Actor, Depends(require("restores:read"))], restore_id: uuid.UUID
) -> RestoreOut:
    """Show a restore, with what its host told."""
    return service.describe(session, [service.get_restore(session, actor.tenant_id, restore_id)])[0]


@router.post("/archives/{archive_id}/diff", status_code=202)
def create_difference(
    request: Request,
    session: SessionDep,
    actor: Annotated[Actor, Depends(require("download"))],
    archive_id: uuid.UUID,
    body: DifferenceIn,
) -> RestoreCreated:
    """Compare the text of one small file; GET /restores/{id}/content of what comes back gives it."""
    return _ask_text(request, session, actor, archive_id, body, body.other)


@router.post("/archives/{archive_id}/text", status_code=202)
def create_text(
    request: Request,
    session: SessionDep,
    actor: Annotated[Actor, Depends(require("download"))],
    archive_id: uuid.UUID,
    body: TextIn,
) -> RestoreCreated:
    """Show the text of one small file; GET /restores/{id}/content of what comes back gives it."""
    return _ask_text(request, session, actor, archive_id, body, None, alone=True)


def _ask_text(
    request: Request,
    session: Session,
    actor: Actor,
    archive_id: uuid.UUID,
    body: TextIn,
    other: uuid.UUID | None,
    *,
    alone: bool = False,
) -> RestoreCreated:
    ref = body.ref or to_ref(body.path.encode())
    restore, job = differences.request(
        session,
        actor.tenant_id,
        archive_id,
        other,
        ref,
        alone=alone,
        requested_by=actor.name,
        trigger=door(request, actor),
    )
    note(session, f"restore:{restore.id}", job=str(job.id), path=show(from_ref(ref))[:500])
    return RestoreCreated(restore=service.describe(session, [restore])[0], job=jobs.describe(job))


@router.get("/restores/{restore_id}/content", response_class=StreamingResponse)
async def read_content(
    state: StateDep,
    actor: Annotated[Actor, Depends(require("download", audit=False))],
    restore_id: uuid.UUID,
) -> Response:
    """Give what a download asked for, once, as a tar archive that comes from the host as it is read.

    An answer that breaks off is not whole. Waits for the host to begin; 409 where its job is over.
    """
    found = await content.give(state, actor, restore_id, seconds=content.PERSON_SECONDS)
    if found is None:
        raise content.not_begun()
    return found


Agent = Annotated[Actor, Depends(require("checkins:write", audit=False))]


@router.put(
    "/agents/transfers/{restore_id}",
    status_code=204,
    openapi_extra={"requestBody": {"content": {"application/octet-stream": {"schema": {"type": "string"}}}}},
)
async def send_content(
    request: Request, state: StateDep, actor: Agent, restore_id: uuid.UUID, form: Form = "tar"
) -> None:
    """Pass on what a host sends to whoever reads it (agent token); nothing of it is kept."""
    await content.take(request, state, actor, restore_id, form)


@router.get("/agents/transfers/{restore_id}", response_class=StreamingResponse)
async def receive_content(state: StateDep, actor: Agent, restore_id: uuid.UUID) -> Response:
    """Give a host what another sends it (agent token); 204 where that has not begun: ask again."""
    found = await content.give(state, actor, restore_id, seconds=content.AGENT_SECONDS)
    return found or Response(status_code=204)


SecretsReader = Annotated[Actor, Depends(require("secrets:read"))]
HostRef = Annotated[str, Path(max_length=253, description="Id or name")]
Before = Annotated[
    Moment | None, Query(description="What was sealed before: of a host that was broken into, before that")
]


@router.get("/recovery/escrows")
def list_escrows(
    session: SessionDep,
    actor: Annotated[Actor, Depends(require("system:read"))],
    state: EscrowState | None = None,
    cursor: Cursor = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[EscrowStateOut]:
    """List repositories with the state of their escrow: fresh, stale (of an earlier recovery key) or none."""
    rows = kit.list_escrows(session, actor.tenant_id, state, decode_id(cursor), limit + 1)
    page, following = split(rows, limit, lambda row: [str(row.repository_id)])
    return Page(items=page, next=following)


@router.get("/hosts/{host}/escrow")
def get_escrow(
    session: SessionDep, actor: SecretsReader, host: HostRef, before: Before = None
) -> Page[EscrowOut]:
    """Give what a host sealed, newest of each repository: the recovery key's private half opens it."""
    found = kit.collect(session, get_host(session, actor.tenant_id, host), before)
    return Page(items=[item.out() for item in found.items])


@router.get("/hosts/{host}/recovery-kit", response_class=Response)
def get_recovery_kit(
    session: SessionDep,
    actor: SecretsReader,
    host: HostRef,
    form: Annotated[Literal["zip", "html", "text"], Query(alias="format")] = "zip",
    before: Before = None,
) -> Response:
    """Give a host's recovery kit, still sealed: a ZIP archive, or the page to print, or its text."""
    found = kit.collect(session, get_host(session, actor.tenant_id, host), before)
    if form == "text":
        return Response(kit.text(found), media_type="text/plain; charset=utf-8")
    name = f"{kit.directory(found)}.{form}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    if form == "html":
        return Response(kit.html(found), media_type="text/html; charset=utf-8", headers=headers)
    return Response(kit.archive(found), media_type="application/zip", headers=headers)
