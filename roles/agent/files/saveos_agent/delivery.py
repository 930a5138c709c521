# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Run records, heartbeats and listings on their way to the controller."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import http.client
import json
import os
import platform
import shutil
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Iterator, Optional

from saveos_agent.errors import AgentError
from saveos_agent.files import read_json, remove
from saveos_agent.health import status
from saveos_agent.machine import clock_synchronised, memory, os_name, versions
from saveos_agent.output import json_object
from saveos_agent.settings import VERSION, Repository, Settings, load_token
from saveos_agent.state import load, newest_first, store, stored
from saveos_agent.times import parse_utc, utc

POST_BATCH, POST_BATCH_BYTES, POST_SECONDS = 20, 1024 * 1024, 10
CLOCK_SECONDS, AGAIN_SECONDS = 60, 86400


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the token to another place."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def deliver(settings: Settings) -> dict[str, int]:
    """Post the spool, oldest first. The controller knows runs by id, so posting twice changes nothing."""
    counts = {"delivered": 0, "rejected": 0, "waiting": len(stored(settings, "spool"))}
    if not settings.controller_url or not counts["waiting"]:
        return counts
    handle = os.open(settings.state / "deliver.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for batch in batches(settings):
            _deliver_batch(settings, batch, counts)
    except BlockingIOError:
        pass  # someone else is delivering the same spool
    finally:
        os.close(handle)
        counts["waiting"] = len(stored(settings, "spool"))
    return counts


def batches(settings: Settings) -> Iterator[list[tuple[Path, dict[str, Any]]]]:
    batch: list[tuple[Path, dict[str, Any]]] = []
    size = 0
    for path in stored(settings, "spool"):
        record = read_json(path)
        if not isinstance(record, dict):
            remove(path)  # torn by a crash of the disk; the history has it, or nobody
            continue
        length = len(json.dumps(record))
        if batch and (len(batch) >= POST_BATCH or size + length > POST_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((path, record))
        size += length
    if batch:
        yield batch


def _deliver_batch(
    settings: Settings, batch: list[tuple[Path, dict[str, Any]]], counts: dict[str, int]
) -> None:
    """Post a batch; where the controller rejects its content, post one by one and set the bad one aside."""
    answer = post_runs(settings, [record for _, record in batch])
    if 200 <= answer < 300:
        for path, _ in batch:
            remove(path)
        counts["delivered"] += len(batch)
    elif answer in (400, 409, 413, 422) and len(batch) > 1:
        for item in batch:
            _deliver_batch(settings, [item], counts)
    elif answer in (400, 409, 413, 422):
        path = batch[0][0]
        with contextlib.suppress(OSError):
            os.replace(path, path.with_suffix(".rejected"))
        counts["rejected"] += 1
    else:
        raise AgentError(
            "delivery",
            f"The controller answered {answer}; run records wait in the spool.",
            "Check its address and the token.",
        )


def post_runs(settings: Settings, records: list[dict[str, Any]]) -> int:
    """POST records to the controller and return the HTTP status. Raises AgentError where none comes."""
    return post(settings, "checkins", {"runs": records})


def post(settings: Settings, name: str, data: dict[str, Any], seconds: Optional[float] = None) -> int:
    """POST to one of the controller's routes for agents; return the status. Raises AgentError for none."""
    return ask_controller(settings, "POST", f"/agents/{name}", json.dumps(data).encode(), seconds)[0]


def ask_controller(
    settings: Settings, method: str, path: str, body: Optional[bytes] = None, seconds: Optional[float] = None
) -> tuple[int, dict[str, Any]]:
    """Ask the controller as this host; return the HTTP status and the answer's object.

    A body that is no JSON is sent as it is. Raises AgentError where no answer comes.
    """
    url = f"{settings.controller_url}/api/v1{path}"
    request = urllib.request.Request(url, data=body, method=method)
    kind = "application/octet-stream" if method == "PUT" else "application/json"
    if body is not None:
        request.add_header("Content-Type", kind)
    request.add_header("Authorization", f"Bearer {load_token(settings)}")
    request.add_header("User-Agent", f"saveos-agent/{VERSION}")
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=tls_context(settings)), NoRedirect)
    try:
        with opened(opener, request, seconds or POST_SECONDS) as response:
            return int(response.getcode()), json_object(response.read(65536).decode("utf-8", "replace")) or {}
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise AgentError(
            "delivery",
            f"The controller {settings.controller_url} cannot be reached: {reason}.",
            "Records wait in the spool.",
        ) from None


def opened(opener: urllib.request.OpenerDirector, request: urllib.request.Request, seconds: float) -> Any:
    """The controller's response, whatever its status: what fails while it is read is no answer."""
    try:
        return opener.open(request, timeout=seconds)
    except urllib.error.HTTPError as refusal:
        return refusal


