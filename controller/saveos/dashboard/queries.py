"""Reads that only pages need: rows joined for display, and figures over the whole fleet.

Each is a fixed number of queries, whatever the number of rows shown.
"""

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Select, String, and_, case, cast, exists, false, func, or_, select, tuple_
from sqlalchemy.orm import Session, aliased

from saveos.accounts.models import Audit
from saveos.alerts.models import UNRESOLVED, Alert
from saveos.archives.models import Archive
from saveos.checkins.models import Run, RunningBackup
from saveos.checkins.service import RUNNING_FOR
from saveos.core.clock import now
from saveos.core.cron import next_run
from saveos.dashboard import words
from saveos.enrolment.models import Registration
from saveos.hosts.models import Group, Host
from saveos.hosts.service import has_drift, protection
from saveos.jobs.models import ACTIVE, Job, JobHost
from saveos.policies.models import Policy
from saveos.repositories.models import Repository
from saveos.secrets.models import Escrow
from saveos.secrets.service import current_key

HISTORY_DAYS = 14
PROBLEM_STATES = ("partial", "failed", "timed_out", "lost")
OLDER_SECONDS = 300
_older: dict[tuple[str, uuid.UUID, date], tuple[float, dict[date, dict[str, int]]]] = {}
TAGS_SECONDS = 10
_tags: dict[tuple[str, uuid.UUID], tuple[float, list[str]]] = {}
_WORST = {"none": 0, "good": 1, "warn": 2, "bad": 3}
_RUN_TONE = {"succeeded": "good", "warning": "warn", "failed": "bad"}


@dataclass(frozen=True)
class HostRow:
    """A host as lists show it; `days` are the last fourteen, oldest first."""

    host: Host
    protection: words.Shown
    days: list[str]
    next_run_at: datetime | None
    running: "Running | None" = None
    drift: bool = False


@dataclass(frozen=True)
class Running:
    """A backup or restore that goes on; `share` (0 to 1) is against the size of the last archive."""

    host_id: uuid.UUID
    host_name: str
    run: RunningBackup
    share: float | None

    @property
    def is_quiet(self) -> bool:
        """Whether nothing was heard of it for two minutes; agents tell at least once a minute."""
        return self.run.updated_at < now() - timedelta(minutes=2)


@dataclass(frozen=True)
class EscrowRow:
    """A repository and the state of its newest escrow: none, stale or fresh."""

    repository_id: uuid.UUID
    host: str
    state: str
    created_at: datetime | None


@dataclass(frozen=True)
class Act:
    """Something that happened to a host: a run, or what a person did, as the audit trail has it."""

    id: uuid.UUID
    at: datetime
    run: Run | None = None
    audit: Audit | None = None


@dataclass(frozen=True)
class JobRow:
    """A job as lists show it, with the name of its only host."""

    job: Job
    host_name: str
    is_active: bool
    seconds: float | None


@dataclass(frozen=True)
class Day:
    """What became of the backups of one day."""

    date: date
    counts: dict[str, int]

    @property
    def total(self) -> int:
        """Runs of the day."""
        return sum(self.counts.values())


def count_active(session: Session, tenant_id: uuid.UUID) -> int:
    """Return how many jobs are queued or running."""
    query = select(func.count()).where(Job.state.in_(ACTIVE), Job.tenant_id == tenant_id)
    return session.scalar(query) or 0


def count_open_alerts(session: Session, tenant_id: uuid.UUID) -> int:
    """Return how many alerts nobody has taken care of."""
    # UNRESOLVED is for the planner: the index holds only such rows
    query = select(func.count()).where(Alert.tenant_id == tenant_id, UNRESOLVED, Alert.state == "open")
    return session.scalar(query) or 0


def count_alerts(session: Session, tenant_id: uuid.UUID) -> dict[str, int]:
    """Return the number of alerts by state."""
    query = select(Alert.state, func.count()).where(Alert.tenant_id == tenant_id).group_by(Alert.state)
    return {row[0]: row[1] for row in session.execute(query)}


def host_rows(session: Session, hosts: Sequence[Host]) -> list[HostRow]:
    """Return hosts for a list, with the last days of all of them in one query."""
    at = now()
    ids = [host.id for host in hosts]
    days, running = days_of(session, ids), running_on(session, ids)
    return [
        HostRow(
            host,
            words.protections[protection(host, at)],
            days[host.id],
            next_run_of(host, at),
            running.get(host.id),
            has_drift(host),
        )
        for host in hosts
    ]


