"""Cron expressions, against a slow but obvious search."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from saveos.core import cron

START = datetime(2024, 2, 27, 22, 58, 30, tzinfo=UTC)


def obvious(fields, after):
    """Return the next time by trying every minute of the next 40 days."""
    moment = after.replace(second=0, microsecond=0)
    for _ in range(40 * 1440):
        moment += timedelta(minutes=1)
        now = (moment.minute, moment.hour, moment.day, moment.month, moment.isoweekday() % 7)
        if all(values is None or value in values for value, values in zip(now, fields, strict=True)):
            return moment
    return None


def field(low, high):
    return st.one_of(st.none(), st.sets(st.integers(low, high), min_size=1, max_size=3))


@settings(max_examples=15, deadline=None)
@given(
    fields=st.one_of(
        st.tuples(field(0, 59), field(0, 23), field(1, 28), st.none(), st.none()),
        st.tuples(field(0, 59), field(0, 23), st.none(), st.none(), field(0, 6)),
    ),
    minutes=st.integers(0, 500_000),
)
def test_next_run_is_what_a_search_finds(fields, minutes):
    expression = " ".join("*" if values is None else ",".join(map(str, sorted(values))) for values in fields)
    after = START + timedelta(minutes=minutes)
    assert cron.next_run(expression, after) == obvious(fields, after)


@pytest.mark.parametrize(
    "expression, expected",
    [
        ("0 2 * * *", "2024-02-28T02:00"),
        ("*/15 * * * *", "2024-02-27T23:00"),
        ("0 0 29 2 *", "2024-02-29T00:00"),
        ("5 4 * * 7", "2024-03-03T04:05"),
        ("0 22-23 * * 1-5", "2024-02-27T23:00"),
        ("10/20 3 * 6 *", "2024-06-01T03:10"),
    ],
)
def test_forms(expression, expected):
    assert cron.next_run(expression, START) == datetime.fromisoformat(expected).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "0 2 * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "*/0 * * * *",
        "5-1 * * * *",
        "a * * * *",
        "@daily",
    ],
)
def test_what_is_no_schedule_is_refused(expression):
    with pytest.raises(ValueError):
        cron.parse(expression)


def test_a_time_that_never_comes_and_two_kinds_of_day_are_refused():
    with pytest.raises(ValueError, match="never"):
        cron.parse("0 0 31 2,4 *")
    with pytest.raises(ValueError, match="not both"):
        cron.parse("0 0 1 * 1")


def walls(expression, after, zone, count):
    """Return the next runs as the clock on a wall in that zone shows them."""
    found = cron.next_runs(expression, datetime.fromisoformat(after).replace(tzinfo=UTC), zone, count)
    assert all(run.tzinfo is UTC for run in found)
    assert found == sorted(set(found)), "each time once, in order"
    return " ".join(run.astimezone(ZoneInfo(zone)).strftime("%d.%H:%M%z") for run in found)


@pytest.mark.parametrize(
    "expression, zone, after, expected",
    [
        # clocks go forward: what does not exist runs at the next minute that does
        ("30 2 * * *", "Europe/Paris", "2026-03-28T22:00", "29.03:00+0200 30.02:30+0200"),
        ("*/30 2 * * *", "Europe/Paris", "2026-03-28T22:00", "29.03:00+0200 30.02:00+0200"),
        ("0 * * * *", "Europe/Paris", "2026-03-28T23:30", "29.01:00+0100 29.03:00+0200"),
        ("0 2 * * *", "America/New_York", "2026-03-08T01:00", "08.03:00-0400 09.02:00-0400"),
        ("0 2 * * *", "Australia/Lord_Howe", "2026-10-03T13:00", "04.02:30+1100 05.02:00+1100"),
        ("0 * * * *", "Australia/Lord_Howe", "2026-10-03T14:00", "04.01:00+1030 04.02:30+1100 04.03:00+1100"),
        # clocks go back: the first of the two, except of what goes by the hour
        ("30 2 * * *", "Europe/Paris", "2026-10-24T22:00", "25.02:30+0200 26.02:30+0100"),
        ("45 2 * * *", "Europe/Paris", "2026-10-25T01:30", "26.02:45+0100 27.02:45+0100"),
        ("0 */2 * * *", "Europe/Paris", "2026-10-24T21:30", "25.00:00+0200 25.02:00+0200 25.04:00+0100"),
        ("0 * * * *", "Europe/Paris", "2026-10-24T23:30", "25.02:00+0200 25.02:00+0100 25.03:00+0100"),
        ("30 1 * * *", "America/New_York", "2026-11-01T03:00", "01.01:30-0400 02.01:30-0500"),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00", "05.01:45+1100 06.01:45+1030"),
    ],
)
def test_changes_of_the_clocks(expression, zone, after, expected):
    assert walls(expression, after, zone, len(expected.split())) == expected


@settings(max_examples=40, deadline=None)
@given(
    zone=st.sampled_from(["Europe/Paris", "America/New_York", "Australia/Lord_Howe"]),
    hour=st.integers(0, 23),
    minute=st.integers(0, 59),
    start=st.integers(0, 365 * 24 * 60),
)
def test_a_daily_schedule_runs_once_on_each_day_of_its_zone(zone, hour, minute, start):
    after = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=start)
    found = cron.next_runs(f"{minute} {hour} * * *", after, zone, 200)
    days = [run.astimezone(ZoneInfo(zone)).date() for run in found]
    assert days == [days[0] + timedelta(days=number) for number in range(200)]
    assert found[0] == cron.next_run(f"{minute} {hour} * * *", after, zone) > after


@pytest.mark.parametrize(
    "calendar, expected",
    [
        ("0 2 * * mon-fri", "0 2 * * mon-fri"),
        ("@daily", "0 0 * * *"),
        ("daily", "0 0 * * *"),
        ("weekly", "0 0 * * 1"),
        ("@weekly", "0 0 * * 0"),
        ("hourly", "0 * * * *"),
        ("02:00", "0 2 * * *"),
        ("*:0/15", "0/15 * * * *"),
        ("Mon..Fri *-*-* 02:00", "0 2 * * 1,2,3,4,5"),
        ("Sat,Sun 4:30", "30 4 * * 0,6"),
        ("Fri..Mon *-*-* 01:00:00", "0 1 * * 0,1,5,6"),
        ("*-*-01 03:30:00", "30 3 1 * *"),
        ("*-01,07-01", "0 0 1 1,7 *"),
        ("Sunday", "0 0 * * 0"),
        ("*-*-1..7 00/6:10", "10 0/6 1-7 * *"),
    ],
)
def test_systemd_calendars_become_five_fields(calendar, expected):
    assert cron.normal(calendar) == expected
    cron.parse(expected)


@pytest.mark.parametrize(
    "calendar, reason",
    [
        ("Mon..Fri *-*-* 02:00 Europe/Paris", "set it as the zone"),
        ("2026-01-01 00:00", "no schedule"),
        ("02:00:30", "seconds"),
        ("Mon *-*-1..7 02:00", "not both"),
        ("*-*~01 02:00", "no schedule"),
        ("Foo 02:00", "day of week"),
        ("24:00", "out of range"),
        ("x", "day of week"),
        ("", "five fields"),
    ],
)
def test_what_five_fields_cannot_say_is_refused_with_its_reason(calendar, reason):
    with pytest.raises(ValueError, match=reason):
        cron.normal(calendar)


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../../etc/passwd", "/etc/localtime", "Europe", "a\x00b"])
def test_what_is_no_zone_is_refused(zone):
    with pytest.raises(ValueError, match="is no time zone"):
        cron.check_zone(zone)
