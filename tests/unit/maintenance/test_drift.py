"""Drift: stored once, since when, gone after provisioning, alerted; and the command's Markdown."""

import uuid
from datetime import timedelta
from typing import Any

import pytest
from saveos.alerts import rules
from saveos.cli.drift import report
from saveos.core.clock import now
from saveos.hosts.models import Host
from saveos.hosts.service import count_hosts
from saveos.jobs.models import Job, JobHost
from saveos.maintenance import drift, results
from saveos.maintenance import rules as maintenance_rules
from saveos.maintenance.models import Finding, HostDrift
from saveos.policies import service as policies
from saveos.policies.schemas import PolicyIn, PolicyPatch
from sqlalchemy import select

FENCE = "`" * 3


@pytest.fixture
def look(database: Any, tenant_id: uuid.UUID, add_host: Any) -> Any:
    """Return a function that tells what a look at web1 found: {path: diff}."""
    host = add_host("web1")

    def look(**found: str) -> None:
        with database.session() as session:
            job = Job(tenant_id=tenant_id, operation="drift", mode="run")
            session.add(job)
            session.flush()
            told = [
                {"id": "differs", "severity": "warning", "subject": path, "title": f"{path} differs."}
                for path in found
            ]
            result = {"drift": {"schema": 1, "findings": told, "diff": "".join(found.values())}}
            row = JobHost(
                job_id=job.id, name="web1", host_id=host.id, result=result, state="ok", is_target=True
            )
            drift.told(session, job, row)

    look.host = host  # type: ignore[attr-defined]
    return look


def told(database: Any) -> drift.DriftOut:
    with database.session() as session:
        return drift.describe(session, session.scalars(select(Host).where(Host.name == "web1")).one())


def test_drift_is_known_since_it_was_first_seen(look: Any, database: Any, tenant_id: uuid.UUID) -> None:
    assert told(database).state == "unknown"
    look()
    assert (told(database).state, told(database).since) == ("clean", None)
    look(a="-x\n+y\n")
    first = told(database)
    assert (first.state, first.changes, first.diff) == ("drifted", 1, "-x\n+y\n")
    look(a="-x\n+y\n", b="+z\n")
    again = told(database)
    assert (again.since, again.changes) == (first.since, 2)
    with database.session() as session:
        assert [each.host for each in drift.list_drift(session, tenant_id, after=None, limit=9)] == ["web1"]
        assert drift.list_drift(session, uuid.uuid4(), after=None, limit=9) == []
        assert count_hosts(session, tenant_id, drift="true") == 1
    look()
    assert (told(database).state, told(database).diff) == ("clean", "")
    with database.session() as session:
        assert count_hosts(session, tenant_id, drift="true") == 0
        assert session.scalars(select(HostDrift)).all() == []


def test_provisioning_converges(look: Any, database: Any) -> None:
    look(a="-x\n+y\n")
    with database.session() as session:
        host = session.scalars(select(Host).where(Host.name == "web1")).one()
        job = Job(tenant_id=host.tenant_id, operation="provision", mode="run")
        row = JobHost(
            job_id=uuid.uuid4(), name="web1", host_id=host.id, result={}, state="changed", is_target=True
        )
        results.provisioned(session, job, row)
    assert told(database).state == "clean"
    with database.session() as session:
        assert [row.resolved_at is not None for row in session.scalars(select(Finding))] == [True]


def test_a_host_that_drifted_is_an_alert(look: Any, database: Any) -> None:
    look(a="-x\n+y\n")
    family = next(each for each in rules.FAMILIES if each.rules == ("drifted",))
    with database.session() as session:
        session.scalars(select(Host).where(Host.name == "web1")).one().state = "enrolled"
        session.flush()
        facts = session.execute(family.judged(now())).one()
    assert facts.rule == "drifted"
    assert "saveos maintenance drift web1 --last" in rules.RULES["drifted"].sentence(facts)


def test_a_policy_that_never_reaches_its_host_is_an_alert(database: Any, add_host: Any, tenant_id: Any) -> None:
    family = next(each for each in maintenance_rules.FAMILIES if each.rules == ("policy_waits",))

    def judged(days: float) -> Any:
        return session.execute(family.judged(now() + timedelta(days=days))).one()

    with database.session() as session:
        host = session.get_one(Host, add_host("web1").id)
        policy = policies.create_policy(session, tenant_id, PolicyIn(name="web", sources=["/etc"]))
        policies.assign(session, host, policy)
        host.applied_version_id = policy.current_version_id
        policies.change_policy(session, policy, PolicyPatch(sources=["/etc", "/srv"]))
        assert judged(2).rule is None, "no backup was made without the change yet"
        host.last_backup_at = now() + timedelta(hours=20)
        session.flush()
        assert judged(0.9).rule is None, "a day to provision it"
        facts = judged(1.1)
        assert facts.rule == "policy_waits"
        assert "web1 backs up without what changed in the policy web" in rules.RULES[facts.rule].sentence(facts)
        host.applied_version_id = policy.current_version_id
        session.flush()
        assert judged(2).rule is None


def test_markdown_holds_any_diff() -> None:
    found = [{"host": "web1", "changes": 1, "since": "2026-01-01", "diff": f"+{FENCE}\n+a\n"}]
    text = report(found, [{"name": "web2", "state": "unreachable", "error": "no\nroute"}], 3)
    assert "1 of 3 hosts differ" in text
    assert f"{FENCE}`diff\n+{FENCE}\n+a\n{FENCE}`" in text
    assert "- web2: no route" in text
