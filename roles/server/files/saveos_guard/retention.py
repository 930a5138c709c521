# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Retention as `borg prune` counts it."""

from __future__ import annotations

import contextlib
import re
from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

from saveos_guard.values import DAY, HOUR, number

PERIODS = {
    "keep_secondly": "%Y%m%d%H%M%S",
    "keep_minutely": "%Y%m%d%H%M",
    "keep_hourly": "%Y%m%d%H",
    "keep_daily": "%Y%m%d",
    "keep_weekly": "%G%V",
    "keep_monthly": "%Y%m",
    "keep_yearly": "%Y",
}
UNITS = {"S": 1, "M": 60, "H": HOUR, "d": DAY, "w": 7 * DAY, "m": 31 * DAY, "y": 365 * DAY}
# a host's zone is known only by its word; these cover every one there is
OFFSETS = [timezone(timedelta(minutes=30 * step)) for step in range(-24, 29)]


def rules_of(retention: Any) -> dict[str, Any]:
    """A told policy's rules, only those that are one."""
    found: dict[str, Any] = {}
    for name, value in (retention if isinstance(retention, dict) else {}).items():
        if name in PERIODS and number(value):
            found[name] = int(number(value))
        elif name == "keep_within" and re.fullmatch(r"\d{1,6}[SMHdwmy]", str(value)):
            found[name] = str(value)
    return found


def kept(archives: list[tuple[float, str]], rules: dict[str, Any], at: float, zone: Any) -> set[str]:
    """Ids that Borg's prune keeps of [(time, id)] at a moment; all of them where there is no rule."""
    if not rules:
        return {each for _, each in archives}
    newest_first = sorted(archives, reverse=True)
    keep: set[str] = set()
    if within := rules.get("keep_within"):
        since = at - int(within[:-1]) * UNITS[within[-1]]
        keep |= {each for when, each in archives if when > since}
    for rule, pattern in PERIODS.items():
        wanted = rules.get(rule, 0)
        if not wanted:
            continue
        last, count, each = None, 0, ""
        for when, each in newest_first:
            period = datetime.fromtimestamp(when, zone).strftime(pattern)
            if period != last:
                last = period
                if each not in keep:
                    keep.add(each)
                    count += 1
                    if count == wanted:
                        break
        if count < wanted and each and each not in keep:  # the oldest stays while there are too few
            keep.add(each)
    return keep


def zones_of(name: Any) -> list[Any]:
    """A host's zone by its name, and every other it could be in."""
    with contextlib.suppress(OSError, ValueError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        return [ZoneInfo(str(name)), *OFFSETS]
    return OFFSETS
