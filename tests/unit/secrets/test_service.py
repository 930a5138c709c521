"""Recovery keys and escrow in the database."""

import uuid
from typing import Any

import pytest
from saveos.core import sealing
from saveos.core.errors import Conflict, Invalid, NotFound, TooMany
from saveos.jobs.models import Job, JobHost
from saveos.maintenance import results
from saveos.repositories.models import Repository
from saveos.secrets import service
from saveos.secrets.models import Escrow, RecoveryKey
from sqlalchemy import select


@pytest.fixture
def repository(database: Any, tenant_id: uuid.UUID, add_host: Any) -> Repository:
    host = add_host("web1")
    with database.session() as session:
        row = Repository(tenant_id=tenant_id, host_id=host.id, kind="local", path="/a")
        session.add(row)
    return row


def _init(database: Any, tenant_id: uuid.UUID, **how: Any) -> tuple[RecoveryKey, str]:
    public, private = sealing.new_pair()
    with database.session() as session:
        return service.init_recovery(session, tenant_id, public, **how), private


def test_one_key_at_a_time_and_the_earlier_one_is_kept(database: Any, tenant_id: uuid.UUID) -> None:
    first, _ = _init(database, tenant_id)
    with database.session() as session:
        again = service.init_recovery(session, tenant_id, first.public_key)
        assert again.id == first.id
    with pytest.raises(Conflict, match="--replace"):
        _init(database, tenant_id)
    second, _ = _init(database, tenant_id, replace=True)
    with database.session() as session:
        found = service.current_key(session, tenant_id)
        assert found
        assert found.id == second.id
        assert [key.id for key in service.retired_keys(session, tenant_id)] == [first.id]


def test_offline_holds_no_private_half(database: Any, tenant_id: uuid.UUID) -> None:
    key, _ = _init(database, tenant_id)
    assert key.private_key is None
    with database.session() as session, pytest.raises(NotFound, match="file"):
        service.private_key(session, tenant_id)


def test_managed_holds_it_sealed(database: Any, tenant_id: uuid.UUID) -> None:
    public, private = sealing.new_pair()
    with database.session() as session:
        key = service.init_recovery(session, tenant_id, public, "managed", private)
        assert key.private_key
        assert private.encode() not in key.private_key
        assert service.private_key(session, tenant_id)[1] == private


def test_halves_must_fit(database: Any, tenant_id: uuid.UUID) -> None:
    public, private = sealing.new_pair()
    with database.session() as session:
        with pytest.raises(Invalid, match="mode managed"):
            service.init_recovery(session, tenant_id, public, "offline", private)
        with pytest.raises(Invalid, match="mode managed"):
            service.init_recovery(session, tenant_id, public, "managed")
        with pytest.raises(Invalid, match="belong together"):
            service.init_recovery(session, tenant_id, public, "managed", sealing.new_pair()[1])
        with pytest.raises(Invalid, match="32 bytes"):
            service.init_recovery(session, tenant_id, "AAAA")


def test_the_newest_escrow_counts_and_older_ones_are_kept(
    database: Any, tenant_id: uuid.UUID, repository: Repository
) -> None:
    key, _ = _init(database, tenant_id)

    def store(sealed: bytes, fingerprint: str) -> Any:
        with database.session() as session:
            return service.store_escrow(
                session, tenant_id, repository.host_id, repository.id, fingerprint=fingerprint, sealed=sealed
            )

    def state() -> tuple[str, dict[str, int]]:
        with database.session() as session:
            states = service.escrow_state(session, tenant_id, [repository.id])
            return states[repository.id], service.count_escrows(session, tenant_id)

    assert state() == ("none", {"fresh": 0, "stale": 0})
    first = store(b"one", key.fingerprint)
    assert store(b"one", key.fingerprint).id == first.id
    store(b"two", key.fingerprint)
    assert state() == ("fresh", {"fresh": 1, "stale": 0})
    with database.session() as session:
        assert service.newest_escrows(session, tenant_id, [repository.id])[repository.id].sealed == b"two"
        assert len(session.scalars(select(Escrow)).all()) == 2
    assert store(b"three", "0" * 64) is None
    other, _ = _init(database, tenant_id, replace=True)
    assert state() == ("stale", {"fresh": 0, "stale": 1})
    store(b"four", other.fingerprint)
    assert state() == ("fresh", {"fresh": 1, "stale": 0})
    for number in range(3, service.A_DAY):
        last = b"rubbish %d" % number
        store(last, other.fingerprint)
    with pytest.raises(TooMany, match="within a day"):
        store(b"one too many", other.fingerprint)
    assert store(last, other.fingerprint).sealed == last, "what is there already is no new one"


def test_a_host_can_only_seal_for_its_own_repositories(
    database: Any, tenant_id: uuid.UUID, repository: Repository, add_host: Any
) -> None:
    key, _ = _init(database, tenant_id)
    other = add_host("web2")
    told = {
        "escrow": [{"repository_id": str(repository.id), "recovery_key": key.fingerprint, "sealed": "AAAA"}]
    }

    def tell(host_id: uuid.UUID, result: Any) -> list[Escrow]:
        with database.session() as session:
            row = JobHost(name="x", host_id=host_id, result=result, state="changed", is_target=True)
            results.provisioned(session, Job(tenant_id=tenant_id, operation="provision", mode="run"), row)
        with database.session() as session:
            return list(session.scalars(select(Escrow)))

    assert tell(other.id, told) == []
    (kept,) = tell(repository.host_id, told)
    assert kept.sealed == b"\x00\x00\x00"
    told["escrow"][0]["sealed"] = "not base64!"
    with pytest.raises(Invalid, match="base64"):
        tell(repository.host_id, told)
