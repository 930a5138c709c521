"""Drills that policies ask for: due after so many days, each once, on a sandbox a job a host."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from saveos.alerts.models import Alert
from saveos.archives.models import Archive
from saveos.core.clock import now
from saveos.hosts.models import Host
from saveos.hosts.service import proof_of
from saveos.jobs.models import Job
from saveos.maintenance.results import Drilled, _keep_drill
from saveos.policies import precedence, service
from saveos.policies.models import Policy
from saveos.policies.schemas import PolicyPatch
from saveos.repositories.models import Repository
from saveos.schedules import drills
from saveos.schedules.drills import fire_drills
from sqlalchemy import select

DAY = timedelta(days=1)


class Fleet:
    """Two hosts that back up, and the policy of both."""

    def __init__(self, database: Any, tenant_id: uuid.UUID) -> None:
        self.database, self.tenant_id = database, tenant_id

    def policy(self, **fields: Any) -> None:
        with self.database.session(writes=True) as session:
            found = service.ensure_default(session, self.tenant_id)
            precedence.recompute(session, self.tenant_id)
            service.change_policy(session, found, PolicyPatch(**fields))

    def host(self, name: str = "web1") -> Host:
        with self.database.session() as session:
            found: Host = session.scalars(select(Host).where(Host.name == name)).one()
        return found

    def jobs(self) -> list[tuple[list[str], Any, Any, str]]:
        with self.database.session() as session:
            rows = session.scalars(select(Job).order_by(Job.id)).all()
            return [
                (sorted(job.targets["hosts"]), job.parameters["sandbox"], job.parameters["sample"], job.trigger)
                for job in rows
            ]

    def drilled(self, name: str = "web1", state: str = "proven") -> None:
        told = {"state": state, "at": datetime(2026, 1, 1, tzinfo=UTC), "seed": 1, "sampled": 1, "compared": 1}
        with self.database.session(writes=True) as session:
            host = session.scalars(select(Host).where(Host.name == name)).one()
            _keep_drill(session, host, Drilled.model_validate(told | {"seconds": 1, "repositories": []}))


@pytest.fixture
def fleet(database: Any, tenant_id: uuid.UUID, add_host: Any) -> Fleet:
    for name in ("web1", "web2"):
        add_host(name, state="enrolled", last_backup_at=now(), ssh_host_keys=["ssh-ed25519 AAAA"])
    return Fleet(database, tenant_id)


def test_without_a_frequency_no_policy_starts_a_drill(fleet: Fleet) -> None:
    fleet.policy(drill_sample=5)
    assert fire_drills(fleet.database, now() + 400 * DAY) == 0


def test_hosts_are_drilled_so_many_days_after_their_last_drill(fleet: Fleet) -> None:
    fleet.policy(drill_every_days=3, drill_sample=5)
    assert fire_drills(fleet.database, now()) == 1
    assert fleet.jobs() == [(["web1", "web2"], "", 5, "schedule")]
    assert fire_drills(fleet.database, now()) == 0, "asked for once"
    assert fire_drills(fleet.database, now() + DAY) == 1, "what told nothing is asked for again"
    for name in ("web1", "web2"):
        fleet.drilled(name)
    assert fire_drills(fleet.database, now() + 3 * DAY - timedelta(hours=1)) == 0
    assert fire_drills(fleet.database, now() + 3 * DAY) == 1
    fleet.drilled("web1")
    fleet.policy(drill_every_days=0)
    assert fire_drills(fleet.database, now() + 400 * DAY) == 0


def test_a_policy_whose_drills_stumble_does_not_stop_the_others(
    fleet: Fleet, tenant_id: uuid.UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.policy(drill_every_days=1)
    with fleet.database.session(writes=True) as session:
        poison = Policy(tenant_id=tenant_id, name="poison", sources=["/etc"], drill_every_days=1)
        session.add(poison)
        session.flush()
        session.scalars(select(Host).where(Host.name == "web1")).one().policy_id = poison.id
    start = drills._start

    def stumble(session: Any, policy: Policy, hosts: Any) -> int:
        if policy.name == "poison":
            raise RuntimeError("poison")
        return start(session, policy, hosts)

    monkeypatch.setattr(drills, "_start", stumble)
    assert fire_drills(fleet.database, now()) == 1
    assert [hosts for hosts, *_ in fleet.jobs()] == [["web2"]]


def test_a_host_that_was_never_backed_up_or_is_paused_is_left_alone(fleet: Fleet) -> None:
    with fleet.database.session() as session:
        first, second = session.scalars(select(Host).order_by(Host.name))
        first.last_backup_at, second.state = None, "paused"
    fleet.policy(drill_every_days=1)
    assert fire_drills(fleet.database, now()) == 0


def test_the_frequency_says_how_long_a_proof_counts(fleet: Fleet) -> None:
    fleet.policy(drill_every_days=3)
    fleet.drilled()
    assert proof_of(fleet.host(), now() + 6 * DAY - timedelta(hours=1)) == "proven"
    assert proof_of(fleet.host(), now() + 6 * DAY) == "old"
    fleet.policy(drill_every_days=30)
    assert proof_of(fleet.host(), now() + 59 * DAY) == "proven"
    fleet.policy(drill_every_days=0)
    assert proof_of(fleet.host(), now() + 15 * DAY) == "old"
    fleet.policy(drill_every_days=30)
    fleet.drilled(state="failed")
    assert fleet.host().proof_ends_at is not None
    assert proof_of(fleet.host(), now()) == "failed"


def test_on_a_sandbox_each_host_has_a_job_and_the_sandbox_is_drilled_itself(fleet: Fleet) -> None:
    with fleet.database.session() as session:
        host = session.scalars(select(Host).where(Host.name == "web1")).one()
        repository = Repository(tenant_id=fleet.tenant_id, host_id=host.id, kind="local", path="/srv/r")
        session.add(repository)
        session.flush()
        row = Archive(tenant_id=fleet.tenant_id, host_id=host.id, repository_id=repository.id)
        row.borg_id, row.name, row.started_at = "0" * 64, "web1-2026", now()
        session.add(row)
    fleet.policy(drill_every_days=7, drill_sandbox="web2")
    assert fire_drills(fleet.database, now()) == 2
    assert [each[:2] for each in fleet.jobs()] == [(["web2"], ""), (["web1"], "web2")]
    with fleet.database.session() as session:
        on_sandbox = session.scalars(select(Job).order_by(Job.id.desc())).first()
        assert on_sandbox.resources == [f"host:{fleet.host('web2').id}"], "a sandbox takes one after another"


def test_what_cannot_be_started_opens_an_alert(fleet: Fleet) -> None:
    fleet.policy(drill_every_days=7, drill_sandbox="web2")
    assert fire_drills(fleet.database, now()) == 1, "web1 has no archive to bring to its sandbox"
    with fleet.database.session() as session:
        (alert,) = session.scalars(select(Alert))
    assert alert.rule == "schedule_failed" and "web1 has no archive yet" in alert.summary
