"""Runs that the controller did not start become exactly one job each."""

import uuid
import zlib
from datetime import timedelta
from typing import Any

import pytest
from saveos.accounts.keys import make_tenant
from saveos.checkins.models import Run
from saveos.core.clock import now
from saveos.core.errors import Conflict, Invalid
from saveos.hosts.models import Host
from saveos.jobs import reports, service
from saveos.jobs.schemas import ReportIn
from sqlalchemy import select


@pytest.fixture
def told(database: Any, tenant_id: uuid.UUID) -> Any:
    """Return a function that stores a run, as a check-in does."""

    def tell(host: Any, trigger: str, *, minutes_ago: float = 0, **changes: Any) -> uuid.UUID:
        at = now() - timedelta(minutes=minutes_ago)
        fields = {
            "id": uuid.uuid4(),
            "tenant_id": tenant_id,
            "host_id": host.id,
            "kind": "backup",
            "trigger": trigger,
            "state": "succeeded",
            "started_at": at,
            "finished_at": at,
            "received_at": at,
            "log": zlib.compress(b"first\nsecond"),
        }
        with database.session() as session:
            run = Run(**(fields | changes))
            session.add(run)
        return run.id

    return tell


def adopt(database: Any) -> int:
    with database.session() as session:
        return reports.adopt_runs(session)


def report(host: Any, *run_ids: uuid.UUID, **changes: Any) -> ReportIn:
    fields = {
        "operation": "backup",
        "started_at": now(),
        "finished_at": now(),
        "state": "succeeded",
        "user": "root",
        "hosts": [
            {
                "name": host.name,
                "state": "changed",
                "counts": {"ok": 1},
                "result": {"run": {"run_id": str(run)}},
            }
            for run in run_ids
        ],
    }
    return ReportIn.model_validate(fields | changes)


def all_jobs(database: Any, tenant_id: uuid.UUID) -> list[Any]:
    with database.session() as session:
        return service.list_jobs(session, tenant_id, limit=100)


def test_runs_by_timer_and_on_the_host_become_one_job_each(
    database: Any, tenant_id: Any, add_host: Any, told: Any, jobs: Any
) -> None:
    host = add_host("web1")
    run_id = told(host, "timer")
    told(host, "host", state="failed", error="no space", error_code="disk_full")
    assert adopt(database) == 2
    assert adopt(database) == 0
    found = {job.trigger: job for job in all_jobs(database, tenant_id)}
    assert (found["timer"].state, found["timer"].operation, found["timer"].hosts_done) == (
        "succeeded",
        "backup",
        1,
    )
    assert (found["hand"].state, found["hand"].error, found["hand"].error_type) == (
        "failed",
        "no space",
        "disk_full",
    )
    assert jobs.hosts(found["timer"].id)[0].result["run"]["run_id"] == str(run_id)
    assert "second" in jobs.log(found["timer"].id)
    with database.session() as session:
        assert session.scalar(select(Run.job_id).where(Run.id == run_id)) == found["timer"].id


def test_run_by_playbook_waits_for_its_report(database: Any, add_host: Any, told: Any) -> None:
    host = add_host("web1")
    told(host, "playbook", minutes_ago=1)
    told(host, "job", minutes_ago=60, job_id=None)
    assert adopt(database) == 0
    told(host, "playbook", minutes_ago=3)
    assert adopt(database) == 1


def test_report_makes_one_job_also_when_it_is_late(
    database: Any, tenant_id: Any, add_host: Any, told: Any, jobs: Any
) -> None:
    host = add_host("web1")
    run_id = told(host, "playbook", minutes_ago=3)
    adopt(database)
    with database.session() as session:
        job_id = reports.record(session, tenant_id, report(host, run_id), "token").id
    assert [(job.id, job.trigger, job.requested_by) for job in all_jobs(database, tenant_id)] == [
        (job_id, "hand", "root")
    ]
    with database.session() as session:
        assert session.scalar(select(Run.job_id).where(Run.id == run_id)) == job_id
    assert adopt(database) == 0
    assert jobs.hosts(job_id)[0].host_id == host.id


def test_site_is_provision_and_unknown_hosts_are_kept_by_name(
    database: Any, tenant_id: Any, add_host: Any, jobs: Any
) -> None:
    told = report(add_host("web1"), operation="site", hosts=[{"name": "stranger", "state": "ok"}])
    with database.session() as session:
        job = reports.record(session, tenant_id, told, "token")
    assert job.operation == "provision"
    assert [(host.name, host.host_id) for host in jobs.hosts(job.id)] == [("stranger", None)]


def test_report_takes_no_run_of_another_tenant_or_job(
    database: Any, tenant_id: Any, add_host: Any, told: Any, enqueue: Any
) -> None:
    host = add_host("web1")
    job_id = enqueue([host], "backup")
    run_id = told(host, "job", job_id=job_id)
    with database.session() as session:
        reports.record(session, tenant_id, report(host, run_id), "token")
    with database.session() as session:
        assert session.scalar(select(Run.job_id).where(Run.id == run_id)) == job_id


def test_report_takes_away_no_job_of_another_tenant(
    database: Any, tenant_id: Any, add_host: Any, told: Any
) -> None:
    """A hostile host says that its run belongs to a job of somebody else, which was made of a run too."""
    told(add_host("web1"), "timer")
    adopt(database)
    (theirs,) = all_jobs(database, tenant_id)
    with database.session() as session:
        other = make_tenant(session, "other").id
        host = Host(tenant_id=other, name="evil", address="127.0.0.1")
        session.add(host)
    run_id = told(host, "playbook", tenant_id=other, job_id=theirs.id)
    with database.session() as session:
        reports.record(session, other, report(host, run_id), "token")
    assert [job.id for job in all_jobs(database, tenant_id)] == [theirs.id]


def test_report_with_times_that_cannot_be_is_refused(session: Any, tenant_id: Any, add_host: Any) -> None:
    told = report(add_host("web1"), finished_at=now() - timedelta(hours=1))
    with pytest.raises(Invalid, match="before it began"):
        reports.record(session, tenant_id, told, "token")


def test_run_by_hand_cannot_be_retried(database: Any, tenant_id: Any, add_host: Any) -> None:
    host = add_host("web1")
    with database.session() as session:
        job = reports.record(
            session,
            tenant_id,
            report(host, state="failed", hosts=[{"name": "web1", "state": "failed"}]),
            "token",
        )
    with pytest.raises(Conflict, match="not started by the controller"), database.session() as session:
        service.retry(session, tenant_id, job.id, who="ann", trigger="api")