def running_on(session: Session, host_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, Running]:
    """Return what goes on at these hosts now, by host."""
    rows = _running(session, [RunningBackup.host_id.in_(host_ids)], len(host_ids))
    return {row.host_id: row for row in rows}


def running_now(session: Session, tenant_id: uuid.UUID, limit: int = 8) -> list[Running]:
    """Return the backups and restores that go on, the longest first."""
    return _running(session, [RunningBackup.tenant_id == tenant_id], limit)


def count_running(session: Session, tenant_id: uuid.UUID) -> int:
    """Return how many backups and restores go on."""
    fresh = RunningBackup.updated_at >= now() - RUNNING_FOR
    return session.scalar(select(func.count()).where(RunningBackup.tenant_id == tenant_id, fresh)) or 0


def _running(session: Session, where: list[ColumnElement[bool]], limit: int) -> list[Running]:
    query = (
        select(RunningBackup, Host.name, Host.last_size)
        .join(Host, Host.id == RunningBackup.host_id)
        .where(*where, RunningBackup.updated_at >= now() - RUNNING_FOR)
        .order_by(RunningBackup.started_at)
        .limit(limit)
    )
    return [
        Running(run.host_id, name, run, _share(run, last_size))
        for run, name, last_size in session.execute(query)
    ]


def _share(run: RunningBackup, last_size: int | None) -> float | None:
    """Return how far a backup is, supposing that it becomes as large as the last one; never quite all."""
    if run.kind != "backup" or not last_size or run.original_size is None:
        return None
    return min(run.original_size / last_size, 0.99)


def host_acts(session: Session, host: Host, before: tuple[datetime, uuid.UUID] | None, limit: int) -> list[Act]:
    """Return up to `limit` of a host's runs and of the acts on it, newest first, before a time and id."""
    runs = select(Run).where(Run.host_id == host.id)
    audit = select(Audit).where(
        Audit.tenant_id == host.tenant_id,
        Audit.object.in_((f"host:{host.name}", f"host:{host.id}", f"hosts/{host.name}", f"hosts/{host.id}")),
    )
    if before:
        at, key = before
        runs = runs.where(or_(Run.started_at < at, and_(Run.started_at == at, Run.id < key)))
        audit = audit.where(or_(Audit.at < at, and_(Audit.at == at, Audit.id < key)))
    latest = session.scalars(runs.order_by(Run.started_at.desc(), Run.id.desc()).limit(limit))
    acts = [Act(run.id, run.started_at, run=run) for run in latest]
    done = session.scalars(audit.order_by(Audit.at.desc(), Audit.id.desc()).limit(limit))
    acts += [Act(row.id, row.at, audit=row) for row in done]
    return sorted(acts, key=lambda act: (act.at, act.id), reverse=True)[:limit]


def next_run_of(host: Host, at: datetime) -> datetime | None:
    """Return when a host's own timer starts its next backup, before jitter."""
    policy: Any = host.policy
    runs = policy is not None and host.is_agent and host.state in ("pending", "enrolled")
    return _next_run(policy.schedule, policy.zone, at.replace(second=0, microsecond=0)) if runs else None


@lru_cache(maxsize=1000)
def _next_run(schedule: str, zone: str, minute: datetime) -> datetime:
    """Return a schedule's next run; a page asks the same for each of its hosts."""
    return next_run(schedule, minute, zone)


def days_of(session: Session, host_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, list[str]]:
    """Return the tones of each host's last days, oldest first; a day is as good as its worst run."""
    today = now().date()
    first = today - timedelta(days=HISTORY_DAYS - 1)
    days = {host_id: ["none"] * HISTORY_DAYS for host_id in host_ids}
    query = select(Run.host_id, Run.started_at, Run.state).where(
        Run.host_id.in_(host_ids), Run.kind == "backup", Run.started_at >= midnight(first)
    )
    for host_id, started_at, state in session.execute(query):
        place = (started_at.date() - first).days
        tone = _RUN_TONE.get(state, "none")
        if 0 <= place < HISTORY_DAYS and _WORST[tone] > _WORST[days[host_id][place]]:
            days[host_id][place] = tone
    return days


