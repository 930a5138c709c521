# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Times, sizes and numbers: as they are told, and as they are said."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any

HOUR, DAY = 3600, 86400


def iso(seconds: float | None) -> str | None:
    """A time as the report says it."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_of(text: Any) -> float | None:
    """A told time; None when it is none."""
    try:
        found = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=timezone.utc)).timestamp()


def number(value: Any) -> float:
    """A told number; 0 when it is none."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if good and abs(value) < 1 << 60 else 0  # which NaN is not


def mib(size: float) -> str:
    """A size for people."""
    return f"{size / (1 << 20):,.1f} MiB"


def parse_size(text: Any) -> int | None:
    """Borg's quota text such as 500G in bytes; None for no quota."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGTP]?)", str(text or "").upper())
    return int(float(found[1]) * 1000 ** " KMGTP".index(found[2] or " ")) if found else None
