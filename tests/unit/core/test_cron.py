"""Cron expressions, against a slow but obvious search."""

from datetime import UTC, datetime, timedelta

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