def midnight(day: date) -> datetime:
    """Return the begin of a day, UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def storage_servers(session: Session, tenant_id: uuid.UUID) -> list[str]:
    """Return the names of the storage servers, at most 500."""
    query = select(Host.name).where(
        Host.tenant_id == tenant_id, Host.is_storage_server, Host.state != "decommissioned"
    )
    return list(session.scalars(query.order_by(Host.name).limit(500)))


def groups(session: Session, tenant_id: uuid.UUID) -> list[str]:
    """Return the names of the groups, at most 500."""
    query = select(Group.name).where(Group.tenant_id == tenant_id).order_by(Group.name).limit(500)
    return list(session.scalars(query))


def hosts_by_id(session: Session, host_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, Host]:
    """Return hosts by id."""
    return {host.id: host for host in session.scalars(select(Host).where(Host.id.in_(host_ids)))}


def registrations(
    session: Session,
    tenant_id: uuid.UUID,
    *,
    token_id: uuid.UUID | None,
    state: str,
    before: uuid.UUID | None,
    limit: int,
) -> list[Registration]:
    """Return up to `limit` hosts that asked to join, newest first; of one token or state, or of all."""
    query = select(Registration).where(Registration.tenant_id == tenant_id)
    if token_id:
        query = query.where(Registration.token_id == token_id)
    if state:
        query = query.where(Registration.state == state)
    if before:
        query = query.where(Registration.id < before)
    return list(session.scalars(query.order_by(Registration.id.desc()).limit(limit)))


def count_waiting(session: Session, tenant_id: uuid.UUID) -> int:
    """Return how many hosts wait for approval."""
    query = select(func.count()).where(Registration.state == "waiting", Registration.tenant_id == tenant_id)
    return session.scalar(query) or 0


def escrows(
    session: Session, tenant_id: uuid.UUID, *, state: str, after: tuple[str, uuid.UUID] | None, limit: int
) -> list[EscrowRow]:
    """Return up to `limit` repositories by host, with the state of their escrow; of one state, or of all."""
    kind = _escrow_state(session, tenant_id)
    query = _escrows(tenant_id, Repository.id, Host.name, kind.label("kind"), Escrow.created_at)
    if state:
        query = query.where(kind == state)
    if after:
        query = query.where(tuple_(Host.name, Repository.id) > after)
    rows = session.execute(query.order_by(Host.name, Repository.id).limit(limit))
    return [EscrowRow(*row) for row in rows]


def count_escrows(session: Session, tenant_id: uuid.UUID) -> dict[str, int]:
    """Return the number of repositories by the state of their escrow."""
    kind = _escrow_state(session, tenant_id).label("kind")
    return dict(session.execute(_escrows(tenant_id, kind, func.count()).group_by(kind)).all())


def _escrow_state(session: Session, tenant_id: uuid.UUID) -> ColumnElement[str]:
    key = current_key(session, tenant_id)
    is_fresh = Escrow.recovery_key_id == key.id if key else false()
    return case((Escrow.id.is_(None), "none"), (is_fresh, "fresh"), else_="stale")


def _escrows(tenant_id: uuid.UUID, *columns: Any) -> Select[Any]:
    """Return a query over the initialised repositories of hosts in care, each with its newest escrow."""
    newer = aliased(Escrow)
    newest = ~exists().where(newer.repository_id == Escrow.repository_id, newer.id > Escrow.id)
    return (
        select(*columns)
        .select_from(Repository)
        .join(Host, Host.id == Repository.host_id)
        .outerjoin(Escrow, and_(Escrow.repository_id == Repository.id, newest))
        .where(Repository.tenant_id == tenant_id, Host.state != "decommissioned")
        .where(Repository.initialised_at.is_not(None))
    )


def policies(session: Session, tenant_id: uuid.UUID) -> list[str]:
    """Return the names of the policies, at most 500."""
    query = select(Policy.name).where(Policy.tenant_id == tenant_id).order_by(Policy.name).limit(500)
    return list(session.scalars(query))


def tags(session: Session, tenant_id: uuid.UUID) -> list[str]:
    """Return the tags of hosts, at most 500; read as their combinations, which are few, each ten seconds."""
    key = (str(session.get_bind().engine.url), tenant_id)
    kept_at, found = _tags.get(key, (0.0, []))
    if time.monotonic() - kept_at > TAGS_SECONDS or not kept_at:
        query = select(cast(Host.tags, String)).where(Host.tenant_id == tenant_id)
        texts = session.scalars(query.where(Host.state != "decommissioned").distinct())
        found = sorted({tag for text in texts for tag in json.loads(text or "[]")})[:500]
        if len(_tags) > 1000:
            _tags.clear()
        _tags[key] = (time.monotonic(), found)
    return found


def job_rows(session: Session, jobs: Sequence[Job]) -> list[JobRow]:
    """Return jobs for a list; the hosts' names of those with one host come in one query."""
    single = [job.id for job in jobs if job.hosts_total == 1]
    query = select(JobHost.job_id, JobHost.name).where(JobHost.job_id.in_(single), JobHost.is_target)
    names = {row.job_id: row.name for row in session.execute(query)} if single else {}
    return [JobRow(job, names.get(job.id, ""), job.state in ACTIVE, job_seconds(job)) for job in jobs]


