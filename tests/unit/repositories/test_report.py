"""What a storage server saw, compared with what hosts claim."""

import uuid
from datetime import timedelta
from typing import Any

import pytest
from saveos.core.clock import now
from saveos.core.errors import Invalid
from saveos.hosts.models import Host
from saveos.jobs.models import Job, JobHost
from saveos.maintenance import results
from saveos.repositories.models import Repository
from saveos.repositories.report import Claim, record_claims
from saveos.repositories.service import parse_quota


class Storage:
    """A server `vault` with the repository of host `web1`."""

    def __init__(self, database: Any, tenant_id: uuid.UUID, add_host: Any) -> None:
        self.database, self.tenant_id = database, tenant_id
        self.server = add_host("vault", is_agent=False, is_storage_server=True)
        self.host = add_host("web1")
        self.id = self.add(self.host, self.server)
        self.reports = 0

    def add(self, host: Host, server: Host, **fields: Any) -> uuid.UUID:
        with self.database.session() as session:
            fields = {"quota": "500G", "initialised_at": now()} | fields
            repository = Repository(tenant_id=self.tenant_id, host_id=host.id, server_id=server.id, **fields)
            session.add(repository)
        return repository.id

    def claim(self, minutes_ago: float = 0, clock_skew: float | None = None) -> None:
        """web1 says now that it began an archive so long ago."""
        with self.database.session() as session:
            record_claims(session, [Claim(self.id, now() - timedelta(minutes=minutes_ago), clock_skew)])

    def report(
        self, *repositories: dict[str, Any], began: float = 0, of: Host | None = None, **fields: Any
    ) -> Repository:
        """The server reports; its part of the job began so many minutes from now. Returns web1's repository."""
        self.reports += 1
        told = {"at": f"report {self.reports}", "free": 25, "total": 100, "root": "/srv/saveos", "user": "borg"}
        result = {"storage": told | fields | {"repositories": list(repositories)}}
        with self.database.session() as session:
            row = JobHost(name="vault", host_id=(of or self.server).id, result=result, state="running")
            row.started_at = now() + timedelta(minutes=began)
            results.examined(session, Job(tenant_id=self.tenant_id, operation="health"), row)
        return self.repository()

    def repository(self) -> Repository:
        with self.database.session() as session:
            found: Repository = session.get_one(Repository, self.id)
            return found

    def seen(self, **fields: Any) -> dict[str, Any]:
        return {"id": str(self.id), "initialised": True, "commit_age": 60, "bytes": 400, "foreign": 0} | fields


@pytest.fixture
def storage(database: Any, tenant_id: uuid.UUID, add_host: Any) -> Storage:
    return Storage(database, tenant_id, add_host)


def test_a_report_is_kept(storage: Storage) -> None:
    found = storage.report(storage.seen())
    assert (found.size, found.quota_bytes, found.fault) == (400, 500_000_000_000, "")
    assert found.last_commit_at and abs(now() - found.last_commit_at - timedelta(seconds=60)) < timedelta(
        seconds=5
    )
    with storage.database.session() as session:
        server = session.get_one(Host, storage.server.id)
    assert server.storage_free_share == 0.25
    assert server.facts["storage"]["root"] == "/srv/saveos"
    assert "repositories" not in server.facts["storage"]


@pytest.mark.parametrize(
    ("told", "share"),
    [
        ({"free": 0}, 0.0),
        ({"inodes": 1000, "inodes_free": 20}, 0.02),
        ({"inodes": 1000, "inodes_free": 900}, 0.25),
        ({"inodes": 0}, 0.25),
        ({"free": 0, "total": 0}, None),
    ],
)
def test_a_full_file_system_is_told_by_space_or_inodes(storage: Storage, told: Any, share: float) -> None:
    storage.report(storage.seen(), **told)
    with storage.database.session() as session:
        assert session.get_one(Host, storage.server.id).storage_free_share == share


