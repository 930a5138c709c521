"""What the controller forgets, and when: logs of jobs and runs, old jobs, deliveries, audit, what has ended."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import CursorResult, Table, and_, delete, exists, func, select, update
from sqlalchemy.orm import Session

from saveos.accounts.models import Audit, IdempotencyKey, Login
from saveos.alerts.models import Alert, Delivery
from saveos.checkins.models import Run
from saveos.core.clock import now
from saveos.core.database import Database
from saveos.core.settings import Settings
from saveos.jobs.models import Job, JobLog
from saveos.restores.models import Restore
from saveos.schedules.models import ScheduleRun

BATCH = 500  # rows of one transaction, so that nobody waits long for the database


@dataclass(frozen=True)
class Rule:
    """Rows of one kind that may go: `old` selects their keys, `forget` takes them away."""

    name: str
    what: str
    days: int
    old: Callable[[datetime], Any]
    forget: Callable[[Session, list[Any]], None]


def rules(settings: Settings) -> list[Rule]:
    """Return what is forgotten with these settings; days of 0 keep for ever."""
    final = Job.finished_at.is_not(None)
    found = [
        Rule(
            "job-logs",
            "logs of jobs",
            settings.keep_job_logs_days,
            lambda before: (
                select(JobLog.job_id, JobLog.first)
                .join(Job, Job.id == JobLog.job_id)
                .where(final, Job.finished_at < before)
            ),
            _forget_logs,
        ),
        Rule(
            "jobs",
            "jobs, but for restores",
            settings.keep_jobs_days,
            lambda before: select(Job.id).where(
                final, Job.finished_at < before, ~exists().where(Restore.job_id == Job.id)
            ),
            lambda session, keys: _forget(session, Job, keys),
        ),
        Rule(
            "run-logs",
            "logs of runs (the runs stay)",
            settings.keep_run_logs_days,
            lambda before: select(Run.id).where(Run.finished_at < before, Run.log.is_not(None)),
            lambda session, keys: _execute(session, update(Run).where(Run.id.in_(keys)).values(log=None)),
        ),
        Rule(
            "deliveries",
            "notifications that were sent or given up",
            settings.keep_alerts_days,
            lambda before: select(Delivery.id).where(
                Delivery.created_at < before, Delivery.state.in_(("delivered", "failed"))
            ),
            lambda session, keys: _forget(session, Delivery, keys),
        ),
        Rule(
            "alerts",
            "resolved alerts",
            settings.keep_alerts_days,
            lambda before: select(Alert.id).where(Alert.state == "resolved", Alert.resolved_at < before),
            lambda session, keys: _forget(session, Alert, keys),
        ),
        Rule(
            "schedule-runs",
            "what schedules did",
            settings.keep_jobs_days,
            lambda before: select(ScheduleRun.id).where(ScheduleRun.fired_at < before),
            lambda session, keys: _forget(session, ScheduleRun, keys),
        ),
        Rule(
            "audit",
            "the audit trail",
            settings.keep_audit_days,
            lambda before: select(Audit.id).where(Audit.at < before),
            lambda session, keys: _forget(session, Audit, keys),
        ),
        Rule(
            "sessions",
            "sessions that ended",
            1,
            lambda before: select(Login.id).where(Login.expires_at < before),
            lambda session, keys: _forget(session, Login, keys),
        ),
        Rule(
            "idempotency-keys",
            "Idempotency-Keys",
            7,
            lambda before: select(IdempotencyKey.id).where(IdempotencyKey.created_at < before),
            lambda session, keys: _forget(session, IdempotencyKey, keys),
        ),
    ]
    return [rule for rule in found if rule.days]


def clean(
    settings: Settings, database: Database, *, check: bool = False, stopping: Callable[[], bool] = lambda: False
) -> dict[str, int]:
    """Forget what is older than the settings keep; return how many rows of each kind, or would be (`check`)."""
    counts: dict[str, int] = {}
    for rule in rules(settings):
        before = now() - timedelta(days=rule.days)
        if check:
            with database.session() as session:
                counted = select(func.count()).select_from(rule.old(before).subquery())
                counts[rule.name] = session.scalar(counted) or 0
            continue
        counts[rule.name] = 0
        while not stopping():
            with database.session(writes=True) as session:
                keys = [tuple(row) for row in session.execute(rule.old(before).limit(BATCH))]
                if keys:
                    rule.forget(session, [key[0] for key in keys] if len(keys[0]) == 1 else keys)
            counts[rule.name] += len(keys)
            if len(keys) < BATCH:
                break
    return counts


def _forget(session: Session, model: Any, keys: list[uuid.UUID]) -> None:
    table: Table = model.__table__
    _execute(session, delete(table).where(table.c.id.in_(keys)))


def _forget_logs(session: Session, keys: list[tuple[uuid.UUID, int]]) -> None:
    jobs = {job for job, _ in keys}
    for job in jobs:
        firsts = [first for each, first in keys if each == job]
        _execute(session, delete(JobLog).where(and_(JobLog.job_id == job, JobLog.first.in_(firsts))))


def _execute(session: Session, statement: Any) -> None:
    result: CursorResult[Any] = session.execute(statement)  # type: ignore[assignment]
    result.close()
