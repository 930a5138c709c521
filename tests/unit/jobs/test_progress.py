"""From spool lines to rows."""

from typing import Any

import pytest
from saveos.jobs import logs, progress, queue
from saveos.jobs.models import JobHost
from saveos.runner.events import Mapper


def line(n: int, k: str, h: str = "", task: str = "", text: str = "", **rest: Any) -> dict[str, Any]:
    return {"n": n, "t": 1.5, "k": k, "h": h, "task": task, "text": text} | rest


def counts(**given: int) -> dict[str, int]:
    names = ("ok", "changed", "failed", "unreachable", "skipped", "ignored", "rescued")
    return dict.fromkeys(names, 0) | given


@pytest.fixture
def running(database: Any, enqueue: Any, add_host: Any) -> Any:
    """A claimed job on hosts a and b; a function that stores lines of its play."""
    job_id = enqueue([add_host("a"), add_host("b")])
    with database.session() as session:
        (mine,) = queue.claim(session, "w", 30, 1)

    def store(*lines: dict[str, Any], **options: Any) -> list[str]:
        with database.session() as session:
            return [row.name for row in progress.store(session, queue.held(session, mine), lines, **options)]

    store.job_id = job_id  # type: ignore[attr-defined]
    return store


def test_hosts_follow_events_and_recap(running: Any, jobs: Any) -> None:
    running({"start": "a"}, line(1, "play"), line(2, "ok", "a", "one"), line(3, "changed", "b", "one"))
    assert [host.state for host in jobs.hosts(running.job_id)] == ["running", "running"]
    told = running(
        line(4, "failed", "b", "two", "no space left"),
        line(5, "recap", stats={"a": counts(ok=1), "b": counts(ok=1, changed=1, failed=1)}),
    )
    assert told == ["b", "a"]
    a, b = jobs.hosts(running.job_id)
    assert (a.state, a.error, a.counts["ok"], a.tasks) == ("ok", "", 1, [["one", "ok"]])
    assert (b.state, b.error, b.tasks) == ("failed", "no space left", [["one", "changed"], ["two", "failed"]])
    job = jobs.get(running.job_id)
    assert (job.events, job.hosts_done, job.hosts_failed) == (5, 2, 1)


def test_what_no_database_takes_is_replaced(running: Any, jobs: Any) -> None:
    """A program's binary output: PostgreSQL refuses NUL, SQLite a lone surrogate, and JSON answers both."""
    res = {"msg": "no \x00 such", "stderr": "caf\udce9"}
    event = {"event": "runner_on_failed", "event_data": {"host": "a", "task": "one", "res": res}}
    running(*Mapper(0).lines(event))
    assert jobs.hosts(running.job_id)[0].error == "no \N{REPLACEMENT CHARACTER} such\ncaf?"
    assert "caf?" in jobs.log(running.job_id).encode().decode()


def test_rescued_failure_is_none(running: Any, jobs: Any) -> None:
    running(line(1, "failed", "a", "one", "oops"))
    assert jobs.hosts(running.job_id)[0].state == "failed"
    running(line(2, "recap", stats={"a": counts(ok=2, rescued=1)}))
    assert (jobs.hosts(running.job_id)[0].state, jobs.hosts(running.job_id)[0].error) == ("ok", "")


def test_results_merge_and_the_done_key_ends_a_host(running: Any, jobs: Any) -> None:
    running(line(1, "ok", "a", "one", r={"identity": {"x": 1}}), done_key="run")
    running(
        line(2, "changed", "a", "two", r={"identity": {"y": 2}, "run": {"state": "succeeded"}}), done_key="run"
    )
    a, b = jobs.hosts(running.job_id)
    assert a.result == {"identity": {"x": 1, "y": 2}, "run": {"state": "succeeded"}}
    assert (a.state, b.state) == ("changed", "queued")
    assert jobs.get(running.job_id).hosts_done == 1


def test_host_that_the_play_never_came_to_is_canceled(running: Any, jobs: Any) -> None:
    """A play in batches reaches all hosts first, and ends at the batch in which one fails."""
    running(
        line(1, "ok", "a", "reach"),
        line(2, "ok", "b", "reach"),
        line(3, "failed", "a", "update", "ill", r={"dependencies": {}}),
        line(4, "recap", stats={"a": counts(ok=1, failed=1), "b": counts(ok=1)}),
        done_key="dependencies",
    )
    a, b = jobs.hosts(running.job_id)
    assert (a.state, b.state, b.error) == ("failed", "canceled", progress.LEFT_ALONE)


def test_server_that_only_came_along_is_not_called_left_alone(running: Any, jobs: Any, database: Any) -> None:
    with database.session(writes=True) as session:
        session.get(JobHost, (running.job_id, "b")).is_target = False
    running(
        line(1, "ok", "b", "reach"),
        line(2, "ok", "a", "check", r={"check": {}}),
        line(3, "recap", stats={"a": counts(ok=1), "b": counts(ok=1)}),
        done_key="check",
    )
    assert [(host.state, host.error) for host in jobs.hosts(running.job_id)] == [("ok", ""), ("ok", "")]


def test_stored_lines_are_passed_over(running: Any, jobs: Any, database: Any) -> None:
    batch = [line(1, "ok", "a", "one"), line(2, "ok", "a", "two")]
    running(*batch)
    running(*batch, line(3, "ok", "a", "three"))
    with database.session() as session:
        assert [event["n"] for event in logs.read(session, running.job_id, 1, 100)] == [1, 2, 3]
    assert [task for task, _ in jobs.hosts(running.job_id)[0].tasks] == ["one", "two", "three"]


def test_hosts_that_are_not_the_jobs_are_nobody(running: Any, jobs: Any) -> None:
    running(line(1, "ok", "stranger", "one"), line(2, "recap", stats={"stranger": counts(ok=1)}))
    assert [host.name for host in jobs.hosts(running.job_id)] == ["a", "b"]


def test_stop_phase_changes_no_host(running: Any, jobs: Any) -> None:
    running(line(1, "ok", "a", "end"), line(2, "recap", stats={"a": counts(ok=1)}), hosts=False)
    assert jobs.hosts(running.job_id)[0].state == "queued"
    assert jobs.get(running.job_id).events == 2


def test_tasks_and_errors_are_bounded(running: Any, jobs: Any) -> None:
    running(*(line(n, "ok", "a", f"t{n}") for n in range(1, 400)))
    running(line(400, "failed", "b", "x", "e" * 9000))
    a, b = jobs.hosts(running.job_id)
    assert (len(a.tasks), len(b.error)) == (progress.MAX_TASKS, progress.MAX_ERROR)


def test_log_reads_any_range_over_chunks(running: Any, database: Any) -> None:
    for start in (1, 11, 21):
        running(*(line(n, "note", text=f"line {n}\nmore") for n in range(start, start + 10)))
    with database.session() as session:
        assert [e["n"] for e in logs.read(session, running.job_id, 8, 10)] == list(range(8, 18))
        assert logs.read(session, running.job_id, 31, 10) == []
        text = logs.as_text(logs.read(session, running.job_id, 30, 1))
    assert text == "00:00:01 note: line 30\n    more\n"
