# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reading all segments against their checksums, bit by bit of time."""

from __future__ import annotations

import time
from typing import Any

from saveos_guard.borg_files import bad_segment
from saveos_guard.copies import current_view
from saveos_guard.errors import Busy, Damaged, Trouble
from saveos_guard.repository import Guard, Repository
from saveos_guard.settings import hold_days
from saveos_guard.values import DAY, iso, number
from saveos_guard.view import View


def check_segments(repository: Repository, view: View, deadline: float, anew: bool = False) -> None:
    """Read segments against their checksums, with neither key nor lock, until the deadline.

    It goes on there next time. What was found broken is read again each time.
    """
    state, began = repository.state.setdefault("check", {}), time.monotonic()
    days = min(number(repository.told.get("check_days")) or 366, repository.settings["check_every_days"])
    if anew or ("next" not in state and repository.now - float(state.get("at") or 0) > days * DAY):
        state.update(next=0, spent=0.0)
    bad = {int(each): text for each, text in state.get("bad", {}).items() if int(each) in view.segments}
    first = state.get("next", view.transaction + 1)
    for segment in sorted({*bad, *(each for each in view.segments if each >= first)}):
        if time.monotonic() > deadline:
            break
        try:
            text = bad_segment(view.files[segment], commits=segment == view.transaction)
        except OSError as error:
            text = f"it cannot be read: {error.strerror}"
        bad.pop(segment, None)
        if text:
            bad[segment] = text
        if segment >= first:
            state["next"] = segment + 1
    else:
        if state.pop("next", None) is not None:
            state.update(at=repository.now, segments=len(view.segments))
            state["seconds"] = round(state.pop("spent", 0.0) + time.monotonic() - began, 3)
    if "next" in state:
        state["spent"] = state.get("spent", 0.0) + time.monotonic() - began
    state["bad"] = {str(each): text for each, text in bad.items()}
    repository.save()


def last_check(repository: Repository) -> dict[str, Any]:
    """The last check as the report tells it."""
    state = repository.state.get("check", {})
    bad = state.get("bad") or {}
    text = "; ".join(f"segment {each}: {why}" for each, why in sorted(bad.items())[:20])
    if "next" in state:
        text = text or f"going on at segment {state['next']}"
    now = "damaged" if bad else "running" if "next" in state else "ok" if state.get("at") else "never"
    return {
        "at": iso(state.get("at")),
        "state": now,
        "detail": text[:2000],
        "seconds": state.get("seconds"),
        "segments": state.get("segments"),
        "bad": len(bad),
    }


def check(settings: dict[str, Any], chosen: list[str], now: float, seconds: float) -> dict[str, Any]:
    """Check the chosen repositories from their first segment on."""
    guard = Guard(settings, now, hold_days(settings)[0], False)
    deadline, found = time.monotonic() + seconds, []
    for name in chosen or guard.ids():
        began = time.monotonic()
        try:
            state, detail = check_one(guard.repository(name), deadline)
        except Damaged as error:
            state, detail = "damaged", str(error)
        except (Busy, OSError, Trouble) as error:
            state, detail = "failed", str(error)
        taken = round(time.monotonic() - began, 3)
        found.append(
            {"repository_id": name, "state": state, "detail": detail, "seconds": taken, "archives": []}
        )
    return {"at": iso(now), "kind": "keyless", "repositories": found}


def check_one(repository: Repository, deadline: float) -> tuple[str, str]:
    """(ok or damaged, what was found) of a repository."""
    if repository.gone:
        return "damaged", "the repository is gone"
    report: dict[str, Any] = {"reasons": []}
    view, _ = current_view(repository, report)
    if view is None:
        return "ok", "nothing was ever committed"
    check_segments(repository, view, deadline, anew=True)
    last = last_check(repository)
    lost = [each["message"] for each in report["reasons"]]
    if view.lost:
        lost.append(f"{len(view.lost)} segments that the index names are missing")
    said = "; ".join([*lost, *([last["detail"]] if last["detail"] else [])])
    return "damaged" if lost or last["bad"] else "ok", said or f"{last['segments']} segments are whole"
