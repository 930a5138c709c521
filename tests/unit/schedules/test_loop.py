"""A real worker starts what is due, and runs its job to the end."""

import time
import uuid
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from saveos.core.clock import now
from saveos.schedules import service
from saveos.schedules.models import Schedule, ScheduleRun
from saveos.schedules.schemas import ScheduleIn
from sqlalchemy import select


def test_a_worker_runs_what_is_due(
    database: Any, tenant_id: uuid.UUID, add_host: Any, use_play: Any, start_worker: Any, jobs: Any
) -> None:
    add_host("web1")
    use_play("health", "name: look\nansible.builtin.command: 'true'")
    actor = SimpleNamespace(tenant_id=tenant_id, name="ann", may={"jobs:write"}.__contains__)
    asked = {"name": "s", "operation": "health", "targets": {"all": True}, "cron": "0 0 1 1 *"}
    with database.session() as session:
        schedule = service.create_schedule(session, actor, ScheduleIn.model_validate(asked))
        schedule.due_at = schedule.next_at = now() - timedelta(seconds=1)
    start_worker()
    last, deadline = None, time.monotonic() + 30
    while last is None and time.monotonic() < deadline:
        time.sleep(0.1)
        with database.session() as session:
            last = session.get_one(Schedule, schedule.id).last_job_id
    assert last, "no job was started within 30 s"
    job = jobs.wait(last, timeout=60)
    assert (job.state, job.trigger, job.requested_by, job.error) == ("succeeded", "schedule", "schedule s", "")
    with database.session() as session:
        (run,) = session.scalars(select(ScheduleRun).order_by(ScheduleRun.id).limit(1))
        assert (run.job_id, run.outcome) == (last, "started")
        (shown,) = service.describe_schedules(session, [session.get_one(Schedule, schedule.id)])
    assert shown.next_at is not None
    assert shown.next_at > run.due_at
    assert shown.last_job_state == "succeeded"
