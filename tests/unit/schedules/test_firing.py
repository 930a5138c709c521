"""Schedules on a simulated clock: both changes of the clocks, a stopped controller, several workers.

What was due is reckoned here by walking every minute of the zone's own clock, without the library.
"""

import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from saveos.alerts.models import Alert
from saveos.core.errors import Conflict, Forbidden, Invalid
from saveos.hosts.models import Host
from saveos.jobs.models import Job
from saveos.maintenance.schemas import Targets
from saveos.schedules import firing, service
from saveos.schedules.firing import fire_due
from saveos.schedules.models import Schedule, ScheduleRun
from saveos.schedules.schemas import ScheduleIn, SchedulePatch
from sqlalchemy import select, update

TICK = timedelta(minutes=1)


@pytest.fixture
def actor(tenant_id: uuid.UUID) -> Any:
    rights = {"jobs:write", "restores:write", "schedules:write"}
    return SimpleNamespace(tenant_id=tenant_id, name="ann", may=rights.__contains__)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The simulated time; schedules see no other."""
    clock = SimpleNamespace(at=datetime(2026, 1, 1, tzinfo=UTC))
    for module in (service, firing):
        monkeypatch.setattr(module, "now", lambda: clock.at)
    return clock


@pytest.fixture
def make(database: Any, actor: Any) -> Any:
    """Return a function that makes a schedule of a health check on all hosts."""

    def make(cron: str, **fields: Any) -> uuid.UUID:
        asked = {"name": "s", "operation": "health", "targets": Targets(all=True), "cron": cron} | fields
        with database.session() as session:
            return service.create_schedule(session, actor, ScheduleIn.model_validate(asked)).id

    return make


def history(database: Any) -> list[ScheduleRun]:
    with database.session() as session:
        return list(session.scalars(select(ScheduleRun).order_by(ScheduleRun.id)))


def finish_jobs(database: Any) -> None:
    """Let every job be over, as if a worker ran it between two ticks."""
    with database.session() as session:
        session.execute(update(Job).values(state="succeeded"))


def run(database: Any, clock: Any, until: datetime) -> None:
    """Let the clock go on, minute by minute where something is due; the worker looks at each."""
    while clock.at < until:
        with database.session() as session:
            due = session.scalar(select(Schedule.next_at).order_by(Schedule.next_at).limit(1))
        clock.at = min(until, max(clock.at + TICK, due or until))
        fire_due(database, clock.at)
        finish_jobs(database)


def wall_times(zone: str, start: datetime, end: datetime) -> Iterator[datetime]:
    """Yield each minute that the zone's clock shows between two local times, ones that do not exist too."""
    moment = start.replace(tzinfo=None)
    while moment < end.replace(tzinfo=None):
        yield moment
        moment += TICK


def first_real(zone: ZoneInfo, wall: datetime) -> datetime:
    """Return when a wall time first comes; for one that the change leaves out, the next one that exists."""
    while True:
        moment = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
        if moment.astimezone(zone).replace(tzinfo=None) == wall:
            return moment
        wall += TICK


CHANGES = [
    ("Europe/Paris", "2026-03-29"),  # 2:00 → 3:00
    ("Europe/Paris", "2026-10-25"),  # 3:00 → 2:00
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("Australia/Lord_Howe", "2026-04-05"),  # 2:00 → 1:30, half an hour
    ("Australia/Lord_Howe", "2026-10-04"),
]
TIMES = [(2, 30), (2, 0), (1, 45), (3, 0), (0, 0), (23, 59)]


