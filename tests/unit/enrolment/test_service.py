"""What the worker does with hosts that were let in: each is provisioned once, whoever looks."""

import base64
import json
import threading

import pytest
from saveos.enrolment import service
from saveos.enrolment.door import PREFIX, Door
from saveos.enrolment.models import Registration
from saveos.enrolment.schemas import RegisterIn, TokenIn
from saveos.hosts.models import Host
from saveos.jobs.models import Job
from sqlalchemy import select


@pytest.fixture
def approved(database, tenant_id, host_key):
    """Return the ids of hosts that are approved and let the controller in."""

    def make(count):
        with database.session(writes=True) as session:
            asked = TokenIn(name="t", max_uses=count, pre_approved=True)
            _, text = service.create_token(session, tenant_id, asked, created_by="ann", place=Door("https://c"))
            packed = text.removeprefix(PREFIX)
            secret = json.loads(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))["s"]
            ids = []
            for number in range(count):
                key = host_key()
                said = RegisterIn(
                    name=f"web{number}",
                    ssh_host_keys=[key],
                    agent_public_key=key,
                    agent_token_sha256=f"{number:064x}",
                )
                row = service.register(session, secret, said, peer=f"10.0.0.{number + 1}")
                service.ready(session, row)
                ids.append(row.id)
        return ids

    return make


def test_several_workers_start_each_provisioning_once(database, approved):
    ids = approved(20)
    errors = []

    def work():
        try:
            while True:
                with database.session() as session:
                    if not service.any_to_advance(session):
                        return
                with database.session(writes=True) as session:
                    service.advance(session)
        except Exception as error:  # noqa: BLE001 - the test judges it
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    with database.session() as session:
        rows = [session.get_one(Registration, each) for each in ids]
        jobs = session.scalars(select(Job.id).where(Job.operation == "provision")).all()
    assert {row.state for row in rows} == {"provisioning"}
    assert sorted(row.job_id for row in rows) == sorted(jobs)


def test_a_worker_takes_a_registration_to_its_end(database, approved, start_worker, use_play, jobs):
    """Nothing but rows says what is to be done, so a worker that comes later does it."""
    use_play("provision", "ansible.builtin.debug: {msg: hello}")
    (identity,) = approved(1)
    with database.session() as session:
        host = session.scalars(select(Host).where(Host.name == "web0")).one()
        assert (host.address, host.state) == ("10.0.0.1", "pending")
        host.connection, host.ssh_host_keys = "local", []
    start_worker()
    ended = threading.Event()
    for _ in range(600):
        with database.session() as session:
            row = session.get_one(Registration, identity)
            if row.state in ("done", "failed"):
                break
        ended.wait(0.1)
    assert (row.state, row.reason) == ("done", "")
    assert jobs.get(row.job_id).trigger == "enrolment"


def test_a_registration_that_stumbles_does_not_stop_the_others(database, approved, monkeypatch):
    poison, sound = approved(2)
    start = service.maintenance.start

    def stumble(session, tenant_id, operation, targets, **more):
        if targets.hosts == [str(session.get_one(Registration, poison).host_id)]:
            raise RuntimeError("poison")
        return start(session, tenant_id, operation, targets, **more)

    monkeypatch.setattr(service.maintenance, "start", stumble)
    with database.session(writes=True) as session:
        assert service.advance(session) == 2
    with database.session() as session:
        assert not service.any_to_advance(session)
        bad, good = (session.get_one(Registration, each) for each in (poison, sound))
    assert (bad.state, good.state) == ("failed", "provisioning")


def test_a_provisioning_that_cannot_start_is_told(database, approved):
    (identity,) = approved(1)
    with database.session() as session:
        session.scalars(select(Host).where(Host.name == "web0")).one().state = "paused"
    with database.session(writes=True) as session:
        assert service.advance(session) == 1
    with database.session() as session:
        row = session.get_one(Registration, identity)
    assert (row.state, "is paused" in row.reason) == ("failed", True)
