"""Verbs of schedules: make, change, delete, run now, look ahead and back. `firing` starts what is due."""

import uuid
import zlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import select
from sqlalchemy.orm import Session

from saveos.accounts.access import Actor
from saveos.alerts.service import resolve_alert
from saveos.core.clock import now
from saveos.core.cron import check_zone, next_run, next_runs, normal
from saveos.core.database import lookup, touch
from saveos.core.errors import Conflict, Invalid, NotFound
from saveos.jobs.models import Job
from saveos.maintenance import service as maintenance
from saveos.maintenance.schemas import Targets
from saveos.schedules.models import Schedule, ScheduleRun
from saveos.schedules.schemas import PreviewOut, ScheduleIn, ScheduleOut, SchedulePatch

RULE = "schedule_failed"
HEALTH, DRILLS, GUARD, CHECKS = "health hourly", "drills weekly", "guard hourly", "checks monthly"


def ensure_default(session: Session, tenant_id: uuid.UUID) -> None:
    """Give a tenant its own schedules, of all hosts, those that it lacks.

    Health and guards every hour, a drill every week, and a check with all data every month.
    Their times come from the time of their making: the first runs are nearly an hour and a week
    away, and installations do not all ask at once.
    """
    began = now() - timedelta(minutes=2)
    _ensure(session, tenant_id, HEALTH, "health", f"{began.minute} * * * *")
    _ensure(session, tenant_id, DRILLS, "drill", f"{began.minute} {began.hour} * * {began.isoweekday() % 7}")
    # After the health check, which sees what is on a server's disk, so that both tell of the same hour.
    _ensure(session, tenant_id, GUARD, "guard", f"{(began.minute + 1) % 60} * * * *")
    data = {"kind": "data"}
    _ensure(session, tenant_id, CHECKS, "check", f"{began.minute} {began.hour} {min(began.day, 28)} * *", data)


def _ensure(  # noqa: PLR0917
    session: Session,
    tenant_id: uuid.UUID,
    name: str,
    operation: str,
    cron: str,
    parameters: dict[str, Any] | None = None,
) -> None:
    own = (Schedule.tenant_id == tenant_id, Schedule.built_in, Schedule.operation == operation)
    if session.scalar(select(Schedule.id).where(*own).limit(1)):
        return
    schedule = Schedule(
        tenant_id=tenant_id,
        name=name if not _taken(session, tenant_id, name) else f"{name} (built in)",
        operation=operation,
        targets={"all": True},
        parameters=maintenance.check_request(maintenance.get_operation(operation), "run", parameters or {}),
        cron=cron,
        built_in=True,
        created_by="saveos",
    )
    session.add(schedule)
    session.flush()
    plan(schedule, now())


def list_schedules(session: Session, tenant_id: uuid.UUID, after: str | None, limit: int) -> list[Schedule]:
    """Return up to `limit` schedules by name."""
    query = select(Schedule).where(Schedule.tenant_id == tenant_id).order_by(Schedule.name).limit(limit)
    return list(session.scalars(query.where(Schedule.name > after) if after else query))


def get_schedule(session: Session, tenant_id: uuid.UUID, ref: str) -> Schedule:
    """Return a schedule by id or name. Raises NotFound."""
    schedule = lookup(session, select(Schedule).where(Schedule.tenant_id == tenant_id), Schedule, ref)
    if schedule is None:
        raise NotFound(f"there is no schedule {ref[:100]}: see GET /api/v1/schedules")
    return schedule


def create_schedule(session: Session, actor: Actor, asked: ScheduleIn) -> Schedule:
    """Make a schedule. Raises Conflict on a taken name, Invalid on what could not run, Forbidden."""
    _refuse_taken(session, actor.tenant_id, asked.name)
    schedule = drafted(session, actor, asked)
    session.add(schedule)
    session.flush()
    plan(schedule, now())
    touch(session, actor.tenant_id, "schedules")
    return schedule


