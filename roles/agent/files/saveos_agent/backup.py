# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Backup."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from typing import Any, Callable, Optional

from saveos_agent.answers import describe_result
from saveos_agent.borg import borg_output, run_borgmatic
from saveos_agent.canary import remember_canary, write_canary
from saveos_agent.catalogue import send_listings
from saveos_agent.changes import name_changes, spool_changes
from saveos_agent.delivery import deliver
from saveos_agent.errors import EXIT_FAILED, EXIT_OK, EXIT_REFUSED, AgentError, refused
from saveos_agent.output import SKIPPED, Output, classify, ssh_probe
from saveos_agent.processes import Cancel
from saveos_agent.redaction import Redactor
from saveos_agent.retention import clock_state, prune
from saveos_agent.rotation import settle_rotations
from saveos_agent.runs import CANCELED, Run, failure, heal
from saveos_agent.settings import Repository, Settings
from saveos_agent.state import (
    LOCK_WAIT_SECONDS,
    Lock,
    discard,
    keep_request,
    load,
    pending_request,
    withdraw_request,
)
from saveos_agent.times import borg_time, new_run_id, parse_utc


def back_up(settings: Settings, trigger: str, say: Callable[[str], None], *, requested: bool = False) -> int:
    """Make backups as long as there are requests for them; this is the unit's command. Returns an exit code.

    One that was started for a request alone does nothing where another has served it meanwhile.
    """
    cancel = Cancel()
    cancel.install()
    with Lock(settings) as lock:
        wait_for_turn(settings, lock, trigger, cancel)
        heal(settings)
        settle_rotations(settings)
        if requested and not pending_request(settings):
            return EXIT_OK
        while True:
            run = next_run(settings, trigger)
            record = back_up_once(run, cancel, say)
            if cancel.requested or not pending_request(settings):
                discard(settings, "active.json")
                return EXIT_OK if record["state"] in ("succeeded", "warning") else EXIT_FAILED


def wait_for_turn(settings: Settings, lock: Lock, trigger: str, cancel: Cancel) -> None:
    """Get the lock. Behind a restore, wait; behind a backup, wait only where a request is pending."""
    deadline = time.monotonic() + LOCK_WAIT_SECONDS
    while not lock.acquire(1):
        if cancel.requested:
            raise AgentError("canceled", "Canceled before it began.")
        keep_request(settings)
        active = load(settings, "active.json") or {}
        if active.get("kind") == "backup" and active.get("phase") == "run" and not pending_request(settings):
            code = EXIT_OK if trigger == "timer" else EXIT_REFUSED
            raise AgentError(
                "refused",
                f"A backup is already running (run {active.get('run_id')}).",
                "Wait for it with: saveos-agent backup --wait.",
                code,
            )
        if time.monotonic() > deadline:
            raise refused(
                "Another run has held the lock for a day.", "End it with: saveos-agent backup --stop."
            )


def next_run(settings: Settings, trigger: str) -> Run:
    """The requested run, or a new one. The run is announced before its request goes, so none is lost."""
    request = pending_request(settings) or {}
    run = Run(
        settings,
        "backup",
        request.get("run_id") or new_run_id(),
        request.get("trigger") or trigger,
        request.get("job_id"),
    )
    run.announce()
    withdraw_request(settings, run.run_id)  # only the one that was taken: another may have come meanwhile
    return run


def back_up_once(run: Run, cancel: Cancel, say: Callable[[str], None]) -> dict[str, Any]:
    """Archive to every repository, record, deliver, prune. Waiters go on as soon as the record is there."""
    settings = run.settings
    redactor = Redactor.for_host(settings)
    clock = clock_state(settings)
    if not settings.repositories:
        error = AgentError(
            "not_configured", "This host has no repository.", "Provision it with a storage server."
        )
        run.results.append(failure("", error.as_dict()))
    for repository in settings.repositories:
        canary = write_canary(settings)
        run.results.append(create_archive(run, repository, redactor, cancel))
        remember_canary(settings, run.results[-1], canary)
        say(describe_result(run.results[-1]))
    record = run.finish()
    run.phase = "prune"
    run.announce()
    with contextlib.suppress(AgentError, OSError):
        deliver(settings)
    for repository, result in zip(settings.repositories, run.results):
        if result["archive"] and not cancel.requested:
            prune(run, repository, redactor, clock, cancel, say)
    run.phase = "catalogue"
    run.announce()
    for sent in [] if cancel.requested else send_listings(settings, cancel):
        if sent["error"]:
            say(f"The catalogue lacks this archive: {sent['error']['message']}")
    return record


