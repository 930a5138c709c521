"""Schedules: five-field cron expressions in a time zone, and systemd calendars that mean the same.

The arithmetic is cronsim's. Around a change of the clocks nothing runs twice and nothing is left out:
a time that does not exist runs at the next minute that does, a time that comes twice runs the first time,
and what runs every hour goes by real hours.
"""

import re
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from itertools import islice
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of month", 1, 31), ("month", 1, 12), ("day of week", 0, 7))
ITEM = re.compile(r"(\*|(\d{1,2}|[a-z]{3})(?:-(\d{1,2}|[a-z]{3}))?)(?:/(\d{1,2}))?", re.IGNORECASE)
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
MONTHS = ("", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAY_NAMES = {*WEEKDAYS, "sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"}
WORDS = {"month": MONTHS, "day of week": WEEKDAYS}
SHORTHANDS = {
    "minutely": "* * * * *",
    "hourly": "0 * * * *",
    "daily": "0 0 * * *",
    "weekly": "0 0 * * 1",
    "monthly": "0 0 1 * *",
    "quarterly": "0 0 1 1,4,7,10 *",
    "semiannually": "0 0 1 1,7 *",
    "yearly": "0 0 1 1 *",
    "annually": "0 0 1 1 *",
}
CALENDAR = re.compile(
    r"(?:(?P<weekdays>[a-z][a-z.,]*)(?:\s+|$))?"
    r"(?:(?P<date>(?:\*-)?[\d*,./]+-[\d*,./]+)(?:\s+|$))?"
    r"(?P<time>[\d*,./]+:[\d*,./]+(?::[\d*,./]+)?)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Cron:
    """An expression that was read: its fields as plain numbers, and a search for each kind of hours."""

    expression: str
    by_clock: CronSim  # goes by the clock on the wall; a copy is made for each search
    by_hours: CronSim | None  # goes by real hours; only of what runs every hour


@lru_cache(maxsize=4096)
def parse(expression: str) -> Cron:
    """Read a five-field expression. Raises ValueError with a sentence."""
    fields = expression.split()
    if len(fields) != len(FIELDS):
        raise ValueError(f"a schedule has five fields, such as 0 2 * * *; {expression!r} has {len(fields)}")
    if fields[2] != "*" and fields[4] != "*":
        raise ValueError("name a day of month or a day of week, not both: cron and systemd disagree on both")
    values = [_values(text, name, low, high) for text, (name, low, high) in zip(fields, FIELDS, strict=True)]
    texts = [",".join(map(str, sorted(each))) for each in values]
    for place, text in enumerate(fields):
        if place >= 2 and text == "*":
            texts[place] = "*"
    plain = " ".join(texts)
    # The fields' first character tells cronsim which kind of hours is meant, so it is ours to choose
    every_hour = len(values[1]) == 24
    anywhere = datetime(2024, 1, 1, tzinfo=ZoneInfo("Etc/GMT"))
    try:
        clock = CronSim(plain, anywhere)
        hours = CronSim(" ".join([texts[0], "*", *texts[2:]]), anywhere) if every_hour else None
    except CronSimError:
        raise ValueError(f"the schedule {expression!r} never fires: that day does not exist") from None
    return Cron(plain, clock, hours)


def next_run(expression: str, after: datetime, zone: str = "UTC") -> datetime:
    """Return when an expression fires next after `after` (aware), UTC. Raises ValueError with a sentence."""
    return next(_runs(expression, after, zone))


def next_runs(expression: str, after: datetime, zone: str = "UTC", count: int = 10) -> list[datetime]:
    """Return the next `count` times after `after` (aware) at which an expression fires, UTC."""
    return list(islice(_runs(expression, after, zone), count))


def check_zone(name: str) -> str:
    """Return the name of a time zone. Raises ValueError with a sentence."""
    _zone(name)
    return name


def normal(schedule: str) -> str:
    """Return a schedule as five fields: cron's own, @daily and the like, or a systemd calendar expression.

    Raises ValueError with a sentence for what five fields cannot say.
    """
    text = " ".join(schedule.split())
    if text.removeprefix("@").lower() in SHORTHANDS:
        if text.lower() == "@weekly":
            return "0 0 * * 0"  # cron's week begins on Sunday, systemd's on Monday
        return SHORTHANDS[text.removeprefix("@").lower()]
    if ":" in text or re.fullmatch(r"(\*-)?[\d*,./]+-[\d*,./]+", text) or (text and text[0].isalpha()):
        text = _from_calendar(text)
    parse(text)
    return text


def _runs(expression: str, after: datetime, zone: str) -> Iterator[datetime]:
    cron, place = parse(expression), _zone(zone)
    local = after.astimezone(place)
    clock = _begin(cron.by_clock, local)
    hours = _begin(cron.by_hours, local) if cron.by_hours and place is not UTC else None
    last = after.astimezone(UTC)
    first, second = _later(clock, last), _later(hours, last) if hours else None
    while True:
        last = min(first, second) if second else first
        yield last
        if first <= last:
            first = _later(clock, last)
        if hours and second and second <= last:
            second = _later(hours, last)


def _begin(simulation: CronSim, local: datetime) -> CronSim:
    """Return a copy that searches from a time on; what CronSim() does without reading the text again."""
    found = copy(simulation)
    if local.tzinfo is UTC:
        found.fixup_tz = None
    elif found.fixup_tz is not None:
        found.fixup_tz = local.tzinfo
        local = local.replace(tzinfo=None)
    found.dt = local.replace(microsecond=0)
    return found


def _later(simulation: CronSim, after: datetime) -> datetime:
    """Return the next time after `after`: in an hour that comes twice the wall's clock leads back."""
    while (moment := next(simulation).astimezone(UTC)) <= after:
        pass
    return moment


@lru_cache(maxsize=1024)
def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # ZoneInfoNotFoundError is a KeyError
        raise ValueError(f"{name[:60]!r} is no time zone: use a name such as Europe/Paris, or UTC") from None


def _number(text: str, name: str) -> int:
    words = WORDS.get(name, ())
    if text.isdigit():
        return int(text)
    if text.lower() not in words:
        raise ValueError(f"{text!r} is no {name}: use *, numbers, a-b, lists and /steps")
    return words.index(text.lower())


def _values(text: str, name: str, low: int, high: int) -> set[int]:
    values: set[int] = set()
    for item in text.split(","):
        match = ITEM.fullmatch(item)
        if not match:
            raise ValueError(f"{item!r} is no {name}: use *, numbers, a-b, lists and /steps")
        whole, first, last, step = match.groups()
        start = low if whole == "*" else _number(first, name)
        end = high if whole == "*" or (step and not last) else _number(last or first, name)
        if name == "day of week" and end == 0 and start > 0 and last:
            end = 7  # fri-sun
        if not low <= start <= end <= high or (step and int(step) < 1):
            raise ValueError(f"{item!r} is out of range: a {name} goes from {low} to {high}")
        values.update(range(start, end + 1, int(step or 1)))
    return {value % 7 for value in values} if name == "day of week" else values


def _from_calendar(text: str) -> str:
    match = CALENDAR.fullmatch(text)
    if not match:
        last = text.rsplit(" ", 1)[-1]
        if ("/" in last and last[0].isalpha()) or last.upper() in ("UTC", "GMT"):
            raise ValueError(f"{text!r} names a time zone: set it as the zone, not in the schedule")
        raise ValueError(
            f"{text!r} is no schedule: use five fields such as 0 2 * * *, or a systemd calendar such as "
            "Mon..Fri *-*-* 02:00"
        )
    date, time = match["date"] or "*-*-*", match["time"] or "00:00"
    month, day = date.removeprefix("*-").split("-")
    hour, minute, *second = time.split(":")
    if second and not re.fullmatch("0+", second[0]):
        raise ValueError(f"{text!r} names seconds: a schedule goes by minutes, so end it with :00 or nothing")
    days = "*" if match["weekdays"] is None else _calendar_weekdays(match["weekdays"])
    fields = [_calendar_field(each, text) for each in (minute, hour, day, month)]
    return " ".join([*fields, days])


def _calendar_field(text: str, whole: str) -> str:
    if text == "*":
        return text
    items = []
    for item in text.replace("..", "-").split(","):
        match = re.fullmatch(r"(\*|\d{1,2})(-\d{1,2})?(/\d{1,2})?", item)
        if not match:
            raise ValueError(
                f"{whole!r} cannot be said in five fields because of {item!r}: use 0 2 * * * or the like"
            )
        first, last, step = match.groups()
        items.append(
            (first if first == "*" else str(int(first))) + (f"-{int(last[1:])}" if last else "") + (step or "")
        )
    return ",".join(items)


def _calendar_weekdays(text: str) -> str:
    items = []
    for item in text.lower().split(","):
        ends = [name for name in item.replace("..", "-").split("-") if name]
        if not 1 <= len(ends) <= 2 or any(name not in DAY_NAMES for name in ends):
            raise ValueError(f"{item!r} is no day of week: use Mon, Tue..Fri or Sat,Sun")
        first, last = WEEKDAYS.index(ends[0][:3]), WEEKDAYS.index(ends[-1][:3])
        number = (last - first) % 7
        items += [(first + step) % 7 for step in range(number + 1)]
    return ",".join(str(day) for day in sorted(set(items)))
