"""What a drill's result changes of a host, and which alert follows."""

import uuid
from datetime import timedelta
from typing import Any

import pytest
from saveos.alerts.models import Alert
from saveos.alerts.sweep import sweep
from saveos.core.clock import now
from saveos.core.errors import Invalid
from saveos.hosts.models import Host
from saveos.hosts.service import count_hosts, proof_of
from saveos.jobs.models import Job, JobHost
from saveos.maintenance import results
from sqlalchemy import select

REPOSITORY = {"repository_id": "r1", "archive": "web1-2026", "archive_at": "2026-01-01T00:00:00Z"}


def drill(state: str = "proven", **repository: Any) -> dict[str, Any]:
    told = {"state": state, "at": "2026-01-02T00:00:00Z", "seed": 7, "sampled": 20, "compared": 18}
    return {
        "drill": {**told, "seconds": 4.5, "repositories": [{**REPOSITORY, "canary": "proven", **repository}]}
    }


FAILED = drill(
    "failed",
    failed=[{"path": "/srv/ledger", "reason": "Data integrity error"}],
    databases=[
        {"kind": "postgresql", "name": "shop", "state": "failed", "error": "the dump ends in the middle"}
    ],
)


class Drilled:
    def __init__(self, database: Any, tenant_id: uuid.UUID, host: Host) -> None:
        self.database, self.tenant_id, self.host = database, tenant_id, host

    def tell(self, result: Any, *, mode: str = "run") -> Host:
        with self.database.session() as session:
            job = Job(tenant_id=self.tenant_id, operation="drill", mode=mode, parameters={})
            row = JobHost(name="web1", host_id=self.host.id, result=result, state="ok", is_target=True)
            results.drilled(session, job, row)
        return self.now()

    def now(self, **facts: Any) -> Host:
        with self.database.session() as session:
            host: Host = session.get_one(Host, self.host.id)
            for name, value in facts.items():
                setattr(host, name, value)
        return host

    def alerts(self) -> list[tuple[str, str]]:
        with self.database.session() as session:
            sweep(session)
        with self.database.session() as session:
            rows = session.scalars(select(Alert).where(Alert.state == "open"))
            return [(row.rule, row.summary) for row in rows if row.rule in ("drill_failed", "not_proven")]

    def listed(self, proof: str) -> int:
        with self.database.session() as session:
            return count_hosts(session, self.tenant_id, proof=proof)


@pytest.fixture
def web1(database: Any, tenant_id: uuid.UUID, add_host: Any) -> Drilled:
    return Drilled(database, tenant_id, add_host("web1", state="enrolled", last_backup_at=now()))


def test_a_drill_proves_its_host(web1: Drilled) -> None:
    assert proof_of(web1.now(), now()) == "never"
    host = web1.tell(drill())
    assert (host.last_drill_state, host.drill_error, proof_of(host, now())) == ("proven", "", "proven")
    assert host.last_proven_at == host.last_drill_at
    assert host.facts["drill"]["sampled"] == 20
    assert (web1.listed("proven"), web1.listed("never")) == (1, 0)


def test_the_same_result_again_changes_nothing(web1: Drilled) -> None:
    first = web1.tell(drill()).last_drill_at
    assert web1.tell(drill()).last_drill_at == first


def test_a_failed_drill_names_what_failed_and_proves_nothing(web1: Drilled) -> None:
    before = web1.tell(drill()).last_proven_at
    host = web1.tell(FAILED)
    assert (host.last_proven_at, host.last_drill_state, proof_of(host, now())) == (before, "failed", "failed")
    ((rule, summary),) = web1.alerts()
    assert rule == "drill_failed"
    assert "/srv/ledger: Data integrity error" in summary
    assert "postgresql shop: the dump ends in the middle" in summary
    web1.tell(drill("partial", seed=8))
    assert web1.alerts() == []


def test_a_host_that_is_not_proven_for_two_weeks_raises_an_alert(web1: Drilled) -> None:
    web1.now(created_at=now() - timedelta(days=15))
    ((rule, summary),) = web1.alerts()
    assert (rule, "never was proven" in summary) == ("not_proven", True)
    web1.tell(drill())
    assert web1.alerts() == []
    host = web1.now(last_proven_at=now() - timedelta(days=15))
    assert (proof_of(host, now()), web1.listed("old")) == ("old", 1)
    assert [rule for rule, _ in web1.alerts()] == ["not_proven"]


def test_a_host_without_backups_is_not_told_of_twice(web1: Drilled) -> None:
    web1.now(created_at=now() - timedelta(days=15), last_backup_at=None)
    assert web1.alerts() == []


def test_a_check_and_nonsense_change_nothing(web1: Drilled) -> None:
    assert web1.tell(drill(), mode="check").last_drill_state == ""
    assert web1.tell({"drill": "yes"}).last_drill_state == ""
    with pytest.raises(Invalid, match="state"):
        web1.tell(drill("wonderful"))


def test_a_drill_on_a_sandbox_that_names_no_repository_is_refused(web1: Drilled) -> None:
    received = {"receive": {"files": 1, "bytes": 1, "digest": "0" * 64}}
    told = {"drill": {**drill()["drill"], "repositories": []}}
    with web1.database.session() as session, pytest.raises(Invalid, match="at least one"):
        parameters = {"transfer": "t", "source": "web1", "sandbox": "box"}
        job = Job(tenant_id=web1.tenant_id, operation="drill", mode="run", parameters=parameters)
        session.add(job)
        session.flush()
        own = JobHost(job_id=job.id, name="web1", host_id=web1.host.id, result=told, state="ok")
        session.add_all((own, JobHost(job_id=job.id, name="box", result=received, state="ok")))
        session.flush()
        results.drilled(session, job, own)
