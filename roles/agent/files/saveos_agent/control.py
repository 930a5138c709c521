# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Starting a backup, waiting for it, stopping a run."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from typing import Any, Callable, Optional

from saveos_agent.errors import AgentError
from saveos_agent.processes import (
    POLL_SECONDS,
    TERM_SECONDS,
    end_processes,
    processes_of,
    start_time,
    systemctl,
)
from saveos_agent.runs import CANCELED, DIED, heal, record_end
from saveos_agent.settings import Settings
from saveos_agent.state import (
    Lock,
    discard,
    find_record,
    keep_request,
    load,
    pending_request,
    put_request,
    withdraw_request,
)
from saveos_agent.times import utc
from saveos_agent.workers import go_on, spawn

START_TRIES = 5
START_EVERY = 3  # seconds between them


def start_backup(settings: Settings) -> None:
    """Start the same unit as the timer does; without systemd, the same command in a session of its own."""
    if settings.systemd:
        done = systemctl("start", "--no-block", settings.unit)
        if done.returncode != 0:
            raise AgentError(
                "unit_failed",
                f"{settings.unit} cannot be started: {done.stderr.strip()[-300:]}",
                "Provision the host again.",
            )
    else:
        spawn(settings, "", "backup", "--requested")


def is_starting(settings: Settings) -> bool:
    """Whether systemd has the unit's process already, however slowly it begins."""
    return settings.systemd and systemctl("is-active", settings.unit).stdout.strip() in ("activating", "active")


def request_backup(settings: Settings, run_id: str, job_id: str, trigger: str) -> tuple[str, bool]:
    """Ask for a run, or join the one that is running. Returns its id and whether it must be started."""
    if find_record(settings, run_id):
        return run_id, False
    active = load(settings, "active.json") or {}
    if active.get("kind") == "backup" and active.get("phase") == "run" and Lock(settings).held():
        return str(active["run_id"]), False
    return put_request(settings, run_id, job_id, trigger), True


def wait_for_backup(
    settings: Settings, run_id: str, job_id: str, trigger: str, seconds: float
) -> dict[str, Any]:
    """Start a backup (or join the running one) and return its record."""
    wanted, start = request_backup(settings, run_id, job_id, trigger)
    lock, tries, next_try = Lock(settings), 0, 0.0

    def working() -> bool:
        """Whether the run is under way; starts it again where its worker never took the request."""
        nonlocal tries, next_try
        if lock.held():
            return True
        if not start or (pending_request(settings) or {}).get("run_id") != wanted:
            return lock.held()  # a worker may have taken lock and request between the two looks
        keep_request(settings)
        if time.monotonic() >= next_try:
            next_try = time.monotonic() + START_EVERY
            if tries and is_starting(settings):
                return True
            if tries == START_TRIES:
                withdraw_request(settings, wanted)
                return False
            tries += 1
            start_backup(settings)
        return True

    run = {"run_id": wanted, "kind": "backup", "trigger": trigger, "job_id": job_id or None}
    return {**wait_for_record(settings, run, working, seconds), "joined": wanted != run_id}


def wait_for_record(
    settings: Settings,
    run: dict[str, Any],
    working: Callable[[], bool],
    seconds: float,
    every: float = POLL_SECONDS,
) -> dict[str, Any]:
    """Wait for a run's record; where nobody works on the run any more, record that it died."""
    deadline, next_check = time.monotonic() + seconds, 0.0
    while True:
        record = find_record(settings, run["run_id"])
        if record:
            return record
        now = time.monotonic()
        if now > deadline:
            raise AgentError(
                "timeout",
                f"Run {run['run_id']} has not ended in {seconds:.0f} s; it goes on.",
                "Ask again with the same run id.",
            )
        if now >= next_check:
            next_check = now + every
            if not working():
                settle(settings, run, DIED)
        time.sleep(POLL_SECONDS)


def settle(settings: Settings, run: dict[str, Any], error: dict[str, str]) -> None:
    """Record a run whose process is gone, unless it left its record in the meantime."""
    with Lock(settings) as lock:
        if lock.acquire(1):
            heal(settings, error)
        if find_record(settings, run["run_id"]) or processes_of(run["run_id"]):
            return
        if error is not DIED or not go_on(settings, run["run_id"]):
            discard(settings, f"restoring/{run['run_id']}.json")
            record_end(settings, {"started_at": utc(), **run}, error)


def stop_run(settings: Settings, run_id: str = "", kind: str = "") -> dict[str, Any]:
    """End a run with all its processes, and leave a canceled record. Returns {"stopped", "run"}."""
    request = pending_request(settings)
    if request and run_id in ("", request["run_id"]) and kind in ("", "backup"):
        withdraw_request(settings, request["run_id"])
        if not Lock(settings).held():
            now = {**request, "kind": "backup", "started_at": utc()}
            record = record_end(settings, now, CANCELED)
            return {"stopped": True, "run": record}
    active = load(settings, "active.json") or {}
    wanted = run_id or active.get("run_id") or ""
    if wanted:  # nobody lets it go on
        discard(settings, f"restoring/{wanted}.json")
    if run_id and (find_record(settings, run_id) or active.get("run_id") != run_id):
        return stop_queued(settings, run_id, request)
    if not active or (kind and active.get("kind") != kind) or not Lock(settings).held():
        return {"stopped": False, "run": find_record(settings, wanted)}
    end_active(active)
    with Lock(settings) as lock:
        if not lock.acquire(2):
            raise AgentError("unknown", f"Run {wanted} does not end.", "End its processes by hand.")
        heal(settings, CANCELED)
    return {"stopped": True, "run": find_record(settings, wanted)}


def stop_queued(settings: Settings, run_id: str, request: Optional[dict[str, Any]]) -> dict[str, Any]:
    """End a run that waits for its turn: a request that was withdrawn, or a restore behind the lock."""
    record = find_record(settings, run_id)
    if record:
        return {"stopped": False, "run": record}
    waiting = processes_of(run_id)
    if not waiting and not (request and request["run_id"] == run_id):
        return {"stopped": False, "run": None}
    end_processes(run_id)
    now = {"kind": "restore" if waiting else "backup", "trigger": "host", "job_id": None, **(request or {})}
    now.update(run_id=run_id, started_at=utc())
    return {"stopped": True, "run": find_record(settings, run_id) or record_end(settings, now, CANCELED)}


def end_active(active: dict[str, Any]) -> None:
    """Stop the unit, or end the process that holds the lock; kill what does not end in time."""
    if active.get("unit"):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            systemctl("stop", active["unit"], seconds=60)
    pid = int(active.get("pid") or 0)

    def alive() -> bool:
        return pid > 0 and start_time(pid) == active.get("pid_started")

    deadline = time.monotonic() + TERM_SECONDS + 5
    if alive():
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGTERM)
    while alive() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    if alive():
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    end_processes(active["run_id"], grace=2)
