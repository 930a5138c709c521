# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The gate: every reason why what is marked must not become final now."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from typing import Any

from saveos_guard.archives import gone_by_policy, odd_times, shrunk
from saveos_guard.files import write_json
from saveos_guard.objects import accept_all, marked
from saveos_guard.reasons import LIFTABLE, listed, reason
from saveos_guard.repository import Repository
from saveos_guard.values import DAY, mib
from saveos_guard.view import View


def judge(repository: Repository, view: View) -> list[dict[str, Any]]:
    """Every reason why this repository's marks must not be made final now."""
    ledger, settings, told, found = repository.ledger, repository.settings, repository.told, []
    fresh = repository.told_at() >= view.at
    found += judge_archives(repository, fresh)
    found += judge_objects(repository, view, fresh)
    if view.key != ledger.keys[-1]:
        text = "The repository's key or id was changed: the passphrase that is in escrow may open it no more"
        found.append(reason("key", text, subjects=[view.key]))
    if view.lost:
        text = f"{len(view.lost)} segments that the index names are missing"
        found.append(reason("damaged", text))
    if not repository.clock_synced():
        found.append(
            reason("clock", "This server's clock is not in sync: nothing expires until it is", "warning")
        )
    if told.get("open_alerts"):
        names = ", ".join(str(each) for each in told["open_alerts"])[:300]
        found.append(reason("alert", f"Alerts are open for this host: {names}", "warning"))
    silent = repository.now - repository.told_at()
    if silent > settings["silent_days"] * DAY:
        if repository.told_at():
            text = f"The controller has said nothing for {int(silent / DAY)} days"
            found.append(reason("silent", text, "warning"))
        else:
            text = "No controller has said anything of this repository yet"
            found.append(reason("silent", text, "info", holds=False))
    elif not fresh:
        text = "The controller's word is older than the last commit"
        found.append(reason("waiting", text, "info", holds=False))
    free, needed = shutil.disk_usage(repository.guard.root).free, settings["reserve_bytes"]
    if free < needed:
        found.append(
            reason("space", f"Only {mib(free)} are free, {mib(needed)} are kept in reserve", "warning")
        )
    return found + judge_quota(repository, view)


def judge_archives(repository: Repository, fresh: bool) -> list[dict[str, Any]]:
    """What archives went that should not have, or are what they cannot be."""
    ledger, now = repository.ledger, repository.now
    told = {str(each.get("id")): each for each in repository.told.get("archives") or []}
    protected = {each for each, entry in told.items() if entry.get("protected")}
    policies = ledger.active_policies(now, repository.guard.floor * DAY)
    by_policy = gone_by_policy(ledger, protected, policies) if fresh else set()
    for entry in ledger.of("gone"):
        asked = told.get(entry.id, {}).get("requested") is True
        if asked or entry.id in by_policy:
            ledger.add("ended", now, id=entry.id, why="requested" if asked else "policy")
    found = []
    left = ledger.of("gone")
    settled = now - repository.settings["settle_seconds"] + 1
    known = [each for each in left if fresh and each.gone_at < settled]
    if known:
        text = f"{len(known)} archives were deleted that the policy keeps"
        found.append(reason("vanished", text, **listed(known)))
    elif left:
        text = f"{len(left)} archives are gone; whether the policy let them go is not known yet"
        found.append(reason("waiting", text, "info", holds=False, archives=len(left)))
    times = odd_times(ledger)
    for code, text in (
        ("future", "archives say they were made in the future"),
        ("unexpected", "archives came late and say they are older than others"),
    ):
        odd = [ledger.archives[each] for each, found_code in times.items() if found_code == code]
        odd = [each for each in odd if each.status != "ended" and code not in each.accepted]
        if odd:
            found.append(reason(code, f"{len(odd)} {text}", **listed(odd)))
    small = shrunk(ledger, repository.settings["shrink_limit"])
    if small:
        text = f"The newest archive {small.name} holds far less than those before it"
        found.append(reason("shrunk", text, "warning", subjects=[small.id], archives=1))
    return found


def excess(repository: Repository, view: View) -> str:
    """Why more was marked deleted than archives that ended can explain; an empty string when they do."""
    fresh = max(0, view.freeable_bytes - repository.baseline)
    share, limit = fresh / max(1, view.bytes), repository.settings["freeable_limit"]
    budget = max(0, repository.brought() - int(repository.state.get("spent") or 0))
    if share > limit:
        return f"{share:.0%} of the repository ({mib(fresh)}) were marked deleted, more than {limit:.0%}"
    if fresh > budget + (4 << 20) + view.bytes // 100:
        return f"{mib(fresh)} were marked deleted, but the archives that ended brought only {mib(budget)}"
    return ""


def judge_objects(repository: Repository, view: View, fresh: bool) -> list[dict[str, Any]]:
    """What is marked deleted or was written over, without a look at any archive."""
    if "baseline" not in repository.state:  # the guard is new here: what was marked is judged by its share
        accept_all(repository, view)
        small = view.freeable_bytes <= view.bytes * repository.settings["freeable_limit"]
        repository.state["baseline"] = view.freeable_bytes if small else 0
        repository.save()
    deleted, over = marked(repository, view)
    found = []
    if over:
        text = f"{len(over)} objects of the repository were written over, which no backup does"
        digest = hashlib.sha256("".join(f"{key}{where}" for key, where in sorted(over.items())).encode())
        found.append(reason("tampered", text, subjects=[digest.hexdigest()], objects=over))
    if text := excess(repository, view):
        if fresh or not repository.told_at():
            digest = hashlib.sha256(f"{view.freeable_bytes} {sorted(deleted)}".encode())
            size, subjects = max(0, view.freeable_bytes - repository.baseline), [digest.hexdigest()]
            found.append(reason("freeable", text, objects=deleted, bytes=size, subjects=subjects))
        else:
            found.append(reason("waiting", f"{text}; whether archives ended is not known yet", "info", False))
    return found


def judge_quota(repository: Repository, view: View) -> list[dict[str, Any]]:
    """A warning before the quota is full; it holds nothing."""
    quota = repository.quota
    if not quota or view.quota_used < quota * repository.settings["quota_warning"]:
        return []
    text = f"{view.quota_used / quota:.0%} of the quota are used: backups fail when it is full"
    return [reason("quota", text, "warning", holds=False, bytes=view.quota_used)]


def question(repository: Repository, reasons: list[dict[str, Any]], view: View) -> str:
    """What a person approves: a digest over all that is in question, kept with it."""
    subjects = {each["code"]: each.get("subjects", []) for each in reasons if each["code"] in LIFTABLE}
    if not subjects:
        return ""
    digest = hashlib.sha256(json.dumps([repository.id, subjects], sort_keys=True).encode()).hexdigest()
    file = f"{repository.place}/held-{digest}.json"
    if not os.path.exists(file):
        codes, now = sorted(subjects), repository.now
        objects = {each["code"]: each["objects"] for each in reasons if "objects" in each}
        shown = {"subjects": subjects, "objects": objects, "freeable": view.freeable_bytes, "at": now}
        write_json(file, shown)
        repository.ledger.add("hold", now, digest=digest, codes=codes, transaction=view.transaction)
        held = [each.path for each in os.scandir(repository.place) if each.name.startswith("held-")]
        for old in sorted(held, key=os.path.getmtime)[:-20]:
            os.unlink(old)
    return digest


def undecided(repository: Repository, view: View) -> bool:
    """Whether something is marked that could not be judged yet."""
    return bool(repository.ledger.of("gone") or excess(repository, view))