def drafted(session: Session, actor: Actor, asked: ScheduleIn) -> Schedule:
    """Return the schedule that is asked for, checked and not added. Raises Invalid, Forbidden."""
    schedule = Schedule(
        tenant_id=actor.tenant_id,
        created_by=actor.name[:150],
        **asked.model_dump(exclude={"targets"}),
        targets=_stored(asked.targets),
    )
    _check(session, actor, schedule)
    return schedule


def change_schedule(session: Session, actor: Actor, schedule: Schedule, asked: SchedulePatch) -> None:
    """Change what is named in `asked`. Times that passed while it was off are not missed.

    Raises Conflict, Invalid, and Forbidden as the operation itself would.
    """
    given = asked.model_dump(exclude_unset=True, exclude_none=True, exclude={"targets"})
    if given.get("name", schedule.name) != schedule.name:
        _refuse_taken(session, schedule.tenant_id, given["name"])
    if "operation" in given and given["operation"] != schedule.operation and asked.parameters is None:
        given["parameters"] = {}  # the other operation's
    for key, value in given.items():
        setattr(schedule, key, value)
    if asked.targets is not None:
        schedule.targets = _stored(asked.targets)
    schedule.updated_at = now()
    _check(session, actor, schedule)
    if {"cron", "zone", "jitter_seconds", "enabled"} & given.keys():
        plan(schedule, now())
    session.flush()
    touch(session, schedule.tenant_id, "schedules")


def delete_schedule(session: Session, schedule: Schedule) -> None:
    """Delete a schedule and its history; its jobs stay. Raises Conflict on a built-in one."""
    if schedule.built_in:
        raise Conflict(f"{schedule.name} is SaveOS's own schedule: switch it off instead")
    resolve_alert(session, schedule.tenant_id, RULE, f"schedule:{schedule.id}", "The schedule was deleted.")
    session.delete(schedule)
    touch(session, schedule.tenant_id, "schedules")


def run_now(session: Session, actor: Actor, schedule: Schedule, *, trigger: str) -> Job:
    """Start a schedule's operation at once; its next time stays. Raises as starting the operation does."""
    maintenance.check_right(actor, maintenance.get_operation(schedule.operation), schedule.parameters)
    job = maintenance.start(
        session,
        schedule.tenant_id,
        schedule.operation,
        Targets.model_validate(schedule.targets),
        mode=schedule.mode,
        parameters=schedule.parameters,
        requested_by=actor.name,
        trigger=trigger,
    )
    at = now()
    note(session, schedule, at, "started", f"Asked for by {actor.name}.", at=at, job=job)
    return job


def note(
    session: Session,
    schedule: Schedule,
    due_at: datetime,
    outcome: str,
    reason: str = "",
    *,
    at: datetime,
    job: Job | None = None,
    count: int = 1,
) -> None:
    """Add to a schedule's history what became of a due time at `at`, and keep a started job as its last."""
    session.add(
        ScheduleRun(
            tenant_id=schedule.tenant_id,
            schedule_id=schedule.id,
            due_at=due_at,
            fired_at=at,
            job_id=job.id if job else None,
            outcome=outcome,
            reason=reason[:500],
            count=count,
        )
    )
    if job:
        schedule.last_at, schedule.last_job_id = at, job.id
    session.flush()
    touch(session, schedule.tenant_id, "schedules")


def list_runs(
    session: Session, schedule: Schedule, before: uuid.UUID | None, limit: int, outcome: str = ""
) -> list[ScheduleRun]:
    """Return up to `limit` rows of a schedule's history, newest first."""
    query = select(ScheduleRun).where(ScheduleRun.schedule_id == schedule.id)
    if before:
        query = query.where(ScheduleRun.id < before)
    if outcome:
        query = query.where(ScheduleRun.outcome == outcome)
    return list(session.scalars(query.order_by(ScheduleRun.id.desc()).limit(limit)))


