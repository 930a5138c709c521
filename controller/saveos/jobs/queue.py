"""The queue: which job may start, by leases on everything it touches; and what becomes of lost attempts.

A lease is a right until a time by the database's clock. All of a job's leases are taken in one
transaction or none. Whoever writes for an attempt shows first that it still holds them.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from saveos.core.clock import now
from saveos.core.database import new_id, touch, write_lock
from saveos.hosts.models import Host
from saveos.jobs import logs
from saveos.jobs.models import Job, JobHost, Lease

MAX_ATTEMPTS = 3
LOOK_AT = 200  # queued jobs per query
LOOKS = 50  # queries of one look, so that jobs behind a long queue for one host are found
UNDONE = ("queued", "running")


class LeaseLost(Exception):
    """The attempt's leases are gone: somebody judged it dead, so it must not write any more."""


@dataclass(frozen=True)
class Claim:
    """A worker's right to run one attempt of a job."""

    job_id: uuid.UUID
    tenant_id: uuid.UUID
    attempt: int
    worker: str
    operation: str


def claim(session: Session, worker: str, seconds: float, limit: int) -> list[Claim]:
    """Lease up to `limit` waiting jobs, oldest first, each with all it touches or not at all.

    A job that has to wait holds back younger ones that want the same, so that it cannot starve.
    """
    write_lock(session)
    claimed: list[Claim] = []
    wanted: set[str] = set()
    after: uuid.UUID | None = None
    for _ in range(LOOKS):
        waiting = _waiting(session, after)
        for job in waiting:
            if len(claimed) == limit:
                return claimed
            resources = {*job.resources, f"job:{job.id}"}
            if resources & wanted:
                continue
            holder = _lease(session, job, sorted(resources), worker, seconds)
            if holder:
                wanted |= resources
                _block(session, job, holder)
            elif mine := _begin(session, job, worker):
                claimed.append(mine)
        if len(waiting) < LOOK_AT:
            break
        after = waiting[-1].id
    return claimed


def _waiting(session: Session, after: uuid.UUID | None) -> list[Job]:
    query = (
        select(Job)
        .where(Job.state.in_(("queued", "canceling")))
        .where(~select(Lease.job_id).where(Lease.job_id == Job.id).exists())
        .order_by(Job.id)
        .limit(LOOK_AT)
        .with_for_update(skip_locked=True)
    )
    return list(session.scalars(query.where(Job.id > after) if after else query))


def _lease(session: Session, job: Job, resources: list[str], worker: str, seconds: float) -> str:
    """Take all leases; return what is in the way, else nothing."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    expires_at = database_now(session) + timedelta(seconds=seconds)
    values = {"job_id": job.id, "attempt": job.attempt + 1, "worker": worker, "expires_at": expires_at}
    with session.begin_nested() as savepoint:
        for resource in resources:
            statement = insert(Lease).values(values | {"resource": resource, "fence": new_id()})
            if not session.execute(statement.on_conflict_do_nothing().returning(Lease.resource)).first():
                savepoint.rollback()
                return resource
    return ""


def _block(session: Session, job: Job, resource: str) -> None:
    kind, _, key = resource.partition(":")
    name = resource
    if kind == "host":
        found = select(JobHost.name).where(JobHost.job_id == job.id, JobHost.host_id == uuid.UUID(key))
        name = f"host {session.scalar(found) or key}"
    other = session.execute(
        select(Job.operation, Job.id).join(Lease, Lease.job_id == Job.id).where(Lease.resource == resource)
    ).first()
    sentence = f"{name}: {other.operation} {other.id}" if other else name
    if job.blocked_by != sentence[:200]:
        job.blocked_by = sentence[:200]
        touch(session, job.tenant_id, f"job:{job.id}")


def _begin(session: Session, job: Job, worker: str) -> Claim | None:
    """Begin an attempt of a leased job; None, and a final job, when none of its hosts is left for it."""
    if job.state == "queued" and (gone := _leave_out(session, job)):
        text = f"None of its hosts was left for it: {'; '.join(gone[:5])}."
        finish(session, job, "canceled", text, "hosts-gone")
        return None
    job.attempt += 1
    job.blocked_by = ""
    job.started_at = job.started_at or now()
    if job.state == "queued":
        job.state = "running"
    touch(session, job.tenant_id, "jobs")
    touch(session, job.tenant_id, f"job:{job.id}")
    return Claim(job.id, job.tenant_id, job.attempt, worker, job.operation)


def _leave_out(session: Session, job: Job) -> list[str]:
    """Skip the hosts that were paused or taken out since the job was queued.

    Returns why, when no target is left, else nothing.
    """
    told = {"paused": "was paused before the job began", "decommissioned": "was taken out before the job began"}
    query = select(JobHost, Host.state).join(Host, Host.id == JobHost.host_id)
    gone = []
    for row, state in session.execute(query.where(JobHost.job_id == job.id, Host.state.in_(told))):
        if not row.is_target and state == "paused":
            continue  # a storage server that only comes along: pausing stops its own backups
        row.state, row.error, row.finished_at = "skipped", f"{row.name} {told[state]}", now()
        gone.append(row.error)
    if not gone:
        return []
    count_hosts(session, job)
    left = select(JobHost.name).where(JobHost.job_id == job.id, JobHost.is_target, JobHost.state.in_(UNDONE))
    return [] if session.scalar(left.limit(1)) else gone


def database_now(session: Session) -> datetime:
    """Return the time by the clock that all workers share."""
    if session.get_bind().dialect.name == "sqlite":
        return now()  # all workers of an SQLite file are on its machine
    current: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return current


def held(session: Session, mine: Claim) -> Job:
    """Return the attempt's job, locked. Raises LeaseLost when the attempt is no longer the job's."""
    write_lock(session)
    job = session.scalar(select(Job).where(Job.id == mine.job_id).with_for_update())
    lease = select(Lease).where(
        Lease.resource == f"job:{mine.job_id}", Lease.attempt == mine.attempt, Lease.worker == mine.worker
    )
    if job is None or job.attempt != mine.attempt or session.scalar(lease) is None:
        raise LeaseLost(f"{mine.job_id} attempt {mine.attempt}")
    return job


def renew(session: Session, mine: Claim, seconds: float) -> None:
    """Extend all the attempt's leases. Raises LeaseLost."""
    write_lock(session)
    changed = session.execute(
        update(Lease)
        .where(Lease.job_id == mine.job_id, Lease.attempt == mine.attempt, Lease.worker == mine.worker)
        .values(expires_at=database_now(session) + timedelta(seconds=seconds))
    )
    if not changed.rowcount:  # type: ignore[attr-defined]
        raise LeaseLost(f"{mine.job_id} attempt {mine.attempt}")


