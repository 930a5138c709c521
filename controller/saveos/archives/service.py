"""Verbs of archives."""

import uuid
from collections.abc import Collection
from datetime import datetime

from sqlalchemy import String, cast, select, tuple_
from sqlalchemy.orm import Session

from saveos.archives.models import Archive
from saveos.archives.schemas import ArchiveOut, ArchivePatch
from saveos.core.clock import now
from saveos.core.database import touch
from saveos.core.errors import NotFound
from saveos.core.pagination import decode_time_and_id
from saveos.hosts.models import Host
from saveos.hosts.service import get_host
from saveos.repositories.models import Repository


def get_archive(session: Session, tenant_id: uuid.UUID, archive_id: uuid.UUID) -> Archive:
    """Return an archive. Raises NotFound."""
    archive = session.scalar(select(Archive).where(Archive.id == archive_id, Archive.tenant_id == tenant_id))
    if archive is None:
        raise NotFound("there is no such archive: see GET /api/v1/archives")
    return archive


def latest_archive(session: Session, tenant_id: uuid.UUID, host: Host) -> Archive:
    """Return a host's newest archive. Raises NotFound when it has none."""
    query = select(Archive).where(Archive.tenant_id == tenant_id, Archive.host_id == host.id)
    query = query.where(Archive.gone_at.is_(None))
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
    tag: str = "",
    gone: bool = False,
    cursor: str | None = None,
    limit: int,
) -> list[ArchiveOut]:
    """Return up to `limit` archives, newest first, with `gone` those too that are no more.

    Raises NotFound for an unknown host.
    """
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
    if tag:
        sought = tag.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        query = query.where(cast(Archive.tags, String).like(f'%"{sought}"%', escape="\\"))
    if not gone:
        query = query.where(Archive.gone_at.is_(None))
    position = decode_time_and_id(cursor)
    if position:
        query = query.where(key < position)
    return [_describe(archive, name) for archive, name in session.execute(query.limit(limit))]


def change_archive(session: Session, archive: Archive, patch: ArchivePatch) -> None:
    """Change an archive's note and tags."""
    if patch.note is not None:
        archive.note = patch.note.strip()
    if patch.tags is not None:
        archive.tags = sorted(set(patch.tags))
    touch(session, archive.tenant_id, "archives")


def mark_removed(session: Session, archive: Archive, why: str, who: str, *, at: datetime) -> None:
    """Note that an archive was marked for removal, why and by whom; the first note stays."""
    if archive.removed_at is None:
        archive.removed_at, archive.removed_why, archive.removed_by = at, why, who[:150]
    archive.gone_at = archive.gone_at or at
    touch(session, archive.tenant_id, "archives")


def mark_living(
    session: Session, host: Host, repository_id: uuid.UUID, living: Collection[str]
) -> tuple[int, int]:
    """Note which archives a host's repository has.

    Returns how many others are gone, newly found to be, and how many came back that the catalogue has dropped.
    Raises NotFound when the repository is not the host's.
    """
    owner = session.scalar(select(Repository.host_id).where(Repository.id == repository_id))
    if owner != host.id:
        raise NotFound("this host has no such repository: provision it again")
    known, at, found, returned = set(living), now(), 0, 0
    for archive in session.scalars(select(Archive).where(Archive.repository_id == repository_id)):
        if archive.borg_id in known:
            returned += archive.gone_at is not None and archive.catalogue == "none"
            archive.gone_at = archive.removed_at = None  # back, such as by an undo of the guard
            archive.removed_why = archive.removed_by = ""
        elif archive.gone_at is None:
            archive.gone_at = at
            found += 1
    touch(session, host.tenant_id, "archives")
    return found, returned


def list_around(session: Session, archive: Archive, count: int = 5) -> list[Archive]:
    """Return the archives that there are of the same repository around one, with it, newest first."""
    query = select(Archive).where(Archive.repository_id == archive.repository_id, Archive.gone_at.is_(None))
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
