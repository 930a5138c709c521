# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Restore."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any, Callable

from saveos_agent.answers import record_answer
from saveos_agent.control import settle, wait_for_record
from saveos_agent.delivery import deliver
from saveos_agent.errors import EXIT_FAILED, EXIT_OK, AgentError, refused, usage
from saveos_agent.extraction import Restoring
from saveos_agent.files import remove_tree
from saveos_agent.output import RULES
from saveos_agent.processes import Cancel, processes_of, start_time
from saveos_agent.request import RestoreRequest, check_restore
from saveos_agent.runs import DIED, Run, failure, heal
from saveos_agent.settings import Settings
from saveos_agent.state import LOCK_WAIT_SECONDS, Lock, discard, find_record, load, store
from saveos_agent.workers import start_restore

BEGIN_SECONDS = 60


def wait_for_restore(settings: Settings, request: RestoreRequest, seconds: float) -> dict[str, Any]:
    """Start a restore detached from this session and return its record; the same run id starts it once."""
    with Lock(settings, "begin.lock") as begin:  # the same run id may be asked for twice at once
        if not begin.acquire(BEGIN_SECONDS):
            raise refused("Another restore has been about to begin for a minute.", "Try again.")
        known = find_record(settings, request.run_id)
        if known:
            return known
        active = load(settings, "active.json") or {}
        running = active.get("run_id") == request.run_id or bool(processes_of(request.run_id))
        if not running and not load(settings, request.state_file):
            check_restore(settings, request)
            store(settings, request.state_file, {"request": vars(request), "tries": 0})
            start_restore(settings, request.run_id)

    def working() -> bool:
        active = load(settings, "active.json") or {}
        holds = active.get("run_id") == request.run_id and start_time(active["pid"]) == active["pid_started"]
        return holds or bool(processes_of(request.run_id))

    run: dict[str, Any] = {"run_id": request.run_id, "kind": "restore", "trigger": request.trigger}
    run.update(job_id=request.job_id or None, repository_id=request.repository_of(settings).id)
    return wait_for_record(settings, run, working, seconds, every=1)


def saved_request(settings: Settings, run_id: str) -> RestoreRequest:
    """The request that a run was started with. Raises AgentError where there is none."""
    saved = load(settings, f"restoring/{run_id}.json")
    if not isinstance(saved, dict):
        raise usage(f"No restore {run_id} is under way.")
    fields_ = dict(saved["request"])
    fields_.update(paths=tuple(fields_["paths"]), excludes=tuple(fields_["excludes"]))
    return RestoreRequest(**fields_)


def resume_restore(settings: Settings) -> None:
    """Let a restore go on that nobody waits for and whose process is gone."""
    active = load(settings, "active.json")
    if not isinstance(active, dict) or active.get("kind") != "restore":
        return
    if start_time(int(active.get("pid") or 0)) != active.get("pid_started"):
        settle(settings, active, DIED)


def restore(settings: Settings, request: RestoreRequest, say: Callable[[str], None]) -> int:
    """The worker: wait for the turn, extract aside, verify, move into place, record."""
    cancel = Cancel()
    cancel.install()
    with Lock(settings) as lock:
        deadline = time.monotonic() + LOCK_WAIT_SECONDS
        while not lock.acquire(1):
            if cancel.requested or time.monotonic() > deadline:
                discard(settings, request.state_file)
                raise AgentError("canceled", "Canceled before it began.")
        heal(settings, own=request.run_id)
        record = find_record(settings, request.run_id) or restore_once(settings, request, cancel)
        discard(settings, request.state_file)
        discard(settings, "active.json")
    for line in record_answer(record).lines:
        say(line)
    with contextlib.suppress(AgentError, OSError):
        deliver(settings)
    return EXIT_OK if record["state"] in ("succeeded", "warning") else EXIT_FAILED


def restore_once(settings: Settings, request: RestoreRequest, cancel: Cancel) -> dict[str, Any]:
    repository = request.repository_of(settings)
    run = Run(settings, "restore", request.run_id, request.trigger, request.job_id or None)
    saved = load(settings, request.state_file) or {"request": vars(request), "tries": 0}
    saved["tries"] += 1
    work = Restoring(settings, request, run, repository, cancel, saved)
    try:
        result = work.do()
    except AgentError as error:
        result = failure(repository.id, error.as_dict(), "canceled" if error.code == "canceled" else "failed")
    except OSError as error:
        rule = next((rule for rule in RULES if rule.code == "disk_full"), None) if error.errno == 28 else None
        code, fix = (rule.code, rule.fix) if rule else ("unknown", "Name a destination that can be written.")
        text = f"{work.destination} cannot be written: {error.strerror}."
        result = failure(repository.id, AgentError(code, text, fix).as_dict())
    finally:
        if run.partial:
            remove_tree(Path(run.partial))
    run.results.append(result)
    return run.finish()