def finish(session: Session, job: Job, state: str, error: str = "", error_type: str = "") -> None:
    """Make a job final and give its leases back; hosts that are not done are `canceled`."""
    session.execute(
        update(JobHost)
        .where(JobHost.job_id == job.id, JobHost.state.in_(UNDONE))
        .values(state="canceled", finished_at=now())
    )
    job.state, job.finished_at, job.blocked_by = state, now(), ""
    job.error, job.error_type = error[:2000], error_type
    session.execute(delete(Lease).where(Lease.job_id == job.id))
    count_hosts(session, job)
    touch(session, job.tenant_id, "jobs")
    touch(session, job.tenant_id, "hosts")
    touch(session, job.tenant_id, f"job:{job.id}")


def count_hosts(session: Session, job: Job) -> None:
    """Set the job's counts of hosts from their rows."""
    session.flush()
    states = session.scalars(select(JobHost.state).where(JobHost.job_id == job.id, JobHost.is_target)).all()
    job.hosts_total = len(states)
    job.hosts_done = sum(state not in UNDONE for state in states)
    job.hosts_failed = sum(state in ("failed", "unreachable") for state in states)


def give_up(session: Session, job: Job, why: str, *, idempotent: bool) -> None:
    """Judge an attempt that ended without a result: queue the job again, or call it lost."""
    session.execute(delete(Lease).where(Lease.job_id == job.id))
    touch(session, job.tenant_id, "jobs")
    touch(session, job.tenant_id, f"job:{job.id}")
    if job.state == "canceling":
        if job.attempt >= MAX_ATTEMPTS:
            finish(session, job, "canceled", f"Canceled, but {why}: look whether a run goes on there.", "lost")
        return  # without leases it is claimed again, to end what runs on its hosts
    if idempotent and job.attempt < MAX_ATTEMPTS:
        logs.say(session, job, f"Attempt {job.attempt} ended early: {why}. The job is queued again.")
        session.execute(
            update(JobHost)
            .where(JobHost.job_id == job.id)
            .values(state="queued", error="", started_at=None, finished_at=None, tasks=[])
        )
        job.state = "queued"
        count_hosts(session, job)
        return
    again = "It was tried three times" if idempotent else "It is not repeated by itself"
    text = f"{why.capitalize()}. {again}, and what it began may go on at its hosts: look there, then retry it."
    finish(session, job, "lost", text, "worker-lost")
    logs.say(session, job, job.error)


def reap(
    session: Session,
    is_idempotent: Callable[[str], bool],
    salvage: Callable[[Session, Job], None] = lambda _session, _job: None,
) -> list[uuid.UUID]:
    """Judge every job whose leases ended, after `salvage` stored what is left of it; return their ids."""
    expired = select(Lease.job_id).where(Lease.expires_at < database_now(session)).distinct()
    if not session.scalars(expired.limit(1)).first():
        return []  # the usual case writes nothing
    write_lock(session)
    jobs = session.scalars(select(Job).where(Job.id.in_(expired)).with_for_update(skip_locked=True)).all()
    for job in jobs:
        salvage(session, job)
        give_up(session, job, "its worker was gone", idempotent=is_idempotent(job.operation))
    return [job.id for job in jobs]


def waiting(session: Session) -> bool:
    """Whether some job might be claimed; a read that costs nearly nothing."""
    return bool(
        session.execute(text("SELECT 1 FROM jobs WHERE state IN ('queued', 'canceling') LIMIT 1")).first()
    )
