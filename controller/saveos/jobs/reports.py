"""Runs that the controller did not start become jobs too: the callback plugin or a check-in tells of them."""

import uuid
import zlib
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, or_, select, update
from sqlalchemy.orm import Session

from saveos.checkins.models import Run
from saveos.core.clock import now
from saveos.core.database import new_id, touch
from saveos.core.errors import Invalid
from saveos.hosts.models import Host
from saveos.jobs import logs, queue
from saveos.jobs.models import Job, JobHost
from saveos.jobs.schemas import ReportedHost, ReportIn
from saveos.runner.events import MAX_TEXT, clip, note

WAIT_FOR_REPORT = timedelta(minutes=2)
ADOPTED_AT_ONCE = 50
OPERATIONS = {"site": "provision"}  # the one playbook that has another name than its operation
TRIGGERS = {"timer": "timer", "host": "hand", "playbook": "hand", "job": "api"}
STATES = {
    "succeeded": ("succeeded", "changed"),
    "warning": ("succeeded", "changed"),
    "failed": ("failed", "failed"),
    "canceled": ("canceled", "canceled"),
}


def record(session: Session, tenant_id: uuid.UUID, report: ReportIn, who: str) -> Job:
    """Make a final job of a run by hand. Raises Invalid on times that cannot be.

    Its hosts' backup and restore runs belong to it from now on; a job that was made of one of them
    alone, because the report was late, goes.
    """
    if report.finished_at < report.started_at:
        raise Invalid("the run ended before it began: look at the clock", field="finished_at")
    job = _job(
        tenant_id,
        OPERATIONS.get(report.operation, report.operation),
        mode=report.mode,
        trigger="hand",
        requested_by=(report.user or who)[:150],
        targets={"hosts": [host.name for host in report.hosts]},
        started_at=report.started_at,
        finished_at=report.finished_at,
    )
    session.add(job)
    session.flush()
    known = {
        host.name: host.id
        for host in session.scalars(
            select(Host).where(Host.tenant_id == tenant_id, Host.name.in_({each.name for each in report.hosts}))
        )
    }
    session.add_all(
        JobHost(
            job_id=job.id,
            name=host.name,
            host_id=known.get(host.name),
            state=host.state,
            counts=host.counts,
            result=host.result,
            error=(host.error or "")[:2000],
            started_at=report.started_at,
            finished_at=report.finished_at,
        )
        for host in {each.name: each for each in report.hosts}.values()
    )
    _take_runs(session, job, _run_ids(report.hosts))
    job.state = report.state
    _close(session, job)
    return job


def _run_ids(hosts: Iterable[ReportedHost]) -> list[uuid.UUID]:
    found = []
    for host in hosts:
        run = host.result.get("run")
        try:
            found.append(uuid.UUID(str(run["run_id"] if isinstance(run, dict) else "")))
        except (ValueError, KeyError):
            continue
    return found


def _take_runs(session: Session, job: Job, run_ids: list[uuid.UUID]) -> None:
    mine = and_(Run.tenant_id == job.tenant_id, Run.id.in_(run_ids), Run.trigger != "job")
    before = session.scalars(select(Run.job_id).where(mine, Run.job_id.is_not(None))).all()
    session.execute(update(Run).where(mine).values(job_id=job.id))
    # A host said which job its run belongs to, so this may be anybody's.
    own = select(Job).where(Job.id.in_(before), Job.tenant_id == job.tenant_id)
    adopted = [each.id for each in session.scalars(own) if _is_adopted(each)]
    session.execute(delete(Job).where(Job.id.in_(adopted)))


def _is_adopted(job: Job) -> bool:
    return bool(job.result.get("adopted"))


def any_loose(session: Session) -> bool:
    """Whether there is a run to adopt; a read that costs nearly nothing."""
    return session.scalar(select(Run.id).where(_loose()).limit(1)) is not None


def _loose() -> ColumnElement[bool]:
    waited = and_(Run.trigger == "playbook", Run.received_at < now() - WAIT_FOR_REPORT)
    return Run.job_id.is_(None) & or_(Run.trigger.in_(("timer", "host")), waited)


def adopt_runs(session: Session, limit: int = ADOPTED_AT_ONCE) -> int:
    """Make jobs of runs that nobody's job or report claims; return how many.

    A run that a playbook started waits two minutes for the playbook's own report. Few at once, written
    together, because check-ins wait for SQLite's lock meanwhile.
    """
    runs = session.execute(
        select(Run, Host.name).join(Host, Host.id == Run.host_id).where(_loose()).order_by(Run.id).limit(limit)
    ).all()
    for run, name in runs:
        _adopt(session, run, name)
    return len(runs)


def _adopt(session: Session, run: Run, name: str) -> None:
    state, host_state = STATES.get(run.state, ("failed", "failed"))
    job = _job(
        run.tenant_id,
        run.kind,
        id=new_id(),
        trigger=TRIGGERS.get(run.trigger, "hand"),
        requested_by=f"host {name}",
        targets={"hosts": [name]},
        result={"adopted": True},
        started_at=run.started_at,
        finished_at=run.finished_at,
        hosts_total=1,
        hosts_done=1,
        hosts_failed=int(host_state == "failed"),
        log_bytes=0,
    )
    session.add(job)
    session.add(
        JobHost(
            job_id=job.id,
            name=name,
            host_id=run.host_id,
            state=host_state,
            result={"run": {"run_id": str(run.id), "state": run.state, "results": run.results}},
            error=run.error,
            started_at=run.started_at,
            finished_at=run.finished_at,
        )
    )
    run.job_id = job.id
    job.state, job.error, job.error_type = state, run.error, run.error_code
    if run.log:
        text = clip(zlib.decompress(run.log).decode(errors="replace"), MAX_TEXT)
        logs.append(session, job, [note(text) | {"n": 1, "t": run.finished_at.timestamp(), "h": name}])
    touch(session, job.tenant_id, "jobs")


def _job(tenant_id: uuid.UUID, operation: str, **fields: Any) -> Job:
    """Return a job that was run elsewhere: without resources, and with no time limit to run it again by."""
    return Job(
        tenant_id=tenant_id,
        operation=operation,
        attempt=1,
        timeout=0,
        created_at=fields["started_at"],
        parameters={},
        **fields,
    )


def _close(session: Session, job: Job) -> None:
    queue.count_hosts(session, job)
    touch(session, job.tenant_id, "jobs")