def test_a_claim_that_the_server_saw_is_no_mismatch(storage: Storage) -> None:
    storage.claim(minutes_ago=30)
    assert storage.report(storage.seen(commit_age=25 * 60), began=0.1).missing_since is None


def test_a_claim_that_the_server_never_saw_is_one_until_it_did(storage: Storage) -> None:
    storage.claim(minutes_ago=30)
    first = storage.report(storage.seen(commit_age=86_400), began=0.1).missing_since
    assert first is not None
    assert storage.report(storage.seen(commit_age=86_400), began=0.1).missing_since == first
    assert storage.report(storage.seen(commit_age=0), began=0.1).missing_since is None


def test_a_claim_that_came_while_the_server_looked_waits_for_the_next_report(storage: Storage) -> None:
    storage.claim(minutes_ago=240)  # a long backup; the server looked in its middle
    assert storage.report(storage.seen(commit_age=86_400), began=-5).missing_since is None


@pytest.mark.parametrize("hours", [2, -2])
def test_a_wrong_clock_of_the_host_is_reckoned_with(storage: Storage, hours: int) -> None:
    """The archive was begun and committed 30 minutes ago, and its host's clock is two hours off."""
    storage.claim(minutes_ago=30 - hours * 60, clock_skew=hours * 3600)
    assert storage.report(storage.seen(commit_age=29 * 60), began=0.1).missing_since is None
    assert storage.report(storage.seen(commit_age=80 * 60), began=0.1).missing_since is not None


def test_an_older_claim_does_not_hide_a_newer(storage: Storage) -> None:
    storage.claim(minutes_ago=30)
    storage.claim(minutes_ago=3000)  # from the spool, late
    assert storage.report(storage.seen(commit_age=2000 * 60), began=0.1).missing_since is not None


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (None, "gone from /srv/saveos/repositories"),
        ({"initialised": False, "commit_age": None}, "no Borg repository"),
        ({"commit_age": None}, "no committed data"),
        ({"foreign": 3}, "3 files in it do not belong to borg"),
        ({"bytes": None, "foreign": None}, ""),
    ],
)
def test_what_is_wrong_with_a_directory_is_named(
    storage: Storage, seen: dict[str, Any] | None, said: str
) -> None:
    fault = storage.report(*([storage.seen(**seen)] if seen is not None else [])).fault
    assert said in fault if said else fault == ""


def test_a_repository_that_was_never_made_is_not_missed(storage: Storage) -> None:
    with storage.database.session() as session:
        session.get_one(Repository, storage.id).initialised_at = None
    assert storage.report().fault == ""


def test_a_server_tells_only_of_what_it_holds(storage: Storage, add_host: Any) -> None:
    """Nor does a host that is no storage server."""
    other = add_host("other", is_agent=False, is_storage_server=True)
    assert storage.report(storage.seen(bytes=1), of=other).size is None
    assert storage.report(storage.seen(bytes=1), of=storage.host).size is None


def test_a_report_that_comes_again_at_the_jobs_end_changes_nothing(storage: Storage) -> None:
    first = storage.report(storage.seen(), at="12:00").last_commit_at
    assert storage.report(storage.seen(), at="12:00").last_commit_at == first


@pytest.mark.parametrize("odd", [{"free": -1}, {"total": "much"}, {"free": 2**70}])
def test_odd_reports_are_refused(storage: Storage, odd: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="cannot be used"):
        storage.report(storage.seen(), **odd)


def test_size_stays_when_there_was_no_time_to_measure(storage: Storage) -> None:
    storage.report(storage.seen())
    assert storage.report(storage.seen(bytes=None)).size == 400


@pytest.mark.parametrize(
    ("quota", "number"),
    [("", None), ("500G", 500 * 10**9), ("1.5T", 15 * 10**11), ("2048", 2048), ("999999999999T", 2**63 - 1)],
)
def test_quotas_are_read_as_borg_reads_them(quota: str, number: int | None) -> None:
    assert parse_quota(quota) == number
