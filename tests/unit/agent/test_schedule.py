"""When a timer's run begins: time zones that cron does not know, changes of the clocks, the window."""

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
from saveos.core import cron

DAILY = {"minute": [30], "hour": [2], "day": None, "month": None, "weekday": None}


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def values(expression, zone):
    """An expression as the role's filter hands it to the agent."""
    names = ("minute", "hour", "day", "month", "weekday")
    fields = cron.parse(expression).expression.split()
    full = {"hour": 24}
    found = {
        name: None
        if text == "*" or len(text.split(",")) == full.get(name)
        else [int(n) for n in text.split(",")]
        for name, text in zip(names, fields, strict=True)
    }
    return {"zone": zone, **found}


@pytest.mark.parametrize(
    "zone", ["UTC", "Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]
)
@pytest.mark.parametrize(
    "expression", ["30 2 * * *", "0 * * * *", "15 1,14 * * 0", "45 23 1 * *", "0 2 * 3,10,11 *"]
)
def test_the_agent_and_the_controller_name_the_same_minutes(agent, zone, expression):
    schedule = values(expression, zone)
    for begin in ("2026-03-07", "2026-03-27", "2026-04-04", "2026-10-03", "2026-10-23", "2026-10-31"):
        start = datetime.fromisoformat(begin).replace(tzinfo=UTC)
        end = start + timedelta(days=3)
        minutes = (start + timedelta(minutes=number) for number in range(3 * 1440))
        mine = [each for each in minutes if agent.is_scheduled(schedule, int(each.timestamp()))]
        theirs = [
            run for run in cron.next_runs(expression, start - timedelta(seconds=1), zone, 100) if run < end
        ]
        assert mine == theirs


def test_cron_asks_often_and_the_agent_says_when(agent, host):
    settings = dataclasses.replace(host.settings, schedule=DAILY | {"zone": "Europe/Paris"})
    assert agent.not_now(settings, at("2026-07-01T00:30:20"), True) == ""
    assert "not time" in agent.not_now(settings, at("2026-07-01T02:30:00"), True)
    assert agent.not_now(settings, at("2026-07-01T02:30:00"), False) == ""


def test_cron_that_asks_late_is_answered_once(agent, host):
    """A loaded machine, or one that slept: yesterday's run is known, so today's is not left out."""
    settings = dataclasses.replace(host.settings, schedule=DAILY | {"minute": [30, 43], "zone": "UTC"})
    asked = ("30T02:43:00", "31T02:31:40", "31T02:32:00", "31T02:45:00", "31T02:58:00")
    told = [agent.not_now(settings, at(f"2026-07-{each}"), True) == "" for each in asked]
    assert told == [True, True, False, True, False]
    assert agent.not_now(settings, at("2026-07-30T02:30:00"), True) == "", "the clock was ahead"


def test_a_run_whose_time_is_long_ago_is_left_for_the_next(agent, host):
    settings = dataclasses.replace(host.settings, schedule=DAILY | {"zone": "UTC"}, window_seconds=7200)
    assert agent.not_now(settings, at("2026-07-01T04:29:59"), False) == ""
    assert "120 minutes" in agent.not_now(settings, at("2026-07-01T04:31:00"), False)
    assert "120 minutes" in agent.not_now(settings, at("2026-07-01T02:29:00"), False)


def test_a_zone_that_the_host_does_not_know_is_told_with_its_fix(agent):
    with pytest.raises(agent.AgentError, match="Mars/Olympus"):
        agent.is_scheduled(DAILY | {"zone": "Mars/Olympus"}, 0)
