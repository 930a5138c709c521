"""What a host's result changes, and what a hostile one cannot."""

import uuid
from typing import Any

import pytest
from saveos.accounts.models import Token
from saveos.core.errors import Invalid
from saveos.hosts.models import Host
from saveos.jobs.models import Job, JobHost
from saveos.maintenance import results
from saveos.repositories.models import Repository
from sqlalchemy import select


@pytest.fixture
def told(database: Any, tenant_id: uuid.UUID, add_host: Any) -> Any:
    """Return a function that tells a result of pending host web1 and returns the host."""
    host = add_host("web1", state="pending")

    def tell(handler: Any, result: Any, *, state: str = "running", mode: str = "run") -> Host:
        with database.session() as session:
            job = Job(tenant_id=tenant_id, operation="x", mode=mode)
            row = JobHost(name="web1", host_id=host.id, result=result, state=state, is_target=True)
            handler(session, job, row)
        with database.session() as session:
            return session.get_one(Host, host.id)

    tell.host = host  # type: ignore[attr-defined]
    return tell


IDENTITY = {
    "identity": {"public_key": "ssh-ed25519 AAAA", "token_sha256": "a" * 64, "host_keys": ["ssh-ed25519 B"]},
    "versions": {"borg": "1.4.5"},
    "os": "Debian 12",
    "init": "systemd",
}


def test_identity_is_stored_and_the_host_enrolled_when_done(told: Any, database: Any) -> None:
    host = told(results.provisioned, IDENTITY)
    assert (host.state, host.agent_public_key, host.os) == ("pending", "ssh-ed25519 AAAA", "Debian 12")
    with database.session() as session:
        assert session.scalars(select(Token.hash).where(Token.host_id == host.id)).all() == ["a" * 64]
    assert told(results.provisioned, IDENTITY, state="changed").state == "enrolled"


def test_check_mode_and_failure_enrol_nobody(told: Any) -> None:
    host = told(results.provisioned, IDENTITY, state="changed", mode="check")
    assert (host.state, host.agent_public_key) == ("pending", "")
    assert told(results.provisioned, IDENTITY, state="failed").state == "pending"


def test_host_that_was_taken_out_meanwhile_gets_no_token(told: Any, database: Any) -> None:
    with database.session() as session:
        session.get_one(Host, told.host.id).state = "decommissioned"
    assert told(results.provisioned, IDENTITY, state="changed").state == "decommissioned"
    with database.session() as session:
        assert session.scalars(select(Token).where(Token.host_id == told.host.id)).all() == []


def test_only_own_repositories_are_initialised(told: Any, database: Any, tenant_id: Any, add_host: Any) -> None:
    other = add_host("web2")
    with database.session() as session:
        mine = Repository(tenant_id=tenant_id, host_id=told.host.id, kind="local", path="/a")
        theirs = Repository(tenant_id=tenant_id, host_id=other.id, kind="local", path="/b")
        session.add_all([mine, theirs])
    claims = [{"id": str(each.id), "initialised": True, "key_exported": True} for each in (mine, theirs)]
    told(results.provisioned, {"repositories": claims})
    with database.session() as session:
        assert session.get_one(Repository, mine.id).initialised_at is not None
        assert session.get_one(Repository, theirs.id).initialised_at is None


@pytest.mark.parametrize(
    "result",
    [
        {"identity": {"token_sha256": "x"}},
        {"identity": "text"},
        {"os": "x" * 100},
        {"versions": {"a": {"b": 1}}},
        {"repositories": [{"id": "1"}]},
    ],
)
def test_odd_results_are_refused(told: Any, result: Any) -> None:
    with pytest.raises(Invalid, match="cannot be used"):
        told(results.provisioned, result)


def test_health_is_kept(told: Any) -> None:
    host = told(results.examined, {"health": {"ok": True}})
    assert host.facts["health"] == {"ok": True}
    assert host.seen_at is not None


def test_record_without_sense_is_refused(told: Any) -> None:
    with pytest.raises(Invalid):
        told(results.ran, {"run": {"run_id": "no"}})
