"""Five-field cron expressions: check them, and find the next time. Numbers only; times are UTC."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of month", 1, 31), ("month", 1, 12), ("day of week", 0, 7))
ITEM = re.compile(r"(\*|(\d{1,2})(?:-(\d{1,2}))?)(?:/(\d{1,2}))?")
HORIZON_DAYS = 8 * 366  # 29 February comes within eight years, also around 2100


@dataclass(frozen=True)
class Cron:
    """The values at which an expression fires; days of week count from Monday, 0, as Python's do."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]


@lru_cache(maxsize=1024)
def parse(expression: str) -> Cron:
    """Read an expression. Raises ValueError with a sentence."""
    fields = expression.split()
    if len(fields) != len(FIELDS):
        raise ValueError(f"a schedule has five fields, such as 0 2 * * *; {expression!r} has {len(fields)}")
    if fields[2] != "*" and fields[4] != "*":
        raise ValueError("name a day of month or a day of week, not both: cron and systemd disagree on both")
    minute, hour, day, month, weekday = (
        _values(text, name, low, high) for text, (name, low, high) in zip(fields, FIELDS, strict=True)
    )
    cron = Cron(
        tuple(sorted(minute)),
        tuple(sorted(hour)),
        frozenset(day),
        frozenset(month),
        frozenset((value - 1) % 7 for value in weekday),
    )
    if next_after(cron, datetime(2024, 1, 1, tzinfo=UTC)) is None:
        raise ValueError(f"the schedule {expression!r} never fires: that day does not exist")
    return cron


def next_after(cron: Cron, after: datetime) -> datetime | None:
    """Return the first time after `after`; None when there is none within eight years."""
    start = after.astimezone(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    day = start.replace(hour=0, minute=0)
    for _ in range(HORIZON_DAYS):
        if day.month in cron.months and day.day in cron.days and day.weekday() in cron.weekdays:
            for hour in cron.hours:
                for minute in cron.minutes:
                    moment = day.replace(hour=hour, minute=minute)
                    if moment >= start:
                        return moment
        day += timedelta(days=1)
    return None


def next_run(expression: str, after: datetime) -> datetime:
    """Return when a checked expression fires next after `after`."""
    moment = next_after(parse(expression), after)
    if moment is None:  # parse refuses such expressions
        raise ValueError(f"{expression!r} never fires")
    return moment


def _values(text: str, name: str, low: int, high: int) -> set[int]:
    values: set[int] = set()
    for item in text.split(","):
        match = ITEM.fullmatch(item)
        if not match:
            raise ValueError(f"{item!r} is no {name}: use *, numbers, a-b, lists and /steps")
        whole, first, last, step = match.groups()
        start, end = (low, high) if whole == "*" else (int(first), int(last or (high if step else first)))
        if not low <= start <= end <= high or step == "0" or (step and int(step) < 1):
            raise ValueError(f"{item!r} is out of range: a {name} goes from {low} to {high}")
        values.update(range(start, end + 1, int(step or 1)))
    return values
