"""Workers say that they are alive; one that fell silent is not counted, and forgotten a day later."""

from datetime import timedelta

from saveos.core.clock import now
from saveos.jobs import workers
from saveos.jobs.models import WorkerSeen


def say(session, name, **more):
    told = {"started_at": now(), "slots": 4, "running": 0, "swept_at": None} | more
    workers.beat(session, name, **told)
    session.flush()


def test_a_worker_is_alive_until_it_falls_silent(session):
    say(session, "one")
    say(session, "two", running=2)
    say(session, "two", running=3)
    assert [(each.name, each.running) for each in workers.alive(session)] == [("one", 0), ("two", 3)]
    session.get(WorkerSeen, "one").seen_at = now() - workers.SILENT - timedelta(seconds=1)
    session.flush()
    assert [each.name for each in workers.alive(session)] == ["two"]
    workers.leave(session, "two")
    assert workers.alive(session) == []


def test_one_that_is_gone_for_a_day_is_forgotten(session):
    say(session, "old")
    session.get(WorkerSeen, "old").seen_at = now() - timedelta(days=1, seconds=1)
    session.flush()
    say(session, "new")
    assert session.get(WorkerSeen, "old") is None
