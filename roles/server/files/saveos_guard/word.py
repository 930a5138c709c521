# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The controller's word: kept, entered into the ledger, and what it approves."""

from __future__ import annotations

import contextlib
import os
import re
from typing import Any

from saveos_guard.errors import Damaged, Trouble
from saveos_guard.files import read_json, write_json
from saveos_guard.objects import accept_objects
from saveos_guard.reasons import LIFTABLE
from saveos_guard.repository import Repository
from saveos_guard.retention import rules_of
from saveos_guard.settings import ID, hold_days
from saveos_guard.values import DAY, number, seconds_of
from saveos_guard.view import View

HEX = re.compile(r"[0-9a-f]{64}")


def tell(settings: dict[str, Any], word: Any, now: float) -> dict[str, Any] | None:
    """Keep the controller's word for the next run; returns what of it is refused."""
    if not isinstance(word, dict) or word.get("schema") != 1 or seconds_of(word.get("at")) is None:
        raise Trouble("the controller's word is none: it must be an object with schema 1 and at")
    for name, told in (word.get("repositories") or {}).items():
        if not ID.fullmatch(str(name)) or not isinstance(told, dict):
            raise Trouble(f"the controller's word is none: {name!r} is no repository")
        place = f"{settings['state']}/{name}"
        os.makedirs(place, mode=0o700, exist_ok=True)
        write_json(f"{place}/told.json", {**told, "at": word["at"], "arrived": now})
    asked = word.get("hold_days")
    _, refused = hold_days(settings, number(asked) if asked is not None else None)
    write_json(f"{settings['state']}/word.json", {"hold_days": asked})
    return refused


def take_in(repository: Repository, view: View) -> None:
    """Enter told archives, policy and the key into the ledger; note which archives live no more."""
    ledger, now = repository.ledger, repository.now
    if not ledger.started:
        ledger.add("start", now, transaction=view.transaction)
    if not ledger.keys:
        ledger.add("key", now, digest=view.key, why="first seen")
    said = {"rules": rules_of(repository.told.get("retention")), "zone": str(repository.told.get("zone") or "")}
    if said["rules"] and (not ledger.policies or {key: ledger.policies[-1][key] for key in said} != said):
        ledger.add("policy", now, **said)
    enter_archives(repository, view)
    after = float(repository.state.get("last_run") or 0)
    for entry in ledger.of("gone", "ended"):
        if view.index.get(bytes.fromhex(entry.id)) is not None:
            ledger.add("back", now, id=entry.id)
    for entry in ledger.of("live"):
        if view.index.get(bytes.fromhex(entry.id)) is None:
            since = min(after or now, entry.at) if entry.seen is None else after
            ledger.add("gone", now, id=entry.id, after=since)


def enter_archives(repository: Repository, view: View) -> None:
    """Enter archives that are told for the first time, in the order in which they came here."""
    ledger, adopting = repository.ledger, not repository.ledger.archives
    word = [each for each in repository.told.get("archives") or [] if isinstance(each, dict)]
    asked = {str(told.get("id")) for told in word if told.get("requested") is True}
    former = {entry.told_at: entry.seen for entry in ledger.archives.values() if entry.id in asked}
    marks = [entry.segment for entry in ledger.archives.values() if entry.segment is not None]
    fresh = []
    for told in word:
        each, at = str(told.get("id")), seconds_of(told.get("at"))
        if each not in ledger.archives and at is not None and HEX.fullmatch(each):
            fresh.append((view.index.get(bytes.fromhex(each)), at, each, told))
    for where, at, each, told in sorted(fresh, key=lambda item: (item[0] or (0, 0), *item[1:3])):
        if where is None and adopting:
            continue  # it went before the guard came
        seen, grown = None, 0
        if where:
            # one that a person renamed has another id, and was seen before
            seen = former.get(at) or seen_at(repository, view, each, where, at)
            before = max((mark for mark in marks if mark < where[0]), default=-1)
            grown = sum(one.st_size for n, one in view.segments.items() if before < n <= where[0])
            marks.append(where[0])
        believed = seen if seen is not None and at > seen + DAY else min(at, repository.now + DAY)
        ledger.add(
            "archive", repository.now, id=each, at=believed, told_at=at,
            seen=seen, segment=where[0] if where else None, grown=grown, adopted=adopting,
            files=told.get("files"), size=told.get("size"), name=str(told.get("name") or "")[:400],
        )  # fmt: skip


def seen_at(repository: Repository, view: View, each: str, where: tuple[int, int], told_at: float) -> float:
    """When an archive's object was committed here; an older copy knows it if a compact moved it since."""
    when = view.segments[where[0]].st_mtime if where[0] in view.segments else repository.now
    if when - told_at > DAY:
        for copy in repository.copies():
            with contextlib.suppress(Damaged, OSError, KeyError, ValueError):
                older = View(f"{repository.hold}/{copy['name']}")
                if (found := older.index.get(bytes.fromhex(each))) and found[0] in older.segments:
                    return min(when, older.segments[found[0]].st_mtime)
    return when


def use_approvals(repository: Repository) -> bool:
    """Accept what a person approved: exactly what was shown under that digest, of that one reason."""
    ledger, now, used = repository.ledger, repository.now, False
    for told in repository.told.get("approvals") or []:
        name, code, digest = str(told.get("id")), str(told.get("reason")), str(told.get("digest"))
        until = seconds_of(told.get("until"))
        if name in ledger.lifted or code not in LIFTABLE or not HEX.fullmatch(digest):
            continue
        held = read_json(f"{repository.place}/held-{digest}.json") or {}
        if (until is not None and until < now) or code not in held.get("subjects", {}):
            continue
        ids = held["subjects"][code]
        if code in ("freeable", "tampered"):
            accept_objects(repository, held["objects"].get(code, {}))
        if code == "freeable":
            repository.state["baseline"] = max(repository.baseline, held["freeable"])
            repository.save()
        if code == "key":
            ledger.add("key", now, digest=ids[0], why="approved")
        few = ids if code in ("vanished", "shrunk", "future", "unexpected") else []
        by = str(told.get("by") or "")[:200]
        if code == "vanished":
            for each in few:
                if ledger.archives[each].status == "gone":
                    ledger.add("ended", now, id=each, why="approved", by=by)
        ledger.add("accept", now, approval=name, code=code, digest=digest, by=by, ids=few)
        used = True
    return used