def describe_schedules(session: Session, schedules: Sequence[Schedule]) -> list[ScheduleOut]:
    """Return schedules as they travel; two queries whatever their number."""
    jobs = [schedule.last_job_id for schedule in schedules if schedule.last_job_id]
    states = dict(session.execute(select(Job.id, Job.state).where(Job.id.in_(jobs))).all()) if jobs else {}
    newest = (
        select(ScheduleRun.id)
        .where(ScheduleRun.schedule_id == Schedule.id)
        .order_by(ScheduleRun.id.desc())
        .limit(1)
        .correlate(Schedule)
        .scalar_subquery()
    )
    ids = [schedule.id for schedule in schedules]
    runs = session.scalars(
        select(ScheduleRun).join(Schedule, ScheduleRun.id == newest).where(Schedule.id.in_(ids))
    )
    last = {run.schedule_id: run for run in runs}
    return [_describe(schedule, states, last.get(schedule.id)) for schedule in schedules]


def preview(cron: str, zone: str, count: int, after: datetime | None = None) -> PreviewOut:
    """Return the next times of an expression. Raises Invalid with the field."""
    try:
        expression = normal(cron)
    except ValueError as error:
        raise Invalid(str(error), field="cron") from error
    try:
        place = ZoneInfo(check_zone(zone))
    except ValueError as error:
        raise Invalid(str(error), field="zone") from error
    runs = next_runs(expression, after or now(), zone, count)
    local = [run.astimezone(place).isoformat(timespec="minutes") for run in runs]
    return PreviewOut(cron=expression, zone=zone, runs=runs, local=local)


def plan(schedule: Schedule, after: datetime) -> None:
    """Set the next time of a schedule: the first after `after`, or none while it is switched off."""
    if not schedule.enabled:
        schedule.due_at = schedule.next_at = None
        return
    schedule.due_at = next_run(schedule.cron, after, schedule.zone)
    schedule.next_at = schedule.due_at + jitter(schedule, schedule.due_at)


def jitter(schedule: Schedule, due_at: datetime) -> timedelta:
    """Return how long after a due time the schedule fires: another share each time, the same whoever asks."""
    if not schedule.jitter_seconds:
        return timedelta()
    share = zlib.crc32(f"{schedule.id}:{due_at.timestamp():.0f}".encode())
    return timedelta(seconds=share % (schedule.jitter_seconds + 1))


def _check(session: Session, actor: Actor, schedule: Schedule) -> None:
    """Refuse what could not be started now: operation, right, mode, parameters, targets."""
    try:
        operation = maintenance.get_operation(schedule.operation)
    except NotFound as error:
        raise Invalid(error.detail, field="operation") from error
    maintenance.check_right(actor, operation, schedule.parameters)
    schedule.parameters = maintenance.check_request(operation, schedule.mode, schedule.parameters)
    maintenance.check_targets(session, actor.tenant_id, Targets.model_validate(schedule.targets))


def _describe(schedule: Schedule, states: dict[uuid.UUID, str], last: ScheduleRun | None) -> ScheduleOut:
    known = Schedule.__mapper__.columns
    columns = {name: getattr(schedule, name) for name in ScheduleOut.model_fields if name in known}
    job = schedule.last_job_id
    return ScheduleOut(
        **columns,
        last_job_state=states.get(job, "") if job else "",
        last_outcome=last.outcome if last else None,
        last_reason=last.reason if last else "",
    )


def _stored(targets: Targets) -> dict[str, Any]:
    return targets.model_dump(exclude_defaults=True)


def _taken(session: Session, tenant_id: uuid.UUID, name: str) -> bool:
    query = select(Schedule.id).where(Schedule.tenant_id == tenant_id, Schedule.name == name)
    return session.scalar(query) is not None


def _refuse_taken(session: Session, tenant_id: uuid.UUID, name: str) -> None:
    if _taken(session, tenant_id, name):
        raise Conflict(f"there is a schedule {name} already: choose another name", field="name")
