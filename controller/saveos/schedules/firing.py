"""Starts what is due: for each schedule one transaction, in which its next time moves on.

Any number of workers may look at once: a row is locked (PostgreSQL) or the database is (SQLite), and
whoever comes second finds the next time moved.
"""

import logging
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from saveos.alerts.service import open_alert, resolve_alert
from saveos.core.clock import now
from saveos.core.cron import next_run
from saveos.core.database import Database, write_lock
from saveos.core.errors import Problem
from saveos.jobs.models import ACTIVE, Job
from saveos.maintenance import service as maintenance
from saveos.maintenance.operations import OPERATIONS
from saveos.maintenance.schemas import Targets
from saveos.restores.models import Restore
from saveos.schedules.models import Schedule, ScheduleRun
from saveos.schedules.service import RULE, jitter, note, plan

ON_TIME = timedelta(minutes=5)  # a look this late is a busy worker; later, it was stopped
LISTED = 100  # missed times that get a row each; older ones share one
LOOK_BACK = timedelta(days=31)  # missed times before that are not counted
HISTORY = 1000  # rows kept of each schedule
KEEP_LOOKS = timedelta(days=7)  # jobs of operations that change nothing, such as health
STOPPED = "The controller was stopped."

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Due:
    """The times of a schedule that have come: `missed` ones and, when it is to run now, the last."""

    missed: list[datetime]
    last: datetime | None
    reason: str = ""  # why the last one runs late


def fire_due(database: Database, at: datetime | None = None) -> int:
    """Start every schedule whose time has come at `at` (now); return how many were handled.

    A schedule that stumbles is logged, and holds up no other one.
    """
    at = at or now()
    with database.session() as session:
        query = select(Schedule.id).where(Schedule.next_at <= at).order_by(Schedule.next_at)
        due = session.scalars(query).all()
    handled = 0
    for schedule_id in due:
        try:
            with database.session() as session:
                handled += fire(session, schedule_id, at)
        except OperationalError:
            raise
        except Exception:
            log.exception("schedule %s stumbled; it is tried again", schedule_id)
    return handled


def fire(session: Session, schedule_id: uuid.UUID, at: datetime) -> bool:
    """Handle one schedule if its time has come, and nobody else does; return whether it was handled."""
    write_lock(session)
    query = select(Schedule).where(Schedule.id == schedule_id, Schedule.next_at <= at)
    schedule = session.scalar(query.with_for_update(skip_locked=True))
    if schedule is None or schedule.due_at is None:
        return False
    due = _due(schedule, at)
    _note_missed(session, schedule, due.missed, at)
    if due.last is not None:
        _start(session, schedule, due.last, at, due.reason)
    plan(schedule, due.last or due.missed[-1])
    _forget(session, schedule, at)
    return True


def _due(schedule: Schedule, at: datetime) -> Due:
    """Sort the times that have come into missed ones and the one to run now."""
    times: list[datetime] = []
    moment = schedule.due_at
    if moment is not None and moment < at - LOOK_BACK:
        times.append(moment)
        moment = next_run(schedule.cron, at - LOOK_BACK, schedule.zone)
    while moment is not None and moment + jitter(schedule, moment) <= at:
        times.append(moment)
        moment = next_run(schedule.cron, moment, schedule.zone)
    *missed, last = times
    if at - (last + jitter(schedule, last)) <= ON_TIME:
        return Due(missed, last)
    if schedule.catch_up:
        others = f", once for {len(times)} missed times" if missed else ""
        return Due(missed, last, f"Caught up{others}: the controller was stopped.")
    return Due(times, None)


def _note_missed(session: Session, schedule: Schedule, missed: list[datetime], at: datetime) -> None:
    older, listed = missed[:-LISTED], missed[-LISTED:]
    if older:
        until = f"{older[-1]:%Y-%m-%d %H:%M} UTC"
        reason = f"The controller was stopped: {len(older)} times until {until}."
        if older[-1] - older[0] > LOOK_BACK:
            reason = f"The controller was stopped: at least {len(older)} times until {until}."
        note(session, schedule, older[0], "skipped", reason, at=at, count=len(older))
    for moment in listed:
        note(session, schedule, moment, "skipped", STOPPED, at=at)


