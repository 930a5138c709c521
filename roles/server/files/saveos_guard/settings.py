# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The guard's settings, and for how long it holds."""

from __future__ import annotations

import re
from typing import Any

from saveos_guard.errors import Trouble
from saveos_guard.files import read_json, write_json
from saveos_guard.values import number

CONFIG = "/etc/saveos/guard.json"
DEFAULTS: dict[str, Any] = {
    "root": "/srv/saveos",
    "state": "/var/lib/saveos-guard",
    "borg": "/opt/saveos/server/borg",
    "hold_days": 14,
    "interval_seconds": 3600,
    "check_every_days": 7,
    "check_seconds": 900,  # of one run, for all repositories
    "compact_every_hours": 168,
    "compact_share": 0.01,  # of a repository: less is not worth writing segments anew
    "freeable_limit": 0.3,
    "shrink_limit": 0.5,
    "reserve_bytes": 1 << 30,
    "silent_days": 7,
    "settle_seconds": 120,
    "quota_warning": 0.85,
    "repositories": {},
}
ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,63}")
LONGEST_HOLD = 365  # days a controller may ask for


def load_settings(path: str) -> dict[str, Any]:
    """The settings of the role, over our defaults. Trouble when they cannot be read."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise Trouble(f"{path} is missing or no JSON: provision this storage server")
    return {**DEFAULTS, **found}


def hold_days(settings: dict[str, Any], asked: float | None = None) -> tuple[float, dict[str, Any] | None]:
    """(days that copies are held, what was refused): the longest that was ever asked for counts."""
    file = f"{settings['state']}/floor.json"
    floor = number((read_json(file) or {}).get("hold_days"))
    wanted = [number(settings["hold_days"]), *([] if asked is None else [min(asked, LONGEST_HOLD)])]
    kept_days = max(floor, *wanted, 1)
    if kept_days != floor:
        write_json(file, {"hold_days": kept_days})
    refused = asked is not None and asked < kept_days and wanted[-1] == asked
    return kept_days, {"asked": asked, "kept": kept_days} if refused else None


def lower_hold(settings: dict[str, Any], days: float) -> float:
    """Forget what longer hold was asked for; returns the days that count from now on."""
    kept_days = max(1, days)
    write_json(f"{settings['state']}/floor.json", {"hold_days": kept_days})
    write_json(f"{settings['state']}/word.json", {"hold_days": None})
    return kept_days
