"""Health of hosts and storage servers becomes a record with findings, also where an older agent tells it."""

import uuid
from typing import Any

import pytest
from saveos.core.errors import Invalid
from saveos.hosts.models import Host
from saveos.jobs.models import Job, JobHost
from saveos.maintenance import health, rules
from saveos.maintenance.models import Finding, MaintenanceLatest, MaintenanceResult
from sqlalchemy import select

OFF = {"severity": "critical", "code": "timer_off", "message": "It is off.", "fix": "Provision."}
REPORT = {
    "state": "critical",
    "summary": {"load_per_cpu": 0.1, "borg_version": "1.4.5"},
    "findings": [OFF | {"id": "timer-off", "subject": "x.timer", "title": "It is off.", "fixable": False}],
}
STORAGE = {
    "at": "2026-01-01T00:00:00Z",
    "root": "/srv/saveos",
    "user": "saveos-borg",
    "free": 4,
    "total": 100,
    "repositories": [],
}


@pytest.fixture
def told(database: Any, tenant_id: uuid.UUID, add_host: Any) -> Any:
    """Return a function that takes over a health result and returns its only record and what is open."""

    def tell(result: dict[str, Any], **more: Any) -> tuple[MaintenanceResult, list[Finding], Host]:
        host = add_host("web1", **more)
        with database.session() as session:
            job = Job(tenant_id=tenant_id, operation="health", mode="run")
            session.add(job)
            session.flush()
            row = JobHost(job_id=job.id, name="web1", host_id=host.id, result=result, state="ok")
            health.examined(session, job, row)
            health.examined(session, job, row)  # at the end of a job every result comes a second time
        with database.session() as session:
            found = session.scalars(select(Finding).order_by(Finding.kind)).all()
            return session.scalars(select(MaintenanceResult)).one(), list(found), session.get_one(Host, host.id)

    return tell


def test_a_report_is_a_record_and_stays_the_hosts_fact(told: Any, database: Any) -> None:
    record, (finding,), host = told({"health": REPORT})
    assert (record.operation, record.state, record.summary["borg_version"]) == ("health", "critical", "1.4.5")
    assert (finding.kind, finding.subject, finding.severity) == ("timer-off", "x.timer", "critical")
    assert host.facts["health"] == REPORT
    with database.session() as session:  # no other rule tells that a timer is off
        assert session.scalars(select(MaintenanceLatest)).one().critical == 1
        family = rules.FAMILIES[0]
        rows = session.execute(family.judged(host.created_at)).all()
        assert [row.rule for row in rows] == ["finding"]


def test_an_older_agents_findings_are_understood(told: Any) -> None:
    _, (finding,), _ = told({"health": {"state": "critical", "findings": [OFF, "odd"][:1]}})
    assert (finding.kind, finding.title, finding.fix) == ("timer-off", "It is off.", "Provision.")


def test_a_servers_disk_and_repositories_are_found_too(told: Any) -> None:
    store = {"id": "0198c5f0-0000-7000-8000-000000000001", "initialised": True, "foreign": 2}
    result = {"health": REPORT, "storage": STORAGE | {"repositories": [store]}}
    record, findings, _ = told(result, is_storage_server=True)
    assert [each.kind for each in findings] == ["repository-foreign", "storage-disk-full", "timer-off"]
    assert (record.summary["storage_free_percent"], record.summary["repositories"]) == (4, 1)


def test_a_mere_host_cannot_tell_of_a_store(told: Any) -> None:
    record, findings, _ = told({"health": REPORT, "storage": STORAGE})
    assert [each.kind for each in findings] == ["timer-off"]
    assert "storage_free_percent" not in record.summary


@pytest.mark.parametrize("bad", [{"findings": [{"id": "A B"}]}, {"summary": {"x": "y" * 30_000}}])
def test_a_hostile_report_is_refused(told: Any, bad: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        told({"health": REPORT | bad})