def job_seconds(job: Job) -> float | None:
    """Return how long a job took or has been running."""
    if job.started_at is None:
        return None
    return ((job.finished_at or now()) - job.started_at).total_seconds()


def list_jobs_with_problems(
    session: Session, tenant_id: uuid.UUID, *, operation: str, before: uuid.UUID | None, limit: int
) -> list[Job]:
    """Return up to `limit` jobs that did not end well, newest first."""
    query = select(Job).where(Job.tenant_id == tenant_id, Job.state.in_(PROBLEM_STATES))
    if operation:
        query = query.where(Job.operation == operation)
    if before:
        query = query.where(Job.id < before)
    return list(session.scalars(query.order_by(Job.id.desc()).limit(limit)))


def archive_totals(session: Session, tenant_id: uuid.UUID) -> tuple[int, datetime | None]:
    """Return the number of archives and the time of the latest."""
    query = select(func.count(), func.max(Archive.started_at)).where(Archive.tenant_id == tenant_id)
    count, last_at = session.execute(query).one()
    return count, last_at


def stored(session: Session, tenant_id: uuid.UUID) -> tuple[int | None, int | None]:
    """Return the bytes in all repositories, and the bytes of the hosts' last archives."""
    size = session.scalar(select(func.sum(Repository.size)).where(Repository.tenant_id == tenant_id))
    original = session.scalar(
        select(func.sum(Host.last_size)).where(Host.tenant_id == tenant_id, Host.state != "decommissioned")
    )
    return size, original


def backup_days(session: Session, tenant_id: uuid.UUID, days: int = 30) -> list[Day]:
    """Return the counts of backup runs by tone for the last days, oldest first.

    Days before yesterday hardly change and are many rows, so they are counted every five minutes only.
    """
    today = now().date()
    first, fresh = today - timedelta(days=days - 1), today - timedelta(days=1)
    key = (str(session.get_bind().engine.url), tenant_id, first)
    kept_at, older = _older.get(key, (0.0, {}))
    if time.monotonic() - kept_at > OLDER_SECONDS or not kept_at:
        older = _count_days(session, tenant_id, first, fresh)
        if len(_older) > 1000:
            _older.clear()
        _older[key] = (time.monotonic(), older)
    counts = older | _count_days(session, tenant_id, fresh, today + timedelta(days=1))
    every = [first + timedelta(days=place) for place in range(days)]
    return [Day(each, counts.get(each, {})) for each in every]


def _count_days(session: Session, tenant_id: uuid.UUID, first: date, end: date) -> dict[date, dict[str, int]]:
    day = func.date(Run.started_at)
    query = (
        select(day, Run.state, func.count())
        .where(Run.tenant_id == tenant_id, Run.kind == "backup")
        .where(Run.started_at >= midnight(first), Run.started_at < midnight(end))
        .group_by(day, Run.state)
    )
    found: dict[date, dict[str, int]] = {}
    for when, state, count in session.execute(query):
        counts = found.setdefault(date.fromisoformat(str(when)), {})
        tone = _RUN_TONE.get(state, "none")
        counts[tone] = counts.get(tone, 0) + count
    return found


