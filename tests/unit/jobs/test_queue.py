"""Leases: all or nothing, fenced, judged by the database's clock."""

import threading
import uuid
from datetime import timedelta
from typing import Any

import pytest
from saveos.hosts.models import Host
from saveos.jobs import queue
from saveos.jobs.models import Job, Lease
from saveos.jobs.queue import Claim, LeaseLost
from sqlalchemy import select, update


def claim(database: Any, worker: str = "w1", limit: int = 10, seconds: float = 30) -> list[Claim]:
    with database.session() as session:
        return queue.claim(session, worker, seconds, limit)


def expire(database: Any) -> None:
    with database.session() as session:
        session.execute(update(Lease).values(expires_at=queue.database_now(session) - timedelta(seconds=1)))


def reap(database: Any, *, idempotent: bool) -> list[uuid.UUID]:
    with database.session() as session:
        return queue.reap(session, lambda _: idempotent)


def leases(database: Any) -> list[tuple[str, uuid.UUID]]:
    with database.session() as session:
        return [(lease.resource, lease.fence) for lease in session.scalars(select(Lease))]


def test_leases_are_all_or_nothing(database: Any, enqueue: Any, add_host: Any, jobs: Any) -> None:
    one, two, three = (add_host(name) for name in ("a", "b", "c"))
    first, second = enqueue([two]), enqueue([one, two, three])
    assert [each.job_id for each in claim(database)] == [first]
    assert {resource for resource, _ in leases(database)} == {f"host:{two.id}", f"job:{first}"}
    assert jobs.get(second).blocked_by == f"host b: health {first}"


def test_oldest_first_and_no_overtaking_on_the_same_host(database: Any, enqueue: Any, add_host: Any) -> None:
    one, two = add_host("a"), add_host("b")
    first, _, third, fourth = enqueue([one]), enqueue([one, two]), enqueue([two]), enqueue([add_host("c")])
    assert [each.job_id for each in claim(database)] == [first, fourth]
    assert third not in [each.job_id for each in claim(database)]


def test_limit(database: Any, enqueue: Any, add_host: Any) -> None:
    made = [enqueue([add_host(f"h{number}")]) for number in range(3)]
    assert [each.job_id for each in claim(database, limit=2)] == made[:2]