def create_archive(run: Run, repository: Repository, redactor: Redactor, cancel: Cancel) -> dict[str, Any]:
    """borgmatic create for one repository. Success is exit status 0 and an archive id."""
    if cancel.requested:
        return failure(repository.id, CANCELED, "canceled")
    output = Output(redactor)
    began = time.time()
    run.tell("start", repository.id)
    output.on_progress = lambda borg: run.tell(
        "finish" if borg.get("finished") else "create", repository.id, None if borg.get("finished") else borg
    )
    spooling = spool_changes(run.settings, repository)
    status = run_borgmatic(run, repository, output, cancel, "create", "--json", "--progress", *spooling)
    run.log.extend(output.log)
    archive = archive_of(output.result)
    name_changes(run.settings, repository, archive)
    if status == 0 and (archive is None or str(archive["name"]).endswith(".checkpoint")):
        # with databases borgmatic renames the archive when the dumps are in it, which gives it another id
        archive = newest_archive(run.settings, repository, run.run_id, began)
    if status < 0:
        output.errors.append(f"it was ended by {signal.Signals(-status).name}")
    if cancel.requested and not archive:
        return failure(repository.id, CANCELED, "canceled", status)
    if status == 0 and archive:
        state = "warning" if output.warnings or output.statuses else "succeeded"
        result = {"repository_id": repository.id, "state": state, "exit_code": 0, "archive": archive}
        return {**result, "error": None, "warnings": output.warnings}
    if status == 0:
        return failure(repository.id, SKIPPED.as_dict(), exit_code=status)
    return failed_create(run, repository, output, status, began)


def failed_create(
    run: Run, repository: Repository, output: Output, status: int, began: float
) -> dict[str, Any]:
    """borgmatic says nothing of an archive that was made before an after-hook or a file failed: look."""
    settings = run.settings
    error = classify(output, ssh_probe(settings, repository))
    result = failure(repository.id, error, exit_code=status)
    result["warnings"] = output.warnings
    unreadable = any(100 <= code <= 127 for code in output.statuses)
    if unreadable or error["code"] == "hook_failed":
        archive = newest_archive(settings, repository, run.run_id, began)
        if archive and unreadable and error["code"] != "hook_failed":
            result.update(state="warning", error=None)
        result["archive"] = archive
    return result


def archive_of(result: Optional[dict[str, Any]]) -> Optional[dict[str, Any]]:
    """Borg's archive object in the record's terms, or None where it names no archive."""
    archive = (result or {}).get("archive") or {}
    if not archive.get("id"):
        return None
    stats = archive.get("stats") or {}
    return {
        "id": archive["id"],
        "name": archive.get("name"),
        "started_at": borg_time(archive.get("start")),
        "finished_at": borg_time(archive.get("end")),
        "duration": archive.get("duration"),
        **{
            name: stats.get(name)
            for name in ("nfiles", "original_size", "compressed_size", "deduplicated_size")
        },
    }


def newest_archive(
    settings: Settings, repository: Repository, run_id: str, since: float
) -> Optional[dict[str, Any]]:
    """The newest archive with its statistics, if it began after this POSIX time (seconds)."""
    with contextlib.suppress(AgentError, ValueError):
        found = json.loads(borg_output(settings, repository, run_id, "info", "--json", "--last", "1"))
        archive = archive_of({"archive": (found.get("archives") or [{}])[-1]})
        if archive and parse_utc(archive["started_at"]) >= since - 2:
            return archive
    return None
