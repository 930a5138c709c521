"""Verbs of restores: ask, repeat, list."""

import uuid
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import case, or_, select
from sqlalchemy.orm import Session, aliased

from saveos.accounts.service import check_content
from saveos.archives.models import Archive
from saveos.archives.service import get_archive, latest_archive
from saveos.core.database import new_id
from saveos.core.errors import Conflict, Invalid, NotFound
from saveos.hosts.models import Host
from saveos.hosts.service import get_host
from saveos.jobs import service as jobs
from saveos.jobs.models import Job, JobHost
from saveos.jobs.service import Member
from saveos.restores.differences import OPERATION as TEXT
from saveos.restores.models import Restore
from saveos.restores.schemas import Outcome, RestoreOut, Selection

TIMEOUT = 86_400  # seconds
CHOSEN = ("paths", "refs", "excludes", "exclude_refs", "destination", "in_place", "conflict", "preview")
KEPT = (*CHOSEN, "kind", "target_host_id")
SWITCHES = ("verify", "owners", "acls", "xattrs")  # of a selection; its job's parameters keep them
IN_PLACE, OTHER_HOST, DOWNLOAD = "restores:in_place", "restores:other_host", "download"


def needed_rights(in_place: bool, *, other_host: bool = False, download: bool = False) -> Collection[str]:
    """Return the rights that a restore needs beside restores:write."""
    needed = {IN_PLACE: in_place, OTHER_HOST: other_host, DOWNLOAD: download}
    return [right for right, wanted in needed.items() if wanted]


def record_outcome(session: Session, job: Job, told: dict[str, Any]) -> None:
    """Keep what the host told of a job's restore, or of its preview. Raises pydantic's ValidationError."""
    restore = session.scalar(select(Restore).where(Restore.job_id == job.id))
    if restore is not None:
        restore.outcome = Outcome.model_validate(told).model_dump(mode="json")


def request(
    session: Session,
    tenant_id: uuid.UUID,
    *,
    archive: str,
    host: str | None,
    selection: Selection,
    preview: bool = False,
    target_host: str | None = None,
    download: bool = False,
    requested_by: str = "",
    trigger: str = "api",
    idempotency_key: str | None = None,
) -> tuple[Restore, Job]:
    """Queue a restore, or return the one that the same request made before.

    `archive` is an id, `latest`, or with `host` an archive's name. Raises Invalid, NotFound, Conflict where a
    host is not in care, or the archive is no more.
    """
    chosen = selection.model_dump(mode="json", include=set(Selection.model_fields))
    asked = jobs.fingerprint("restore", archive, host, chosen, preview, target_host, download)
    if job := jobs.known(session, tenant_id, idempotency_key, asked):
        return _of_job(session, job), job
    found = _archive(session, tenant_id, archive, host)
    owner = get_host(session, tenant_id, found.host_id)
    target = get_host(session, tenant_id, target_host) if target_host else owner
    kind = "download" if download else "host" if target.id == owner.id else "other_host"
    for each in (owner, target):
        if each.state != "enrolled":
            raise Conflict(f"{each.name} is {each.state}: provision or resume it first")
    parameters = {
        "archive": found.name,
        "repository_id": str(found.repository_id),
        **chosen,
    }
    restore_id = new_id()
    if kind != "host":
        check_content(session, tenant_id)
        parameters |= {"transfer": str(restore_id), "source": owner.name, "staged": kind == "other_host"}
    if kind == "other_host" and preview:
        why = f"a preview looks at {owner.name} itself: there is none for another host"
        raise Invalid(why, field="preview")
    members = {each.id: Member(each.id, each.name) for each in (owner, target)}
    job = jobs.enqueue(
        session,
        tenant_id,
        operation="restore" if kind == "host" else "transfer",
        members=list(members.values()),
        resources=[f"repository:{found.repository_id}", *(f"host:{each}" for each in members)],
        targets={"hosts": [member.name for member in members.values()]},
        parameters=parameters,
        timeout=TIMEOUT,
        mode="check" if preview else "run",
        trigger=trigger,
        requested_by=requested_by,
    )
    kept = jobs.remember(session, job, idempotency_key, asked)
    if kept is not job:
        return _of_job(session, kept), kept
    restore = Restore(
        id=restore_id,
        tenant_id=tenant_id,
        archive_id=found.id,
        host_id=owner.id,
        job_id=job.id,
        **{name: value for name, value in chosen.items() if name not in SWITCHES},
        preview=preview,
        kind=kind,
        target_host_id=target.id if kind == "other_host" else None,
        requested_by=requested_by[:150],
    )
    session.add(restore)
    session.flush()
    return restore, job


def is_other_host(
    session: Session, tenant_id: uuid.UUID, *, archive: str, host: str | None, target_host: str
) -> bool:
    """Whether a restore goes to another host than the archive's. Raises NotFound, Invalid."""
    return get_host(session, tenant_id, target_host).id != _archive(session, tenant_id, archive, host).host_id