def heartbeat(settings: Settings) -> dict[str, Any]:
    """Deliver the spool, then tell the controller how this host is. Raises AgentError where either fails."""
    trouble: Optional[AgentError] = None
    counts = {"delivered": 0}
    try:
        counts = deliver(settings)
    except AgentError as error:
        trouble = error  # the heartbeat may get through all the same
    told = pulse(settings)
    if settings.controller_url:
        answer, known = ask_controller(settings, "POST", "/agents/heartbeat", json.dumps(told).encode())
        if not 200 <= answer < 300:
            text = f"The controller answered {answer} to the heartbeat."
            trouble = trouble or AgentError("delivery", text, "Check its address and the token.")
        elif "last_run_at" in known and tell_again(settings, known["at"], known["last_run_at"]):
            counts["delivered"] += deliver(settings)["delivered"]
    if trouble:
        raise trouble
    return {**told, "delivered": counts["delivered"]}


def tell_again(settings: Settings, at: str, last: Optional[str]) -> int:
    """Spool backups again of which the controller does not know any more, being restored from an older copy.

    `at` is its clock, `last` the end of the newest backup that it knows. Once a day where that stays the same:
    what it refuses it would refuse again. Returns how many.
    """
    told = load(settings, "told-again.json") or {}
    known = parse_utc(last) if last else 0.0
    known += max(0.0, time.time() - parse_utc(at)) + CLOCK_SECONDS  # it cuts ends to its own clock
    newest = next((each for each in newest_first(settings) if each.get("kind") == "backup"), None)
    if newest is None or parse_utc(newest["finished_at"]) <= known:
        return 0
    if told.get("last") == last and 0 <= time.time() - told["at"] < AGAIN_SECONDS:
        return 0
    ours = {repository.id for repository in settings.repositories}
    missing = [
        each
        for each in newest_first(settings)
        if each.get("kind") == "backup"
        and parse_utc(each["finished_at"]) > known
        and {result["repository_id"] for result in each["results"]} & ours
    ]
    for record in reversed(missing):
        store(settings, f"spool/{record['run_id']}.json", record)
    store(settings, "told-again.json", {"last": last, "at": time.time()})
    return len(missing)


def pulse(settings: Settings) -> dict[str, Any]:
    """How this host is, in sizes of bytes and UTC."""
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    active = status(settings)["active"] or {}
    return {
        "at": utc(),
        "versions": {**versions(settings), "python": platform.python_version(), "kernel": platform.release()},
        "os": os_name(),
        "init": "systemd" if settings.systemd else "cron",
        "boot_time": utc(time.time() - uptime),
        "disks": watched_disks(settings),
        "load": list(os.getloadavg()),
        "cpus": os.cpu_count(),
        "memory": {"total": memory("MemTotal"), "available": memory("MemAvailable")},
        "clock_synchronised": clock_synchronised(),
        "next_run_at": next_timer(settings),
        "running": active.get("run_id"),
        "spool": len(stored(settings, "spool")),
    }


def watched_disks(settings: Settings) -> list[dict[str, Any]]:
    """The file systems that a backup depends on: the system's, the agent's, those of local repositories."""
    local = [repository.url for repository in settings.repositories if repository.url.startswith("/")]
    seen, found = set(), []
    for path in ("/", "/var", "/tmp", str(settings.state), *local):
        try:
            device, usage_, counts = os.stat(path).st_dev, shutil.disk_usage(path), os.statvfs(path)
        except OSError:
            continue
        if device not in seen:
            seen.add(device)
            disk = {"path": path, "total": usage_.total, "free": usage_.free}
            found.append({**disk, "inodes": counts.f_files, "inodes_free": counts.f_favail})
    return found


def next_timer(settings: Settings) -> Optional[str]:
    """When systemd will start the next backup, its delay included; None with cron, or without a time."""
    timer = settings.unit[: -len(".service")] + ".timer"
    argv = ["systemctl", "show", "-p", "NextElapseUSecRealtime", timer]
    if not settings.systemd:
        return None
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        env = {**os.environ, "TZ": "UTC", "LC_ALL": "C"}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=20, check=False)
        text = done.stdout.strip().partition("=")[2]
        return utc(datetime.datetime.fromisoformat(f"{text[4:23]}+00:00").timestamp())  # after the weekday
    return None


def tls_context(settings: Settings) -> ssl.SSLContext:
    """Trust the controller's own CA where one is pinned (a file or PEM text), else the system's."""
    ca = settings.controller_ca
    if "BEGIN CERTIFICATE" in ca:
        return ssl.create_default_context(cadata=ca)
    return ssl.create_default_context(cafile=ca or None)


def wanted_by_catalogue(settings: Settings, repository: Repository) -> dict[str, Any]:
    return ask_catalogue(settings, "GET", f"/agents/catalogue/{repository.id}")


def ask_catalogue(settings: Settings, method: str, path: str, body: Optional[bytes] = None) -> dict[str, Any]:
    status, answer = ask_controller(settings, method, path, body, seconds=60)
    if not 200 <= status < 300:
        detail = str(answer.get("detail") or f"it answered {status}")[:300]
        raise AgentError("catalogue", f"The controller did not take the listing: {detail}.")
    return answer
