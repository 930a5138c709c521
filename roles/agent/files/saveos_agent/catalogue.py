# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Catalogue: the controller is told which files an archive holds."""

from __future__ import annotations

import fcntl
import os
import re
import time
from pathlib import Path
from typing import Any, Optional

from saveos_agent.borg import ARCHIVE_ID
from saveos_agent.changes import base_of, changes_path, remember_base, wanted_in_full, write_listing
from saveos_agent.delivery import ask_catalogue, wanted_by_catalogue
from saveos_agent.errors import AgentError
from saveos_agent.files import remove
from saveos_agent.processes import Cancel
from saveos_agent.settings import Repository, Settings

CATCH_UP_SECONDS = 3600  # of one run; the next one goes on
LISTING_PIECE = 1024 * 1024  # bytes, compressed
WHOLE_LISTING = re.compile(r"[0-9a-f]{64}\.(gz|part)")


def send_listings(settings: Settings, cancel: Optional[Cancel] = None) -> list[dict[str, Any]]:
    """Send what the controller's catalogue lacks; what fails is tried again after the next backup."""
    sent: list[dict[str, Any]] = []
    handle = os.open(settings.state / "catalogue.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # one sender at a time; a second finds nothing left to send
        for repository in settings.repositories if settings.controller_url and settings.catalogue else ():
            try:
                archive = send_wanted(settings, repository, cancel)
                sent.append({"repository_id": repository.id, "archive": archive, "error": None})
            except (AgentError, OSError) as error:
                told = error.as_dict() if isinstance(error, AgentError) else {"message": str(error)}
                sent.append({"repository_id": repository.id, "archive": None, "error": told})
    finally:
        os.close(handle)
    return sent


def send_wanted(settings: Settings, repository: Repository, cancel: Optional[Cancel]) -> Optional[str]:
    """Send the newest archive's listing, or all archives' where the catalogue is built anew, oldest first.

    Returns the id of the last one that was sent, None where the catalogue lacks none. Raises AgentError.
    """
    last, deadline = None, time.monotonic() + CATCH_UP_SECONDS
    while True:
        wanted = wanted_by_catalogue(settings, repository)
        over = time.monotonic() > deadline or (cancel is not None and cancel.requested)
        if wanted.get("waiting") and wanted.get("more") and not over:
            time.sleep(1)  # it takes the one before over
            continue
        sent = send_listing(settings, repository, wanted, cancel)
        last = sent or last
        if not sent or not wanted.get("more") or over:
            return last


def send_listing(
    settings: Settings, repository: Repository, wanted: dict[str, Any], cancel: Optional[Cancel]
) -> Optional[str]:
    """Send the listing that is wanted; return its archive's id, None where none is. Raises AgentError."""
    archive = wanted.get("archive")
    if not isinstance(archive, str) or not ARCHIVE_ID.match(archive):
        return None
    directory = settings.state / "listings"
    directory.mkdir(mode=0o700, exist_ok=True)
    base = base_of(settings, repository, wanted)
    path = changes_path(settings, repository, archive)
    if not base or not path.exists():
        base, path = "", directory / f"{archive}.gz"
    for old in directory.iterdir():
        if old != path and WHOLE_LISTING.fullmatch(old.name):  # changes belong to create_archive
            remove(old)
    if not path.exists():
        write_listing(settings, repository, archive, path, cancel)
    received = int((wanted.get("received") or {}).get(base) or 0)
    if not _send(settings, repository, archive, base, path, received, cancel):
        return None  # the file stays, and the next run goes on
    remove(path)
    if base and wanted_in_full(settings, repository, archive, cancel):
        return send_listing(settings, repository, wanted_by_catalogue(settings, repository), cancel)
    remember_base(settings, repository, archive)
    return archive


def _send(  # noqa: PLR0917
    settings: Settings,
    repository: Repository,
    archive: str,
    base: str,
    path: Path,
    offset: int,
    cancel: Optional[Cancel],
) -> bool:
    """Send a listing in pieces from an offset; whether all of it got through before somebody canceled."""
    size = path.stat().st_size
    offset = min(offset, size)
    with path.open("rb") as file:
        while True:
            file.seek(offset)
            piece = file.read(LISTING_PIECE)
            last = offset + len(piece) >= size
            where = f"/agents/catalogue/{repository.id}/{archive}?offset={offset}&last={str(last).lower()}"
            where += f"&base={base}" if base else ""
            offset = int(ask_catalogue(settings, "PUT", where, piece).get("received") or 0)
            if last:
                return True
            if cancel is not None and cancel.requested:
                return False
