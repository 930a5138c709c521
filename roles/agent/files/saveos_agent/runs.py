# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""The record of a run: begun, progressing, finished, or finished by whoever finds it dead."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator, Optional

from saveos_agent.delivery import post
from saveos_agent.errors import AgentError, refused
from saveos_agent.files import remove, remove_tree
from saveos_agent.machine import versions
from saveos_agent.output import LOG_BYTES
from saveos_agent.processes import end_processes, own_unit, start_time
from saveos_agent.settings import Settings
from saveos_agent.state import Lock, discard, find_record, load, save_record, store
from saveos_agent.times import UUID, utc
from saveos_agent.workers import go_on

PROGRESS_POST_SECONDS, PROGRESS_KEEP_SECONDS, PROGRESS_LOST_SECONDS = 3, 60, 30


@dataclass
class Run:
    """One run in progress: what it is, and what is known so far."""

    settings: Settings
    kind: str
    run_id: str
    trigger: str
    job_id: Optional[str]
    started_at: str = field(default_factory=utc)
    results: list[dict[str, Any]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    restore: Optional[dict[str, Any]] = None
    repository_id: str = ""  # of a restore; a backup goes to all of them
    partial: str = ""
    phase: str = "run"
    progress: Optional[Progress] = None

    def announce(self) -> None:
        """Write active.json: who holds the lock, and what the next run must heal if this one dies."""
        data: dict[str, Any] = {
            "run_id": self.run_id,
            "kind": self.kind,
            "trigger": self.trigger,
            "job_id": self.job_id,
        }
        data.update(started_at=self.started_at, phase=self.phase, pid=os.getpid(), unit=own_unit(self.settings))
        data.update(pid_started=start_time(os.getpid()), partial=self.partial, repository_id=self.repository_id)
        store(self.settings, "active.json", data)

    @property
    def tells(self) -> bool:
        """Whether anyone is told how far this is."""
        return bool(self.settings.controller_url)

    def tell(self, phase: str, repository_id: str, borg: Optional[dict[str, Any]] = None) -> None:
        """Let the controller know how far this is, if there is one: start, create, finish or extract."""
        if not self.tells:
            return
        if self.progress is None:
            self.progress = Progress(self.settings, self)
        borg = borg or {}
        sizes = ("original_size", "compressed_size", "deduplicated_size")
        self.progress.newest = {
            "phase": phase,
            "repository_id": repository_id or None,
            "files": borg.get("nfiles"),
            **{name: borg.get(name) for name in sizes},
        }

    def finish(self) -> dict[str, Any]:
        """Make the record of a finished run, save it, and return it."""
        if self.progress is not None:
            self.progress.ended.set()
        return finish_record(self.settings, vars(self), self.results, "\n".join(self.log), self.restore)


def finish_record(
    settings: Settings,
    run: dict[str, Any],
    results: list[dict[str, Any]],
    log: str,
    restore: Optional[dict[str, Any]] = None,
) -> dict[str, Any]:
    record = {
        "schema": 1,
        "run_id": run["run_id"],
        "kind": run["kind"],
        "host": settings.host,
        "host_id": settings.host_id,
        "trigger": run["trigger"],
        "job_id": run["job_id"],
        "state": worst([result["state"] for result in results]),
        "started_at": run["started_at"],
        "finished_at": utc(),
        "results": results,
        "log_tail": tail(log, LOG_BYTES),
        "versions": versions(settings),
        "joined": False,
    }
    if restore is not None:
        record["restore"] = restore
    save_record(settings, record)
    return record


class Progress:
    """Tells the controller how far a run is: at once, then at most once a second, always the newest only.

    A thread of its own posts, so that a slow controller never slows Borg. What fails is not told again; the
    record of the run is what counts.
    """

    def __init__(self, settings: Settings, run: Run) -> None:
        self.settings = settings
        self.about = {
            "run_id": run.run_id,
            "kind": run.kind,
            "trigger": run.trigger,
            "job_id": run.job_id or None,
            "started_at": run.started_at,
        }
        self.newest: dict[str, Any] = {"phase": "start"}
        self.ended = threading.Event()
        threading.Thread(target=self._post_until_ended, name="progress", daemon=True).start()

    def _post_until_ended(self) -> None:
        began = told_at = time.monotonic()
        told: Optional[dict[str, Any]] = None
        pause = 0.1  # the first words of a run come together
        while not self.ended.wait(pause):
            newest, now = self.newest, time.monotonic()
            pause = 1.0
            if newest is told and now - told_at < PROGRESS_KEEP_SECONDS:
                continue
            told, told_at = newest, now
            pause = min(5.0, max(1.0, (now - began) / 60)) if self._post(newest) else PROGRESS_LOST_SECONDS

    def _post(self, newest: dict[str, Any]) -> bool:
        try:
            answer = post(self.settings, "progress", {**self.about, **newest}, PROGRESS_POST_SECONDS)
        except AgentError:
            return False
        return 200 <= answer < 300


def worst(states: list[str]) -> str:
    for state in ("canceled", "failed", "warning", "succeeded"):
        if state in states:
            return state
    return "failed"


def tail(text: str, size: int) -> str:
    """The last bytes of a text, cut at a line."""
    data = text.encode("utf-8", "replace")
    if len(data) <= size:
        return text
    return data[-size:].decode("utf-8", "ignore").partition("\n")[2]


def failure(
    repository_id: str, error: dict[str, str], state: str = "failed", exit_code: Optional[int] = None
) -> dict[str, Any]:
    return {
        "repository_id": repository_id,
        "state": state,
        "exit_code": exit_code,
        "archive": None,
        "error": error,
        "warnings": [],
    }


CANCELED = AgentError("canceled", "The run was canceled.", "Start it again when it suits.").as_dict()
DIED = AgentError(
    "unknown",
    "The run ended without a record: its process was killed, or the host went down.",
    "Start it again; nothing needs repair, borg rolls an unfinished archive back by itself.",
).as_dict()


def record_end(settings: Settings, run: dict[str, Any], error: dict[str, str]) -> dict[str, Any]:
    """Record a run that could not do so itself."""
    state = "canceled" if error["code"] == "canceled" else "failed"
    ids = [run["repository_id"]] if run.get("repository_id") else [item.id for item in settings.repositories]
    return finish_record(settings, run, [failure(item, error, state) for item in ids or [""]], "")


def heal(settings: Settings, error: dict[str, str] = DIED, own: str = "") -> None:
    """With the lock held: finish what a dead run left behind (its processes, its record, its partial files).

    A restore that died goes on by itself; `own` is the run that does so now.
    """
    active = load(settings, "active.json")
    if isinstance(active, dict) and active.get("run_id"):
        run_id = str(active["run_id"])
        end_processes(run_id)
        dead = error is DIED and active.get("kind") == "restore" and not find_record(settings, run_id)
        if not (dead and (own == run_id or go_on(settings, run_id))):
            discard(settings, f"restoring/{run_id}.json")
            partial = str(active.get("partial") or "")
            if partial.endswith(".saveos-partial"):
                remove_tree(Path(partial))
            if not find_record(settings, run_id):
                record_end(settings, active, error)
    remove_drill(settings)
    remove_export(settings)
    discard(settings, "active.json")


def remove_export(settings: Settings) -> None:
    """With the lock held: take away the part of a file that an export which was killed has left."""
    left = load(settings, "export.json")
    if not isinstance(left, dict):
        return
    if UUID.match(str(left.get("run_id"))):
        end_processes(str(left["run_id"]), grace=2)
    if str(left.get("partial")).endswith(".saveos-partial"):
        remove(Path(str(left["partial"])))
    discard(settings, "export.json")


def remove_drill(settings: Settings) -> None:
    """With the lock held: take away what a drill or a transfer has restored, also one that was killed."""
    left = load(settings, "drill.json")
    if not isinstance(left, dict):
        return
    scratch = Path(str(left.get("scratch")))
    if UUID.match(str(left.get("run_id"))):
        end_processes(str(left["run_id"]), grace=2)
    if re.fullmatch(r"saveos-(drill|send)-[0-9a-f]{16}", scratch.name):
        remove_tree(scratch)
    discard(settings, "drill.json")


@contextmanager
def turn(settings: Settings, seconds: float, what: str) -> Iterator[None]:
    """Hold the lock of runs for a `what`; what a killed run left is mended first.

    Raises AgentError: refused when another run holds it for so many seconds, canceled where a signal comes.
    """

    def interrupted(_number: int, _frame: object) -> None:
        raise AgentError("canceled", f"The {what} was canceled.", "Start it again when it suits.")

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, interrupted)
    with held(settings, seconds):
        yield


@contextmanager
def held(settings: Settings, seconds: float) -> Iterator[None]:
    """Hold the lock of runs; what a killed run left is mended first. Raises AgentError: refused."""
    with Lock(settings) as lock:
        if not lock.acquire(seconds):
            raise refused(f"Another run has held the lock for {seconds:.0f} seconds.", "Try again after it.")
        heal(settings)
        yield