def test_many_workers_never_share_a_job(database: Any, enqueue: Any, add_host: Any) -> None:
    hosts = [add_host(f"h{number}") for number in range(6)]
    made = {enqueue([hosts[number % 6]]) for number in range(12)}
    claimed: list[Claim] = []

    def work(name: str) -> None:
        for _ in range(4):
            claimed.extend(claim(database, name, limit=2))

    threads = [threading.Thread(target=work, args=(f"w{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = [each.job_id for each in claimed]
    assert len(ids) == len(set(ids)) <= 6
    assert set(ids) <= made


def test_an_attempt_whose_lease_ended_writes_no_more(
    database: Any, enqueue: Any, add_host: Any, jobs: Any
) -> None:
    job_id = enqueue([add_host("a")])
    (old,) = claim(database, "w1")
    before = dict(leases(database))
    expire(database)
    assert reap(database, idempotent=True) == [job_id]
    assert (jobs.get(job_id).state, jobs.get(job_id).attempt) == ("queued", 1)
    (new,) = claim(database, "w2")
    assert new.attempt == 2
    assert all(fence > before[resource] for resource, fence in leases(database))
    for act in (queue.held, lambda session, mine: queue.renew(session, mine, 30)):
        with pytest.raises(LeaseLost), database.session() as session:
            act(session, old)
    with database.session() as session:
        assert queue.held(session, new).id == job_id


def test_three_attempts_then_lost(database: Any, enqueue: Any, add_host: Any, jobs: Any) -> None:
    job_id = enqueue([add_host("a")])
    for _ in range(3):
        claim(database)
        expire(database)
        reap(database, idempotent=True)
    job = jobs.get(job_id)
    assert (job.state, job.attempt, job.error_type) == ("lost", 3, "worker-lost")
    assert "three times" in job.error
    assert leases(database) == []


def test_what_is_not_idempotent_is_lost_at_once(database: Any, enqueue: Any, add_host: Any, jobs: Any) -> None:
    job_id = enqueue([add_host("a")], "restore")
    claim(database)
    expire(database)
    reap(database, idempotent=False)
    assert jobs.get(job_id).state == "lost"
    assert "may go on at its hosts" in jobs.get(job_id).error
    assert [host.state for host in jobs.hosts(job_id)] == ["canceled"]


def test_renewed_lease_is_not_reaped(database: Any, enqueue: Any, add_host: Any) -> None:
    enqueue([add_host("a")])
    (mine,) = claim(database)
    expire(database)
    with database.session() as session:
        queue.renew(session, mine, 30)
    assert reap(database, idempotent=True) == []


def test_canceling_job_without_worker_is_claimed_to_be_stopped(
    database: Any, enqueue: Any, add_host: Any, jobs: Any
) -> None:
    job_id = enqueue([add_host("a")])
    claim(database)
    jobs.cancel(job_id)
    assert claim(database) == [], "its worker still holds it"
    expire(database)
    reap(database, idempotent=True)
    (again,) = claim(database)
    assert (again.job_id, again.attempt) == (job_id, 2)
    assert jobs.get(job_id).state == "canceling"


def test_finish_counts_hosts_and_gives_leases_back(
    database: Any, enqueue: Any, add_host: Any, jobs: Any
) -> None:
    job_id = enqueue([add_host("a"), add_host("b")])
    (mine,) = claim(database)
    with database.session() as session:
        queue.finish(session, queue.held(session, mine), "failed", "x" * 5000, "play-failed")
    job = jobs.get(job_id)
    assert (job.state, job.hosts_total, job.hosts_done, len(job.error)) == ("failed", 2, 2, 2000)
    assert leases(database) == []


def test_waiting(database: Any, enqueue: Any, add_host: Any) -> None:
    with database.session() as session:
        assert queue.waiting(session) is False
    enqueue([add_host("a")])
    with database.session() as session:
        assert queue.waiting(session) is True
        assert session.scalar(select(Job.state)) == "queued"


def test_jobs_behind_a_long_queue_for_one_host_are_found(
    database: Any, enqueue: Any, add_host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "LOOK_AT", 3)
    busy, free = add_host("busy"), add_host("free")
    first = enqueue([busy])
    for _ in range(7):
        enqueue([busy])
    last = enqueue([free])
    assert [each.job_id for each in claim(database)] == [first, last]


def set_state(database: Any, host: Any, state: str) -> None:
    with database.session() as session:
        session.get_one(Host, host.id).state = state


def test_a_host_that_was_paused_or_taken_out_meanwhile_is_skipped(
    database: Any, enqueue: Any, add_host: Any, jobs: Any
) -> None:
    one, two, three = (add_host(name) for name in ("a", "b", "c"))
    job_id = enqueue([one, two, three])
    set_state(database, one, "paused")
    set_state(database, three, "decommissioned")
    assert [each.job_id for each in claim(database)] == [job_id]
    states = {row.name: (row.state, row.error) for row in jobs.hosts(job_id)}
    assert states == {
        "a": ("skipped", "a was paused before the job began"),
        "b": ("queued", ""),
        "c": ("skipped", "c was taken out before the job began"),
    }
    assert (jobs.get(job_id).hosts_done, jobs.get(job_id).state) == (2, "running")


def test_a_job_without_any_host_left_is_canceled_with_the_reason(
    database: Any, enqueue: Any, add_host: Any, jobs: Any
) -> None:
    host = add_host("a")
    job_id = enqueue([host])
    set_state(database, host, "paused")
    assert claim(database) == []
    job = jobs.get(job_id)
    assert (job.state, job.error_type, leases(database)) == ("canceled", "hosts-gone", [])
    assert job.error == "None of its hosts was left for it: a was paused before the job began."
