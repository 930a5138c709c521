# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A run of the guard over its repositories, and its other verbs."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from typing import Any

from saveos_guard.checking import check_segments
from saveos_guard.compaction import compact_repository, make_final
from saveos_guard.copies import clean, current_view, thin
from saveos_guard.errors import Busy, Damaged, Trouble
from saveos_guard.files import read_json, write_json
from saveos_guard.gate import judge, question, undecided
from saveos_guard.objects import settle
from saveos_guard.reasons import ABOUT_DATA, reason
from saveos_guard.report import UNSEEN, describe, figures
from saveos_guard.repository import Guard, Repository, kernel_clock_synced
from saveos_guard.settings import hold_days
from saveos_guard.undo import resume
from saveos_guard.values import HOUR, iso, number
from saveos_guard.word import take_in, use_approvals

VERSION = "1.0"


def guard_repository(
    guard: Guard, name: str, before: dict[str, Any], deadline: float, compact: bool
) -> dict[str, Any]:
    """Copy, check, judge, compact or hold, thin; what came of it, in place of the report from before.

    Raises for nothing in a repository: what cannot even be looked at is held.
    """
    try:
        return guard_opened(guard.repository(name), deadline, compact)
    except OSError as error:
        return {**UNSEEN, **before, "id": name, "state": "held", "reasons": [unable(error)]}


def unable(error: OSError) -> dict[str, Any]:
    """The reason of a repository with which the guard could not work."""
    code = "space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "copy"
    return reason(code, f"The guard could not do its work: {error.strerror}: {error.filename}")


def guard_opened(repository: Repository, deadline: float, compact: bool) -> dict[str, Any]:
    """As `guard_repository`. Raises OSError where what is there cannot be described."""
    began = time.monotonic()
    report: dict[str, Any] = {"id": repository.id, "state": "ok", "reasons": [], "digest": ""}
    try:
        look(repository, report, deadline, compact)
    except Busy as error:
        report["reasons"].append(reason("waiting", f"{error}", "info", holds=False))
    except Damaged as error:
        report["reasons"].append(reason("damaged", f"Repository {repository.id}: {error}"))
    except OSError as error:
        report["reasons"].append(unable(error))
    except Exception as error:  # noqa: BLE001 - one repository must not stop the guard of the others
        text = str(error) if isinstance(error, Trouble) else f"{type(error).__name__}: {error}"
        report["reasons"].append(reason("copy", f"The guard could not do its work: {text}"[:1000]))
    for each in report["reasons"]:
        each.pop("subjects", None)
        each.pop("objects", None)
    if report["state"] in ("ok", "approved"):
        codes = {each["code"] for each in report["reasons"] if each["holds"]}
        report["state"] = "damaged" if "damaged" in codes else "held" if codes else report["state"]
    report["guard_seconds"] = round(time.monotonic() - began, 3)
    if repository.clock_synced():
        with contextlib.suppress(OSError):
            thin(repository)
    describe(repository, report)
    return report


def look(repository: Repository, report: dict[str, Any], deadline: float, compact: bool) -> None:
    """The steps of a run; what they find goes into the report."""
    resume(repository)
    clean(repository)
    if repository.gone or not os.path.exists(f"{repository.path}/config"):
        report["state"] = "missing" if repository.gone else "new"
        return
    if repository.ledger.broken:
        broken = repository.ledger.broken
        text = f"The ledger was changed by others ({broken}); when you know why: saveos-guard adopt"
        report["reasons"].append(reason("ledger", text))
    if repository.state.get("compacting"):
        last = next(
            (each for each in repository.copies() if each["name"] == repository.state.get("ours")), None
        )
        compact_repository(repository, last or {"name": "", "transaction": None})
    view, copy = current_view(repository, report)
    if view is None or repository.ledger.broken:
        report["state"] = "new" if not report["reasons"] else "ok"
        return
    take_in(repository, view)
    if use_approvals(repository):
        report["state"] = "approved"
    check_segments(repository, view, deadline)
    reasons = judge(repository, view)
    if repository.state["check"]["bad"]:
        text = f"{len(repository.state['check']['bad'])} segments are damaged: see what the check says"
        reasons.append(reason("damaged", text))
    report["reasons"] += reasons
    codes = {each["code"] for each in reasons}
    report["digest"] = question(repository, reasons, view)
    good = not codes & ABOUT_DATA or (codes & ABOUT_DATA == {"waiting"} and not undecided(repository, view))
    if good and not copy.get("good"):
        repository.mark(copy, good=True)
    if not codes & ABOUT_DATA:
        settle(repository, view)
    repository.state["last_run"] = repository.now
    repository.save()
    figures(report, view)
    due = (
        repository.now - float(repository.state.get("last_compact_at") or 0)
        >= repository.settings["compact_every_hours"] * HOUR
    )
    freed, written = view.worthwhile()
    worth = freed > view.bytes * repository.settings["compact_share"]
    if compact and due and worth and not codes - {"quota"}:
        make_final(repository, report, view, copy, written)


def run(settings: dict[str, Any], chosen: list[str], now: float, compact: bool = True) -> dict[str, Any]:
    """Guard the chosen repositories, or all; the report, which is also kept for later."""
    asked = (read_json(f"{settings['state']}/word.json") or {}).get("hold_days")
    floor, refused = hold_days(settings, number(asked) if asked is not None else None)
    guard = Guard(settings, now, floor, kernel_clock_synced())
    file = f"{settings['state']}/report.json"
    known = {each["id"]: each for each in (read_json(file) or {}).get("repositories", [])}
    deadline = time.monotonic() + settings["check_seconds"]
    ids = guard.ids()
    for name in chosen or ids:
        known[name] = guard_repository(guard, name, known.get(name, {}), deadline, compact)
    disk = shutil.disk_usage(guard.root)
    report = {
        "schema": 1,
        "at": iso(now),
        "version": VERSION,
        "hold_days": floor,
        "hold_refused": refused,
        "interval_seconds": settings["interval_seconds"],
        "clock_synced": guard.kernel or any(told_the_time(guard, name) for name in (chosen or ids)[:1]),
        "free": disk.free,
        "total": disk.total,
        "repositories": [known[name] for name in sorted(known) if name in ids],
    }
    with contextlib.suppress(OSError):
        write_json(file, report)
    return report


def told_the_time(guard: Guard, name: str) -> bool:
    """Whether the clock can be trusted by what the controller said of a repository."""
    try:
        return Repository(guard, name).clock_synced()
    except OSError:
        return False


def adopt(settings: dict[str, Any], name: str, now: float) -> None:
    """Begin anew with a repository as it is now; the old ledger is kept aside."""
    repository = Guard(settings, now, hold_days(settings)[0], False).repository(name)
    for file in ("ledger.jsonl", "state.json", "accepted"):
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{repository.place}/{file}", f"{repository.place}/{file}.{int(now)}")
    repository = Repository(repository.guard, name)
    copies = repository.copies()
    repository.state["ours"] = copies[-1]["name"] if copies else ""
    repository.save()