def repeat(session: Session, before: Job, job: Job) -> None:
    """Note that `job` tries again what `before` was to restore; a job of another operation changes nothing."""
    asked = session.scalar(select(Restore).where(Restore.job_id == before.id))
    if asked is None:
        return
    again = Restore(
        tenant_id=asked.tenant_id,
        archive_id=asked.archive_id,
        host_id=asked.host_id,
        job_id=job.id,
        **{name: getattr(asked, name) for name in KEPT},
        requested_by=job.requested_by,
    )
    session.add(again)
    session.flush()


def _archive(session: Session, tenant_id: uuid.UUID, ref: str, host: str | None) -> Archive:
    owner = get_host(session, tenant_id, host) if host else None
    if ref == "latest":
        if owner is None:
            raise Invalid("name the host whose latest archive you want", field="host")
        return latest_archive(session, tenant_id, owner)
    try:
        found = get_archive(session, tenant_id, uuid.UUID(ref))
    except ValueError:
        found = _by_name(session, tenant_id, ref, owner)
    if owner is not None and found.host_id != owner.id:
        raise Invalid(
            f"that archive is not one of {owner.name}: see saveos archives list --host {owner.name}",
            field="archive",
        )
    if found.gone_at is not None:
        raise Conflict(f"its repository has {found.name} no more: choose another archive")
    return found


def _by_name(session: Session, tenant_id: uuid.UUID, name: str, owner: Host | None) -> Archive:
    if owner is None:
        raise Invalid("give an archive's id, or its name with its host", field="archive")
    query = select(Archive).where(Archive.tenant_id == tenant_id, Archive.host_id == owner.id)
    order = Archive.gone_at.is_not(None), Archive.id.desc()
    archive = session.scalar(query.where(Archive.name == name).order_by(*order).limit(1))
    if archive is None:
        raise NotFound(f"{owner.name} has no archive {name[:100]}: see GET /api/v1/archives")
    return archive


def _of_job(session: Session, job: Job) -> Restore:
    restore = session.scalar(select(Restore).where(Restore.job_id == job.id))
    if restore is None:
        raise NotFound("the restore of that job is gone: start it anew")
    return restore


def get_restore(session: Session, tenant_id: uuid.UUID, restore_id: uuid.UUID) -> Restore:
    """Return a restore. Raises NotFound."""
    found = session.get(Restore, restore_id)
    if found is None or found.tenant_id != tenant_id:
        raise NotFound("there is no such restore: see GET /api/v1/restores")
    return found


def list_restores(
    session: Session, tenant_id: uuid.UUID, *, host: str = "", before: uuid.UUID | None = None, limit: int
) -> list[Restore]:
    """Return up to `limit` restores, newest first; with `host` those from it or to it. Texts are none.

    Raises NotFound for an unknown host.
    """
    mine = Restore.tenant_id == tenant_id, Restore.kind != "drill"
    query = select(Restore).join(Job, Job.id == Restore.job_id).where(*mine, Job.operation != TEXT)
    query = query.order_by(Restore.id.desc()).limit(limit)
    if host:
        either = get_host(session, tenant_id, host).id
        query = query.where(or_(Restore.host_id == either, Restore.target_host_id == either))
    if before:
        query = query.where(Restore.id < before)
    return list(session.scalars(query))


def describe(session: Session, restores: Sequence[Restore]) -> list[RestoreOut]:
    """Return restores as they travel; two queries whatever their number."""
    ids = [restore.id for restore in restores]
    target = aliased(Host)
    own = case((Job.error_type == "hosts-failed", ""), else_=Job.error)  # the host's own says more
    rows = session.execute(
        select(Restore, Archive.name, Host.name, Job.state, own, Job.parameters, target.name)
        .join(Archive, Archive.id == Restore.archive_id)
        .join(Host, Host.id == Restore.host_id)
        .outerjoin(target, target.id == Restore.target_host_id)
        .join(Job, Job.id == Restore.job_id)
        .where(Restore.id.in_(ids))
        .order_by(Restore.id.desc())
    )
    jobs_of = [restore.job_id for restore in restores]
    faults = select(JobHost.job_id, JobHost.error).where(JobHost.job_id.in_(jobs_of), JobHost.error != "")
    told = dict(session.execute(faults.order_by(JobHost.name.desc())).all())
    return [
        RestoreOut(
            id=restore.id,
            archive_id=restore.archive_id,
            archive=archive,
            host_id=restore.host_id,
            host=host,
            job_id=restore.job_id,
            state=state,
            paths=restore.paths,
            refs=restore.refs,
            excludes=restore.excludes,
            exclude_refs=restore.exclude_refs,
            destination=restore.destination,
            in_place=restore.in_place,
            conflict=restore.conflict,
            **{name: bool(parameters.get(name, True)) for name in SWITCHES},
            preview=restore.preview,
            kind=restore.kind,
            target_host_id=restore.target_host_id,
            target_host=target_name,
            outcome=Outcome.model_validate(restore.outcome) if restore.outcome else None,
            error=told.get(restore.job_id, "") or error,
            requested_by=restore.requested_by,
            created_at=restore.created_at,
        )
        for restore, archive, host, state, error, parameters, target_name in rows
    ]
