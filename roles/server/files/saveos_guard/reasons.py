# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reasons to hold: how one is said, and what kinds there are."""

from __future__ import annotations

from typing import Any

from saveos_guard.ledger import Entry

# reasons that say something about what is in a repository: a copy taken under one of them is not a good one
ABOUT_DATA = {
    "vanished",
    "shrunk",
    "future",
    "unexpected",
    "freeable",
    "damaged",
    "ledger",
    "key",
    "tampered",
    "waiting",
}
# what a person may approve; the others end by mending their cause
LIFTABLE = {"vanished", "shrunk", "future", "unexpected", "freeable", "key", "tampered"}


def reason(code: str, message: str, level: str = "critical", holds: bool = True, **more: Any) -> dict[str, Any]:
    """One reason of the report. `subjects` (not reported) are what an approval of it accepts."""
    return {"code": code, "message": message, "level": level, "holds": holds, **more}


def listed(entries: list[Entry]) -> dict[str, Any]:
    """What a reason tells of archives."""
    some = [{"id": entry.id, "name": entry.name} for entry in entries[:50]]
    return {"would_destroy": some, "archives": len(entries), "subjects": sorted(entry.id for entry in entries)}
