# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""When a timer's run may begin."""

from __future__ import annotations

import datetime
import hashlib
import os
from typing import Any, Optional

from saveos_agent.errors import AgentError
from saveos_agent.settings import Settings
from saveos_agent.state import load, store

LATE_SECONDS = 15 * 60  # then cron asks for the next time


def jitter(settings: Settings, seconds: int) -> float:
    """A delay that is always the same for one host, and spread over all hosts."""
    digest = hashlib.sha256(f"{settings.host}:{settings.unit}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32 * seconds


def not_now(settings: Settings, at: float, only_when_due: bool) -> str:
    """Why a timer's run must not begin at this time; empty when it may.

    cron asks every quarter of an hour, with `only_when_due`, because it knows no time zones. And a run whose
    time is longer ago than the policy's window is left for the next time. What is due is answered once.
    """
    if not settings.schedule:
        return ""
    minute = int(at) // 60 * 60
    if only_when_due and not _has_come_due(settings, minute):
        return "It is not time for a backup."
    window = settings.window_seconds
    if window and not any(
        is_scheduled(settings.schedule, then) for then in range(minute, minute - window - 60, -60)
    ):
        return f"The time of this backup is more than {window // 60} minutes ago: it is left for the next time."
    return ""


def _has_come_due(settings: Settings, minute: int) -> bool:
    """Whether a time has come that was not answered yet: cron may be late, or the machine was asleep."""
    answered = (load(settings, "due.json") or {}).get("minute")
    if answered is None or answered > minute:  # nothing is known, or the clock was ahead
        answered = minute - 60
    for then in range(minute, max(answered, minute - LATE_SECONDS), -60):
        if is_scheduled(settings.schedule, then):
            store(settings, "due.json", {"minute": then})
            return True
    return False


def is_scheduled(schedule: dict[str, Any], at: int) -> bool:
    """Whether a schedule names the minute that begins at `at`.

    Around a change of the clocks: a time that does not exist counts at the first minute that does, and one that
    comes twice counts the first time, except of what runs every hour.
    """
    zone = _zone(schedule.get("zone") or "")
    wall = datetime.datetime.fromtimestamp(at, zone)
    before = datetime.datetime.fromtimestamp(at - 60, zone)
    gap = int((wall.replace(tzinfo=None) - before.replace(tzinfo=None)).total_seconds()) // 60
    walls = [wall.replace(tzinfo=None) - datetime.timedelta(minutes=back) for back in range(max(gap, 1))]
    if wall.fold and schedule.get("hour") is not None:
        return False
    return any(_names(schedule, each) for each in walls)


def _names(schedule: dict[str, Any], wall: datetime.datetime) -> bool:
    def has(field: str, value: int) -> bool:
        return schedule.get(field) is None or value in schedule[field]

    day, weekday = has("day", wall.day), has("weekday", wall.isoweekday() % 7)
    either = schedule.get("day") is not None and schedule.get("weekday") is not None  # as cron has it
    today = (day or weekday) if either else (day and weekday)
    return has("minute", wall.minute) and has("hour", wall.hour) and has("month", wall.month) and today


def _zone(name: str) -> Optional[datetime.tzinfo]:
    """A time zone by its name; None is the host's own."""
    if name == "UTC":
        return datetime.timezone.utc
    if not name:
        return None
    try:
        from zoneinfo import ZoneInfo  # not every backup needs it

        return ZoneInfo(name)
    except (ImportError, KeyError, ValueError, OSError):
        raise AgentError(
            "not_configured",
            f"This host does not know the time zone {name}.",
            "Install its time zones (apt install tzdata), or give the policy the zone UTC.",
        ) from None


def default_trigger() -> str:
    """systemd tells which timer started a unit."""
    return (
        "timer" if os.environ.get("TRIGGER_UNIT") or os.environ.get("TRIGGER_TIMER_REALTIME_USEC") else "host"
    )
