"""Verbs of jobs: enqueue, find, cancel, retry."""

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from saveos.accounts.models import IdempotencyKey
from saveos.core.clock import now
from saveos.core.database import touch
from saveos.core.errors import Conflict, Invalid, NotFound
from saveos.hosts.models import Host
from saveos.jobs import queue
from saveos.jobs.models import ACTIVE, FINAL, Job, JobHost
from saveos.jobs.schemas import JobOut, Links

KEY_DAYS = 7
MAX_KEY = 200
UNSUCCESSFUL = ("failed", "unreachable", "canceled")  # states of hosts that a retry takes


@dataclass(frozen=True)
class Member:
    """A host of a job; not a target when it only came along, as a storage server does."""

    host_id: uuid.UUID
    name: str
    is_target: bool = True


def enqueue(
    session: Session,
    tenant_id: uuid.UUID,
    *,
    operation: str,
    members: Sequence[Member],
    resources: Sequence[str],
    targets: dict[str, Any],
    parameters: dict[str, Any],
    timeout: int,
    mode: str = "run",
    trigger: str = "api",
    requested_by: str = "",
    retry_of: uuid.UUID | None = None,
) -> Job:
    """Queue a job; the worker hears of it when the unit of work commits."""
    job = Job(
        tenant_id=tenant_id,
        operation=operation,
        mode=mode,
        trigger=trigger,
        requested_by=requested_by[:150],
        targets=targets,
        parameters=parameters,
        resources=sorted(set(resources)),
        timeout=timeout,
        retry_of=retry_of,
        hosts_total=sum(member.is_target for member in members),
    )
    session.add(job)
    session.flush()
    session.add_all(
        JobHost(job_id=job.id, name=member.name, host_id=member.host_id, is_target=member.is_target)
        for member in members
    )
    session.flush()
    _touch(session, job)
    return job


def fingerprint(*request: Any) -> str:
    """Return what tells whether two requests are the same."""
    return hashlib.sha256(json.dumps(request, sort_keys=True, default=str).encode()).hexdigest()


def known(session: Session, tenant_id: uuid.UUID, key: str | None, request: str) -> Job | None:
    """Return the job that a request with this Idempotency-Key made before, or None.

    Raises Conflict when the key was used for another request, Invalid on a key too long.
    """
    if not key:
        return None
    if len(key) > MAX_KEY:
        raise Invalid(f"the Idempotency-Key has more than {MAX_KEY} characters", field="Idempotency-Key")
    row = session.scalar(
        select(IdempotencyKey).where(IdempotencyKey.tenant_id == tenant_id, IdempotencyKey.key == key)
    )
    if row is None:
        return None
    if row.fingerprint != request:
        raise Conflict(
            "this Idempotency-Key was used for another request: send a new one",
            field="Idempotency-Key",
            type_="idempotency-key-reused",
        )
    return get_job(session, tenant_id, row.object_id)


def remember(session: Session, job: Job, key: str | None, request: str) -> Job:
    """Keep which job a key made, for a week. Returns the other job when a like request was faster."""
    if not key:
        return job
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < now() - timedelta(days=KEY_DAYS)))
    row = IdempotencyKey(tenant_id=job.tenant_id, key=key, fingerprint=request, object_id=job.id)
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:
        session.delete(job)
        session.flush()
        return known(session, job.tenant_id, key, request) or job
    return job


def get_job(session: Session, tenant_id: uuid.UUID, job_id: uuid.UUID, *, lock: bool = False) -> Job:
    """Return a job. Raises NotFound."""
    query = select(Job).where(Job.id == job_id, Job.tenant_id == tenant_id)
    job = session.scalar(query.with_for_update() if lock else query)
    if job is None:
        raise NotFound(f"there is no job {job_id}: see GET /api/v1/jobs")
    return job


