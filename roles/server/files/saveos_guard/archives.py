# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a ledger's archives tell: odd times, policy, a sudden shrinking."""

from __future__ import annotations

from typing import Any

from saveos_guard.ledger import Entry, Ledger
from saveos_guard.retention import kept, zones_of
from saveos_guard.values import DAY, HOUR


def odd_times(ledger: Ledger) -> dict[str, str]:
    """Archives with a time that cannot be, by id: `future`, or `unexpected` for back-dated.

    A repository has one writer, so an archive that came later is not much older than one that came before.
    """
    found: dict[str, str] = {}
    newest = float("-inf")
    known = [(each.seen, each.told_at, each) for each in ledger.archives.values() if each.seen is not None]
    for seen, told_at, entry in sorted(known, key=lambda item: item[:2]):
        if told_at > seen + DAY:
            found[entry.id] = "future"
            continue
        if newest > told_at + DAY:
            found[entry.id] = "unexpected"
        newest = max(newest, told_at)
    return {each: code for each, code in found.items() if not ledger.archives[each].adopted}


def gone_by_policy(ledger: Ledger, protected: set[str], policies: list[dict[str, Any]]) -> set[str]:
    """Ids of gone archives that every policy let prune drop at some moment between last sight and absence.

    Borg's own rules are applied to what was there, in the host's zone or any other: only a host knows its zone.
    Archives with a time that cannot be count for nothing, so they push no other out.
    """
    found: set[str] = set()
    odd = {each for each in odd_times(ledger) if not ledger.archives[each].accepted}
    for start, end in {(each.gone_after, each.gone_at) for each in ledger.of("gone")}:
        group = {
            each.id for each in ledger.of("gone") if (each.gone_after, each.gone_at) == (start, end)
        } - protected
        there = [
            each
            for each in ledger.archives.values()
            if each.id not in protected | odd and (each.status == "live" or each.gone_at > start)
        ]
        came = {each.id: each.at if each.seen is None else each.seen for each in there}
        moments = sorted({start, *(when for when in came.values() if start < when <= end)}, reverse=True)[:100]
        free = group if policies else set()
        for policy in policies:
            goes: set[str] = set()
            for moment in moments:
                archives = [(each.at, each.id) for each in there if came[each.id] <= moment or each.id in group]
                for zone in zones_of(policy.get("zone")):
                    if goes < free:
                        goes |= group - kept(archives, policy["rules"], end + HOUR, zone)
            free = free & goes
        found |= free
    return found


def shrunk(ledger: Ledger, limit: float) -> Entry | None:
    """The newest archive, when it holds far less than those before it did."""
    usual: list[Entry] = []
    last = None
    for entry in sorted(
        (each for each in ledger.archives.values() if each.seen is not None), key=lambda each: each.at
    ):
        few = usual[-5:]
        small = False
        for value in ("size", "files"):
            known = sorted(getattr(each, value) for each in few if getattr(each, value) is not None)
            mine = getattr(entry, value)
            if known and mine is not None:
                middle = known[len(known) // 2]
                small |= mine < middle * (1 - limit) and middle > (1 << 20 if value == "size" else 100)
        if "shrunk" in entry.accepted or entry.adopted:
            usual = [] if small else usual
            small = False
        if not small:
            usual.append(entry)
        last = entry if small else None
    return last