@pytest.mark.parametrize(("zone", "day"), CHANGES)
def test_a_daily_time_runs_once_a_day_across_the_change_of_the_clocks(
    database: Any, add_host: Any, make: Any, clock: Any, zone: str, day: str
) -> None:
    add_host("web1")
    place = ZoneInfo(zone)
    middle = datetime.fromisoformat(day)
    start, end = middle - timedelta(days=1), middle + timedelta(days=2)
    clock.at = start.replace(tzinfo=place).astimezone(UTC) - TICK
    for hour, minute in TIMES:
        make(f"{minute} {hour} * * *", name=f"{hour:02}:{minute:02}", zone=zone)
    run(database, clock, end.replace(tzinfo=place).astimezone(UTC) - TICK)
    ran: dict[str, list[datetime]] = {}
    with database.session() as session:
        names = {each.id: each.name for each in session.scalars(select(Schedule))}
    for row in history(database):
        assert (row.outcome, row.fired_at) == ("started", row.due_at)
        ran.setdefault(names[row.schedule_id], []).append(row.due_at)
    due = {
        f"{hour:02}:{minute:02}": [
            first_real(place, wall)
            for wall in wall_times(zone, start, end)
            if (wall.hour, wall.minute) == (hour, minute)
        ]
        for hour, minute in TIMES
    }
    assert ran == due
    assert all(len(set(times)) == 3 for times in ran.values())


@pytest.mark.parametrize(("zone", "day"), CHANGES)
def test_an_hourly_schedule_goes_by_real_hours(
    database: Any, add_host: Any, make: Any, clock: Any, zone: str, day: str
) -> None:
    add_host("web1")
    clock.at = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC) - TICK
    make("0 * * * *", zone=zone)
    run(database, clock, clock.at + timedelta(hours=26))
    times = [row.due_at for row in history(database) if row.outcome == "started"]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert min(gaps) >= timedelta(minutes=30)
    assert max(gaps) <= timedelta(minutes=90)
    assert sum(gap == timedelta(hours=1) for gap in gaps) >= len(gaps) - 2  # else only where half an hour moves
    assert len(times) in (26, 27)


def test_a_stopped_controller_lists_what_it_missed_and_catches_up_once(
    database: Any, add_host: Any, make: Any, clock: Any
) -> None:
    add_host("web1")
    zone = ZoneInfo("Europe/Paris")
    clock.at = datetime(2026, 3, 27, 12, tzinfo=UTC)
    make("30 2 * * *", zone="Europe/Paris", catch_up=True)
    run(database, clock, datetime(2026, 3, 28, 12, tzinfo=UTC))
    clock.at = datetime(2026, 3, 31, 12, tzinfo=UTC)  # stopped over the night without 2:30, and two more
    assert fire_due(database, clock.at) == 1
    finish_jobs(database)
    run(database, clock, datetime(2026, 4, 1, 12, tzinfo=UTC))
    rows = [(row.due_at.astimezone(zone).strftime("%d %H:%M"), row.outcome) for row in history(database)]
    assert rows == [
        ("28 02:30", "started"),
        ("29 03:00", "skipped"),
        ("30 02:30", "skipped"),
        ("31 02:30", "started"),
        ("01 02:30", "started"),
    ]
    caught = history(database)[3]
    assert caught.reason == "Caught up, once for 3 missed times: the controller was stopped."
    assert caught.fired_at == datetime(2026, 3, 31, 12, tzinfo=UTC)
    assert history(database)[1].reason == "The controller was stopped."


def test_without_catch_up_missed_times_stay_missed(database: Any, add_host: Any, make: Any, clock: Any) -> None:
    add_host("web1")
    make("0 2 * * *")
    clock.at = datetime(2026, 1, 4, 12, tzinfo=UTC)
    assert fire_due(database, clock.at) == 1
    assert [row.outcome for row in history(database)] == ["skipped"] * 4
    assert fire_due(database, clock.at) == 0


