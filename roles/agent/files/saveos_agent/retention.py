# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Pruning, which only marks; never on the word of a clock that may be wrong."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any, Callable

from saveos_agent.borg import list_archives, run_borgmatic
from saveos_agent.delivery import ask_catalogue
from saveos_agent.errors import AgentError
from saveos_agent.machine import clock_synchronised
from saveos_agent.output import Output, classify
from saveos_agent.processes import Cancel
from saveos_agent.redaction import Redactor
from saveos_agent.runs import CANCELED, Run
from saveos_agent.settings import Repository, Settings
from saveos_agent.state import load, store
from saveos_agent.times import utc

CLOCK_GAP_SECONDS = 40 * 86400


def clock_state(settings: Settings) -> dict[str, Any]:
    """Whether the clock can be trusted with retention.

    It must be plausible (not before the last run, not 40 days after it) in any case: a clock in the future
    would make keep_within drop everything. A long gap is accepted by a synchronised clock from the next run.
    """
    known = load(settings, "clock.json")
    last = float(known.get("last", 0)) if isinstance(known, dict) else 0.0
    now = time.time()
    synchronised = clock_synchronised()
    forward, back = last > 0 and now - last > CLOCK_GAP_SECONDS, now < last - 300
    if not back and (not forward or synchronised):
        with contextlib.suppress(OSError):
            store(settings, "clock.json", {"last": now})
    return {
        "synchronised": synchronised,
        "plausible": not forward and not back,
        "last_run": utc(last) if last else None,
    }


def prune(  # noqa: PLR0917
    run: Run,
    repository: Repository,
    redactor: Redactor,
    clock: dict[str, Any],
    cancel: Cancel,
    say: Callable[[str], None],
) -> None:
    """Mark archives that retention no longer keeps (the server compacts). Its outcome shows in health."""
    settings = run.settings
    outcome: dict[str, Any] = {"at": utc(), "state": "succeeded", "error": None}
    try:
        configured = "keep_" in repository.config.read_text()
    except OSError:
        configured = False
    if not configured:
        return
    if not clock["plausible"]:
        error = AgentError(
            "clock",
            "Retention was skipped: the clock jumped since the last run.",
            "Synchronise the clock (NTP).",
        )
        outcome.update(state="skipped", error=error.as_dict())
    else:
        output = Output(redactor)
        # By the policy's days, not the host's, so that the guard and the simulator reckon with the same ones.
        zone = str(settings.schedule.get("zone") or "")
        status = run_borgmatic(run, repository, output, cancel, "prune", "--list", zone=zone)
        if status != 0:
            outcome.update(state="failed", error=CANCELED if cancel.requested else classify(output))
        if any(PRUNED in text for text in output.log):
            tell_living(settings, repository)
    if outcome["error"]:
        say(f"{repository.id}: retention {outcome['state']}. {outcome['error']['message']}")
    known = load(settings, "prune.json")
    with contextlib.suppress(OSError):
        store(settings, "prune.json", {**(known if isinstance(known, dict) else {}), repository.id: outcome})


PRUNED = "Pruning archive"  # as Borg's list says it


def tell_living(settings: Settings, repository: Repository) -> None:
    """Tell the controller which archives there are; what is not told now is told after the next that goes."""
    if settings.controller_url:
        with contextlib.suppress(AgentError, OSError, ValueError):
            archives = [item["id"] for item in list_archives(settings, repository)]
            renames = load(settings, "renames.json")
            renamed = [
                {"was": was, "now": each["id"], "name": each["name"]}
                for was, each in (renames if isinstance(renames, dict) else {}).items()
                if each.get("id") in archives
            ]
            living = json.dumps({"archives": archives, **({"renamed": renamed} if renamed else {})})
            ask_catalogue(settings, "POST", f"/agents/catalogue/{repository.id}/living", living.encode())