def job_matrix(session: Session, tenant_id: uuid.UUID) -> list[dict[str, Any]]:
    """Return per operation the jobs of the last day, week and month, and how many of them had problems."""
    at = now()
    spans = [at - timedelta(days=days) for days in (1, 7, 30)]
    bad = Job.state.in_(PROBLEM_STATES)
    columns = []
    for since in spans:
        columns += [
            func.sum(case((Job.created_at >= since, 1), else_=0)),
            func.sum(case((bad & (Job.created_at >= since), 1), else_=0)),
        ]
    query = (
        select(Job.operation, *columns)
        .where(Job.tenant_id == tenant_id, Job.id >= id_at(spans[-1]))
        .group_by(Job.operation)
    )
    rows = {row[0]: row[1:] for row in session.execute(query)}
    return [
        {
            "operation": name,
            "cells": [
                {"total": total, "failed": failed}
                for total, failed in zip(rows[name][::2], rows[name][1::2], strict=True)
            ],
        }
        for name in words.operations
        if name in rows
    ]


def last_jobs(session: Session, tenant_id: uuid.UUID, names: Sequence[str]) -> dict[str, Job]:
    """Return the newest job of each of these operations."""
    query = select(Job).where(Job.tenant_id == tenant_id).order_by(Job.id.desc()).limit(1)
    found = (session.scalar(query.where(Job.operation == name)) for name in names)
    return {job.operation: job for job in found if job}


def id_at(at: datetime) -> uuid.UUID:
    """Return the smallest UUIDv7 of a time, so that an index on ids answers questions about time."""
    return uuid.UUID(int=(int(at.timestamp() * 1000) << 80) | (0x7 << 76) | (0x2 << 62))


def archive_sizes(session: Session, host_id: uuid.UUID, limit: int = 60) -> list[tuple[datetime, int, int]]:
    """Return time, original and added bytes of a host's latest archives, oldest first."""
    query = (
        select(Archive.started_at, Archive.original_size, Archive.deduplicated_size)
        .where(Archive.host_id == host_id, Archive.original_size.is_not(None))
        .order_by(Archive.started_at.desc())
        .limit(limit)
    )
    return [(when, size or 0, added or 0) for when, size, added in reversed(session.execute(query).all())]


def host_runs(session: Session, host_id: uuid.UUID, limit: int = 8) -> list[Run]:
    """Return a host's latest runs, newest first."""
    query = select(Run).where(Run.host_id == host_id).order_by(Run.started_at.desc()).limit(limit)
    return list(session.scalars(query))


def count_archives(session: Session, host_id: uuid.UUID) -> int:
    """Return how many archives a host has."""
    return session.scalar(select(func.count()).where(Archive.host_id == host_id)) or 0


def job_archives(session: Session, job: Job) -> dict[uuid.UUID, list[Archive]]:
    """Return the archives that a job's runs made, by host. A host says which job; only the tenant's count."""
    query = (
        select(Archive)
        .join(Run, Run.id == Archive.run_id)
        .where(Run.job_id == job.id, Run.tenant_id == job.tenant_id)
        .order_by(Archive.started_at)
        .limit(1000)
    )
    found: dict[uuid.UUID, list[Archive]] = {}
    for archive in session.scalars(query):
        found.setdefault(archive.host_id, []).append(archive)
    return found


def latest_compare(session: Session, archive: Archive) -> Job | None:
    """Return the latest comparison of an archive with its host among the last 300 of all, or None."""
    query = select(Job).where(Job.tenant_id == archive.tenant_id, Job.operation == "compare")
    found = session.scalars(query.order_by(Job.id.desc()).limit(300))
    return next((job for job in found if job.parameters.get("archive") == archive.borg_id), None)


def latest_browse(session: Session, archive: Archive, path: str) -> Job | None:
    """Return the latest browse job of a directory of an archive among the last 300 of all, or None."""
    query = (
        select(Job)
        .where(Job.tenant_id == archive.tenant_id, Job.operation == "browse")
        .order_by(Job.id.desc())
        .limit(300)
    )
    wanted = (archive.name, str(archive.repository_id), path)
    keys = ("archive", "repository_id", "path")
    found = (job for job in session.scalars(query) if tuple(job.parameters.get(key) for key in keys) == wanted)
    return next(found, None)
