# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Moments as text, and ids that sort by time."""

from __future__ import annotations

import datetime
import re
import secrets
import time
from typing import Optional

from saveos_agent.errors import usage

UUID = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")


def utc(timestamp: Optional[float] = None) -> str:
    """ISO 8601 in UTC of a POSIX time in seconds (default: now)."""
    moment = datetime.datetime.fromtimestamp(
        time.time() if timestamp is None else timestamp, datetime.timezone.utc
    )
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def borg_time(text: Optional[str]) -> Optional[str]:
    """Borg writes local times without a zone; return the same moment in UTC."""
    if not text:
        return None
    try:
        return utc(datetime.datetime.fromisoformat(text).timestamp())
    except ValueError:
        return None


def parse_utc(text: str) -> float:
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def new_run_id() -> str:
    """A UUIDv7, so that names sort by time."""
    value = (int(time.time() * 1000) << 80) | secrets.randbits(80)
    value = (value & ~(0xF << 76)) | (7 << 76)
    value = (value & ~(0x3 << 62)) | (2 << 62)
    text = f"{value:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def check_run_id(run_id: str) -> str:
    if not UUID.match(run_id):
        raise usage(f"The run id {run_id!r} is not a UUID in lower case.")
    return run_id