def list_jobs(
    session: Session,
    tenant_id: uuid.UUID,
    *,
    limit: int,
    before: uuid.UUID | None = None,
    state: str = "",
    operation: str = "",
    host: str = "",
    trigger: str = "",
    requested_by: str = "",
) -> list[Job]:
    """Return up to `limit` jobs, newest first; `state` may be `active` or `final` too."""
    query = select(Job).where(Job.tenant_id == tenant_id).order_by(Job.id.desc()).limit(limit)
    if before:
        query = query.where(Job.id < before)
    if state:
        query = query.where(Job.state.in_({"active": ACTIVE, "final": FINAL}.get(state, (state,))))
    for column, value in (
        (Job.operation, operation),
        (Job.trigger, trigger),
        (Job.requested_by, requested_by),
    ):
        if value:
            query = query.where(column == value)
    if host:
        query = query.where(Job.id.in_(_jobs_of(tenant_id, host)))
    return list(session.scalars(query))


def _jobs_of(tenant_id: uuid.UUID, host: str) -> Any:
    wanted = Host.name == host.strip().lower()
    try:
        wanted = wanted | (Host.id == uuid.UUID(host))
    except ValueError:
        pass
    hosts = select(Host.id).where(Host.tenant_id == tenant_id, wanted)
    return select(JobHost.job_id).where(JobHost.host_id.in_(hosts))


def list_hosts(
    session: Session, job: Job, *, state: str = "", after: str = "", limit: int = 500
) -> list[JobHost]:
    """Return up to `limit` hosts of a job, by name."""
    query = select(JobHost).where(JobHost.job_id == job.id, JobHost.name > after).order_by(JobHost.name)
    if state:
        query = query.where(JobHost.state == state)
    return list(session.scalars(query.limit(limit)))


def cancel(session: Session, tenant_id: uuid.UUID, job_id: uuid.UUID, who: str) -> Job:
    """Cancel a job; a running one is `canceling` until all its processes ended. Raises NotFound, Conflict."""
    job = get_job(session, tenant_id, job_id, lock=True)
    if job.state in FINAL:
        raise Conflict(f"the job is {job.state} already: there is nothing to cancel")
    if job.state == "canceling":
        return job
    job.cancel_requested_at, job.canceled_by = now(), who[:150]
    if job.state == "queued" and job.attempt == 0:
        queue.finish(session, job, "canceled", f"Canceled by {who} before it began.", "canceled")
    else:
        job.state = "canceling"  # also when it waits for another attempt: the first may run on its hosts
    _touch(session, job)
    return job


def retry(session: Session, tenant_id: uuid.UUID, job_id: uuid.UUID, *, who: str, trigger: str) -> Job:
    """Queue a new job for the hosts of a final job that did not succeed. Raises NotFound, Conflict."""
    job = get_job(session, tenant_id, job_id)
    if job.state not in FINAL:
        raise Conflict(f"the job is still {job.state}: wait for its end, or cancel it first")
    if not job.timeout:
        raise Conflict("that run was not started by the controller: start a new job instead")
    rows = session.scalars(select(JobHost).where(JobHost.job_id == job.id)).all()
    failed = {row.host_id for row in rows if row.is_target and row.state in UNSUCCESSFUL}
    if not failed:
        raise Conflict("no host of that job failed: there is nothing to try again")
    left_out = {f"host:{row.host_id}" for row in rows if row.is_target and row.host_id not in failed}
    members = [
        Member(row.host_id, row.name, row.is_target)
        for row in rows
        if row.host_id and (row.host_id in failed or not row.is_target)
    ]
    if not any(member.is_target for member in members):
        raise Conflict("the hosts that failed are gone: start a new job instead")
    return enqueue(
        session,
        tenant_id,
        operation=job.operation,
        members=members,
        resources=[each for each in job.resources if each not in left_out],
        targets={"hosts": sorted(member.name for member in members if member.is_target)},
        parameters=job.parameters,
        timeout=job.timeout,
        mode=job.mode,
        trigger=trigger,
        requested_by=who,
        retry_of=job.id,
    )


def describe(job: Job) -> JobOut:
    """Return a job as it travels."""
    path = f"/api/v1/jobs/{job.id}"
    links = Links(self=path, hosts=f"{path}/hosts", log=f"{path}/log", events=f"{path}/events")
    fields = {name: getattr(job, name) for name in JobOut.model_fields if name != "links"}
    return JobOut(**fields, links=links)


def _touch(session: Session, job: Job) -> None:
    touch(session, job.tenant_id, "jobs")
    touch(session, job.tenant_id, f"job:{job.id}")
