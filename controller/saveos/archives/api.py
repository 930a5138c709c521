"""Routes of archives."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Path

from saveos.accounts.access import Actor, require
from saveos.archives import service
from saveos.archives.schemas import ArchiveOut
from saveos.core.inputs import Moment, Text
from saveos.core.pagination import DEFAULT_LIMIT, Cursor, Limit, Page, split, time_and_id
from saveos.core.web import SessionDep

router = APIRouter(tags=["archives"])

Reader = Annotated[Actor, Depends(require("archives:read"))]


@router.get("/archives")
def list_archives(
    *,
    session: SessionDep,
    actor: Reader,
    host: Text = "",
    repository: uuid.UUID | None = None,
    before: Moment | None = None,
    after: Moment | None = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[ArchiveOut]:
    """List archives, newest first."""
    rows = service.list_archives(
        session,
        actor.tenant_id,
        host=host,
        repository=repository,
        before=before,
        after=after,
        cursor=cursor,
        limit=limit + 1,
    )
    items, following = split(rows, limit, lambda row: time_and_id(row.started_at, row.id))
    return Page(items=items, next=following)


@router.get("/archives/{archive_id}")
def get_archive(session: SessionDep, actor: Reader, archive_id: uuid.UUID) -> ArchiveOut:
    """Show an archive."""
    return service.describe_archive(session, service.get_archive(session, actor.tenant_id, archive_id))


@router.get("/backup/{host}/snapshots")
def list_snapshots(
    session: SessionDep,
    actor: Reader,
    host: Annotated[str, Path(max_length=253, description="Id or name")],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[ArchiveOut]:
    """List a host's archives, newest first: a short form for scripts."""
    rows = service.list_archives(session, actor.tenant_id, host=host, cursor=cursor, limit=limit + 1)
    items, following = split(rows, limit, lambda row: time_and_id(row.started_at, row.id))
    return Page(items=items, next=following)