def test_a_long_stop_is_few_rows(database: Any, add_host: Any, make: Any, clock: Any) -> None:
    add_host("web1")
    make("* * * * *")
    clock.at = datetime(2026, 1, 8, 0, 0, 10, tzinfo=UTC)
    fire_due(database, clock.at)
    rows = history(database)
    assert len(rows) == 102
    assert sum(row.count for row in rows) == 7 * 24 * 60  # 00:01 of the first day to 00:00 of the eighth
    assert (rows[-1].outcome, rows[-1].due_at) == ("started", datetime(2026, 1, 8, tzinfo=UTC))
    clock.at = datetime(2028, 1, 1, tzinfo=UTC)
    fire_due(database, clock.at)
    assert history(database)[102].reason.startswith("The controller was stopped: at least 44")


def test_history_is_bounded(
    database: Any, add_host: Any, make: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(firing, "HISTORY", 5)
    add_host("web1")
    make("* * * * *")
    run(database, clock, clock.at + timedelta(minutes=20))
    assert [row.due_at.minute for row in history(database)] == [16, 17, 18, 19, 20]


def test_jobs_that_only_looked_go_after_a_week_and_others_stay(
    database: Any, add_host: Any, make: Any, clock: Any
) -> None:
    add_host("web1")
    make("0 */6 * * *")
    make("0 0 * * *", name="b", operation="backup")
    began = clock.at
    for _ in range(10):
        run(database, clock, clock.at + timedelta(days=1))
        with database.session() as session:
            session.execute(update(Job).where(Job.finished_at.is_(None)).values(finished_at=clock.at))
    with database.session() as session:
        jobs = session.scalars(select(Job)).all()
        rows = session.scalars(select(ScheduleRun).order_by(ScheduleRun.id)).all()
    looks = [job for job in jobs if job.operation == "health"]
    assert min(job.finished_at for job in looks) >= began + timedelta(days=3)
    assert 7 * 4 <= len(looks) <= 8 * 4
    assert sum(job.operation == "backup" for job in jobs) == 10
    assert len(rows) == 10 * 4 + 10
    assert rows[0].job_id is None


def test_jitter_spreads_and_never_doubles(database: Any, add_host: Any, make: Any, clock: Any) -> None:
    add_host("web1")
    make("*/10 * * * *", jitter_seconds=1200)  # longer than the time between two runs
    run(database, clock, clock.at + timedelta(hours=10))
    rows = history(database)
    due = [row.due_at for row in rows]
    assert due == sorted(set(due))
    late = {(row.fired_at - row.due_at).total_seconds() for row in rows if row.outcome == "started"}
    assert len(late) > 10
    assert max(late) <= 1260


def test_many_workers_fire_once(database: Any, add_host: Any, make: Any, clock: Any) -> None:
    add_host("web1")
    for number in range(5):
        make("0 * * * *", name=f"s{number}")
    at = datetime(2026, 1, 1, 1, tzinfo=UTC)
    counts: list[int] = []
    threads = [threading.Thread(target=lambda: counts.append(fire_due(database, at))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(counts) == 5
    assert len(history(database)) == 5
    with database.session() as session:
        jobs = session.scalars(select(Job)).all()
    assert [(job.trigger, job.operation) for job in jobs] == [("schedule", "health")] * 5


def test_a_job_that_still_runs_is_not_doubled(database: Any, add_host: Any, make: Any, clock: Any) -> None:
    add_host("web1")
    make("* * * * *")
    for minute in (1, 2):
        fire_due(database, datetime(2026, 1, 1, 0, minute, tzinfo=UTC))
    first, second = history(database)
    assert (first.outcome, second.outcome) == ("started", "skipped")
    assert second.reason == f"The job before, {first.job_id}, is still queued."


def alerts(database: Any) -> list[tuple[str, str]]:
    with database.session() as session:
        return [(each.rule, each.state) for each in session.scalars(select(Alert))]


def test_targets_that_are_gone_raise_one_alert_which_resolves(
    database: Any, add_host: Any, make: Any, clock: Any
) -> None:
    one, two = add_host("web1"), add_host("web2")
    make("* * * * *", targets=Targets(hosts=["web1", "web2"]))

    def set_states(first: str, second: str) -> ScheduleRun:
        with database.session() as session:
            session.get_one(Host, one.id).state = first
            session.get_one(Host, two.id).state = second
        clock.at += TICK
        fire_due(database, clock.at)
        finish_jobs(database)
        return history(database)[-1]

    row = set_states("enrolled", "decommissioned")
    assert (row.outcome, "web2 was taken out" in row.reason) == ("started", True)
    row = set_states("decommissioned", "decommissioned")
    assert (row.outcome, row.reason.startswith("No host is left of its targets.")) == ("failed", True)
    set_states("decommissioned", "decommissioned")
    assert alerts(database) == [("schedule_failed", "open")]
    assert set_states("enrolled", "paused").outcome == "started"
    assert alerts(database) == [("schedule_failed", "resolved")]
    assert set_states("paused", "paused").outcome == "skipped"  # on purpose: nobody is alarmed
    assert alerts(database) == [("schedule_failed", "resolved")]


def test_an_empty_fleet_is_no_failure(database: Any, make: Any, clock: Any) -> None:
    make("* * * * *")
    clock.at += TICK
    fire_due(database, clock.at)
    assert [(row.outcome, row.reason) for row in history(database)] == [
        ("skipped", "No host can run health now.")
    ]
    assert alerts(database) == []


def test_what_was_off_was_not_missed(database: Any, actor: Any, add_host: Any, make: Any, clock: Any) -> None:
    add_host("web1")
    schedule_id = make("0 * * * *", catch_up=True)
    for enabled in (False, True):
        with database.session() as session:
            schedule = session.get_one(Schedule, schedule_id)
            service.change_schedule(session, actor, schedule, SchedulePatch(enabled=enabled))
        clock.at += timedelta(hours=5)
        if not enabled:
            assert fire_due(database, clock.at) == 0
    fire_due(database, clock.at)
    assert [row.due_at.hour for row in history(database)] == [6, 7, 8, 9, 10]


def test_a_schedule_needs_what_its_operation_needs(session: Any, actor: Any, add_host: Any) -> None:
    add_host("web1")

    def asked(**fields: Any) -> ScheduleIn:
        plain = {"name": "s", "operation": "backup", "targets": {"all": True}, "cron": "0 2 * * *"}
        return ScheduleIn.model_validate(plain | fields)

    reader = SimpleNamespace(tenant_id=actor.tenant_id, name="bob", may={"schedules:write"}.__contains__)
    with pytest.raises(Forbidden, match="jobs:write"):
        service.create_schedule(session, reader, asked())
    for field, fields in (
        ("operation", {"operation": "nothing"}),
        ("mode", {"mode": "check"}),
        ("targets", {"targets": {}}),
        ("targets.hosts", {"targets": {"hosts": ["gone"]}}),
        ("parameters.size", {"parameters": {"size": 1}}),
    ):
        with pytest.raises(Invalid) as caught:
            service.create_schedule(session, actor, asked(**fields))
        assert caught.value.field == field


def test_the_built_in_schedule_is_made_once_and_kept(session: Any, actor: Any, clock: Any) -> None:
    service.ensure_default(session, actor.tenant_id)
    service.ensure_default(session, actor.tenant_id)
    _, drills, guard, schedule = service.list_schedules(session, actor.tenant_id, None, 10)
    assert (guard.name, guard.operation, guard.targets) == ("guard hourly", "guard", {"all": True})
    assert guard.next_at > clock.at + timedelta(minutes=50)
    assert (drills.name, drills.operation, drills.targets) == ("drills weekly", "drill", {"all": True})
    assert drills.next_at is not None
    assert drills.next_at > clock.at + timedelta(days=6)
    assert (schedule.name, schedule.operation, schedule.targets) == ("health hourly", "health", {"all": True})
    assert schedule.next_at is not None
    assert schedule.next_at > clock.at + timedelta(minutes=50)  # never in the first minutes of an installation
    with pytest.raises(Conflict):
        service.delete_schedule(session, schedule)
