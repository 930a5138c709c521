"""Verbs of archives."""

import uuid
from datetime import datetime

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from saveos.archives.models import Archive
from saveos.archives.schemas import ArchiveOut
from saveos.core.errors import NotFound
from saveos.core.pagination import decode_time_and_id
from saveos.hosts.models import Host
from saveos.hosts.service import get_host


def get_archive(session: Session, tenant_id: uuid.UUID, archive_id: uuid.UUID) -> Archive:
    """Return an archive. Raises NotFound."""
    archive = session.scalar(select(Archive).where(Archive.id == archive_id, Archive.tenant_id == tenant_id))
    if archive is None:
        raise NotFound("there is no such archive: see GET /api/v1/archives")
    return archive


def latest_archive(session: Session, tenant_id: uuid.UUID, host: Host) -> Archive:
    """Return a host's newest archive. Raises NotFound when it has none."""
    query = select(Archive).where(Archive.tenant_id == tenant_id, Archive.host_id == host.id)
    archive = session.scalar(query.order_by(Archive.started_at.desc(), Archive.id.desc()).limit(1))
    if archive is None:
        raise NotFound(f"{host.name} has no archive yet: back it up first")
    return archive


def list_archives(
    session: Session,
    tenant_id: uuid.UUID,
    *,
    host: str = "",
    repository: uuid.UUID | None = None,
    before: datetime | None = None,
    after: datetime | None = None,
    cursor: str | None = None,
    limit: int,
) -> list[ArchiveOut]:
    """Return up to `limit` archives, newest first. Raises NotFound for an unknown host."""
    key = tuple_(Archive.started_at, Archive.id)
    query = select(Archive, Host.name).join(Host, Host.id == Archive.host_id)
    query = query.where(Archive.tenant_id == tenant_id).order_by(Archive.started_at.desc(), Archive.id.desc())
    if host:
        query = query.where(Archive.host_id == get_host(session, tenant_id, host).id)
    if repository:
        query = query.where(Archive.repository_id == repository)
    if before:
        query = query.where(Archive.started_at < before)
    if after:
        query = query.where(Archive.started_at >= after)
    position = decode_time_and_id(cursor)
    if position:
        query = query.where(key < position)
    return [_describe(archive, name) for archive, name in session.execute(query.limit(limit))]


def list_around(session: Session, archive: Archive, count: int = 5) -> list[Archive]:
    """Return the archives of the same repository around one, with it, newest first."""
    query = select(Archive).where(Archive.repository_id == archive.repository_id)
    newer = query.where(Archive.started_at > archive.started_at).order_by(Archive.started_at)
    older = query.where(Archive.started_at < archive.started_at).order_by(Archive.started_at.desc())
    after, before = list(session.scalars(newer.limit(count))), list(session.scalars(older.limit(count)))
    return [*reversed(after), archive, *before]


def describe_archive(session: Session, archive: Archive) -> ArchiveOut:
    """Return an archive as it travels."""
    return _describe(archive, session.get_one(Host, archive.host_id).name)


def _describe(archive: Archive, host: str) -> ArchiveOut:
    columns = {name: getattr(archive, name) for name in ArchiveOut.model_fields if name != "host"}
    return ArchiveOut(**columns, host=host)