def _start(session: Session, schedule: Schedule, due_at: datetime, at: datetime, reason: str) -> None:
    """Start the job of a time, or note why not. What cannot be started opens an alert."""
    if schedule.last_job_id and (before := session.get(Job, schedule.last_job_id)) and before.state in ACTIVE:
        why = f"The job before, {before.id}, is still {before.state}."
        note(session, schedule, due_at, "skipped", why, at=at)
        return
    cause = f"schedule:{schedule.id}"
    try:
        operation = maintenance.get_operation(schedule.operation)
        targets = Targets.model_validate(schedule.targets)
        hosts, left_out = maintenance.able(session, schedule.tenant_id, operation, targets)
        without = f"Left out: {'; '.join(left_out[:5])}." if left_out else ""
        if not hosts and _quiet(left_out):
            why = without or f"No host can run {operation.name} now."
            note(session, schedule, due_at, "skipped", why, at=at)
            resolve_alert(session, schedule.tenant_id, RULE, cause)
            return
        if not hosts:
            _fail(session, schedule, due_at, at, f"No host is left of its targets. {without}")
            return
        with session.begin_nested():
            job = maintenance.start(
                session,
                schedule.tenant_id,
                schedule.operation,
                targets,
                mode=schedule.mode,
                parameters=schedule.parameters,
                requested_by=f"schedule {schedule.name}",
                trigger="schedule",
                chosen=hosts,
            )
    except (Problem, IntegrityError) as error:
        text = error.detail if isinstance(error, Problem) else "the database refused the job"
        _fail(session, schedule, due_at, at, f"{text[:1].upper()}{text[1:]}.")
        return
    said = " ".join(filter(None, (reason, without)))
    note(session, schedule, due_at, "started", said, at=at, job=job)
    resolve_alert(session, schedule.tenant_id, RULE, cause, f"{schedule.name} started its job again.")


def _quiet(left_out: list[str]) -> bool:
    """Whether nothing to run on needs no person: an empty fleet or group, or hosts that were paused."""
    return all(" is paused" in each for each in left_out)


def _fail(session: Session, schedule: Schedule, due_at: datetime, at: datetime, reason: str) -> None:
    note(session, schedule, due_at, "failed", reason, at=at)
    summary = f"The schedule {schedule.name} could not start {schedule.operation}: {reason}"
    open_alert(session, schedule.tenant_id, RULE, f"schedule:{schedule.id}", summary)


def _forget(session: Session, schedule: Schedule, at: datetime) -> None:
    """Drop what is older than the newest rows of a schedule's history, and jobs that only looked, after a week.

    An hourly look at a large fleet would else add hundreds of thousands of rows a day.
    """
    mine = select(ScheduleRun.id).where(ScheduleRun.schedule_id == schedule.id)
    oldest = session.scalar(mine.order_by(ScheduleRun.id.desc()).offset(HISTORY - 1).limit(1))
    if oldest is not None:
        old = ScheduleRun.schedule_id == schedule.id, ScheduleRun.id < oldest
        session.execute(delete(ScheduleRun).where(*old))
    operation = OPERATIONS.get(schedule.operation)
    if operation is None or operation.exclusive:
        return
    past = (
        Job.tenant_id == schedule.tenant_id,
        Job.operation == schedule.operation,
        Job.trigger == "schedule",
        Job.finished_at < at - KEEP_LOOKS,
    )
    met = Restore.tenant_id == schedule.tenant_id, Restore.kind == "drill"  # on a sandbox
    session.execute(delete(Restore).where(*met, Restore.job_id.in_(select(Job.id).where(*past))))
    session.execute(delete(Job).where(*past))
