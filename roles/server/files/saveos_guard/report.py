# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the guard reports of a repository, for programs and for people."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from saveos_guard.checking import last_check
from saveos_guard.copies import extra_bytes
from saveos_guard.repository import Repository
from saveos_guard.values import iso, mib
from saveos_guard.view import View

# What is said of a repository that no run could look at
UNSEEN: dict[str, Any] = {
    "transaction": None, "bytes": 0, "freeable_bytes": 0, "freeable_share": 0.0, "quota_used": 0,
    "copies": [], "held_bytes": 0,
}  # fmt: skip


def figures(report: dict[str, Any], view: View) -> None:
    """Numbers of a view."""
    report.update(
        transaction=view.transaction,
        bytes=view.bytes,
        freeable_bytes=view.freeable_bytes,
        freeable_share=round(view.freeable_bytes / max(1, view.bytes), 4),
        quota_used=view.quota_used,
    )


def describe(repository: Repository, report: dict[str, Any]) -> None:
    """What the report always says."""
    live: dict[int, int] = {}
    for folder, _, names in os.walk(repository.path):
        for name in names:
            with contextlib.suppress(OSError):
                status = os.lstat(f"{folder}/{name}")
                live[status.st_ino] = status.st_blocks * 512
    copies, extra = repository.copies(), extra_bytes(repository, live)
    good = [each for each in copies if each.get("good")]
    shown = ("transaction", "good", "why")
    report.update({key: value for key, value in UNSEEN.items() if key not in report})
    report.update(
        copies=[
            {
                "at": iso(each["at"]),
                **{key: each.get(key) for key in shown},
                "extra_bytes": extra.get(each["name"], 0),
            }
            for each in copies
        ],
        held_bytes=sum(extra.values()),
        disk_bytes=sum(live.values()),
        good_copy=iso(good[-1]["at"]) if good else None,
        archives_expected=len(repository.ledger.of("live", "gone")),
        pending=len(repository.ledger.of("gone")),
        ledger={"length": repository.ledger.length, "head": repository.ledger.head},
        last_check=last_check(repository),
        last_compact_at=iso(repository.state.get("last_compact_at")),
        told_at=iso(repository.told_at() or None),
        quota=repository.quota,
    )


def in_words(report: dict[str, Any]) -> str:
    """A report for people."""
    lines = []
    for each in report["repositories"]:
        held = f"{each['freeable_share']:.1%} of {mib(each['bytes'])} marked, {len(each['copies'])} copies"
        lines.append(f"{each['id']}: {each['state']} ({held}, {mib(each['held_bytes'])} held)")
        lines += [f"  {why['code']}: {why['message']}" for why in each["reasons"]]
    return "\n".join(lines)
