# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Records, the active run, the request. Kept in the state directory; where its disk is full, in run."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import time
from pathlib import Path
from typing import Any, Iterator, Optional

from saveos_agent.errors import refused
from saveos_agent.files import read_json, remove, write_json
from saveos_agent.processes import POLL_SECONDS
from saveos_agent.settings import Settings
from saveos_agent.times import UUID

HISTORY_KEEP = 200
SPOOL_KEEP, SPOOL_BYTES = 500, 32 * 1024 * 1024
REQUEST_SECONDS = 15 * 60
LOCK_WAIT_SECONDS = 24 * 3600


def store(settings: Settings, name: str, data: Any) -> None:
    try:
        write_json(settings.state / name, data)
    except OSError:
        write_json(settings.run / name, data)


def load(settings: Settings, name: str) -> Any:
    found = read_json(settings.state / name)
    return read_json(settings.run / name) if found is None else found


def discard(settings: Settings, name: str) -> None:
    remove(settings.state / name)
    remove(settings.run / name)


def stored(settings: Settings, folder: str) -> list[Path]:
    """Record files of a folder, oldest first (run ids are UUIDv7, but others may come: order by time)."""
    found = []
    for base in (settings.state, settings.run):
        for path in (base / folder).glob("*.json"):
            with contextlib.suppress(OSError):
                found.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(found)]


def find_record(settings: Settings, run_id: str) -> Optional[dict[str, Any]]:
    record = load(settings, f"runs/{run_id}.json")
    return record if isinstance(record, dict) and record.get("run_id") == run_id else None


def newest_first(settings: Settings) -> Iterator[dict[str, Any]]:
    """Records of runs, read one by one."""
    for path in reversed(stored(settings, "runs")):
        record = read_json(path)
        if isinstance(record, dict) and "run_id" in record:
            yield record


def recent_records(settings: Settings, limit: int) -> list[dict[str, Any]]:
    """Newest first."""
    return list(itertools.islice(newest_first(settings), limit))


def save_record(settings: Settings, record: dict[str, Any]) -> None:
    """Record first in the spool, then in the history: what a waiter can see is also on its way."""
    if settings.controller_url:
        store(settings, f"spool/{record['run_id']}.json", record)
    store(settings, f"runs/{record['run_id']}.json", record)
    for path in stored(settings, "runs")[:-HISTORY_KEEP]:
        remove(path)
    bound_spool(settings)


def bound_spool(settings: Settings) -> None:
    """Drop the oldest undelivered records over the bounds, so that the disk never fills; they stay in runs/."""
    total = 0
    for count, path in enumerate(reversed(stored(settings, "spool")), start=1):
        with contextlib.suppress(OSError):
            total += path.stat().st_size
        if count > SPOOL_KEEP or total > SPOOL_BYTES:
            remove(path)


class Lock:
    """The one lock of runs, or one by its name. A flock: the kernel frees it when the holder dies."""

    def __init__(self, settings: Settings, name: str = "lock") -> None:
        settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = settings.state / name
        self.handle: Optional[int] = None

    def acquire(self, seconds: float) -> bool:
        """Try for so many seconds. Retries hide the moment in which someone only tests the lock."""
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(handle)
                    return False
                time.sleep(POLL_SECONDS)
            else:
                self.handle = handle
                return True

    def release(self) -> None:
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None

    def held(self) -> bool:
        """Whether some run holds it now (a shared test: testers do not disturb each other)."""
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def put_request(settings: Settings, run_id: str, job_id: str, trigger: str) -> str:
    """Ask the backup unit for a run. Returns the id of the run asked for: ours, or one already pending."""
    settings.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = settings.run / "request.json"
    mine = settings.run / f".request.{run_id}.{os.getpid()}"
    write_json(mine, {"run_id": run_id, "job_id": job_id or None, "trigger": trigger})
    try:
        for _ in range(3):
            try:
                os.link(mine, path)  # fails where a request is pending: creation is atomic
            except FileExistsError:
                pending = pending_request(settings)
                if pending:
                    return str(pending["run_id"])
                remove(path)
            else:
                return run_id
    finally:
        remove(mine)
    raise refused("Another request for a backup is being made.", "Try again.")


def pending_request(settings: Settings) -> Optional[dict[str, Any]]:
    """The request that waits for a run, unless nobody has cared for it for a quarter of an hour."""
    path = settings.run / "request.json"
    request = read_json(path)
    if not isinstance(request, dict) or not UUID.match(str(request.get("run_id"))):
        return None
    try:
        age = time.time() - path.stat().st_mtime
    except OSError:
        return None
    return request if age < REQUEST_SECONDS and not find_record(settings, request["run_id"]) else None


def keep_request(settings: Settings) -> None:
    """Tell that someone still cares for the pending request."""
    with contextlib.suppress(OSError):
        os.utime(settings.run / "request.json")


def withdraw_request(settings: Settings, run_id: str) -> bool:
    path = settings.run / "request.json"
    request = read_json(path)
    if isinstance(request, dict) and request.get("run_id") == run_id:
        remove(path)
        return True
    return False
