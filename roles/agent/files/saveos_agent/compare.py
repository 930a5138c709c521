# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""An archive against the host as it is: what was added, removed and modified; never what is in a file.

Nothing is read but names and metadata: the archive's listing, lstat of each of its paths, and Borg's own dry
run with all that the configuration says, so that what a backup would leave out is not called added.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import os
import stat
import time
from typing import Any, Optional

from saveos_agent.borg import inner_path, list_paths, resolve_archive
from saveos_agent.changes import Names
from saveos_agent.settings import Repository, Settings
from saveos_agent.sources import Places, canary_directory, configuration, inside, sources_of, taken

COMPARE_SECONDS = 7200
SHOWN, SHOWN_BYTES = 2000, 300_000  # paths, and bytes of them, that travel; the counts are always of all
DUMPS = b"borgmatic/"  # database dumps are in archives, and in no file system


class Comparison:
    """Takes an archive's records and the host's paths; keeps a digest of a path, not the path."""

    def __init__(self, below: bytes, places: Places, left_out: bytes) -> None:
        self._rest = b""
        self._below, self._places, self._left_out = below, places, left_out
        self._known: set[bytes] = set()
        self._bytes = 0
        self.shown: list[dict[str, Any]] = []
        self.totals = {kind: {"files": 0, "bytes": 0} for kind in ("added", "removed", "modified")}
        self.compared = 0

    def __call__(self, chunk: bytes) -> None:
        *records, self._rest = (self._rest + chunk).split(b"\0")
        for record in records:
            mode, size, moment, path = record.split(b" ", 3)
            path = path.strip(b"/")
            if not path.startswith(DUMPS) and inside(path, self._below) and not inside(path, self._left_out):
                self._archived(mode, int(size), moment, path)

    def _archived(self, mode: bytes, size: int, moment: bytes, path: bytes) -> None:
        self._known.add(hashlib.blake2b(path, digest_size=12).digest())
        self.compared += 1
        try:
            found = os.lstat(b"/" + self._places.on_host(path))
        except OSError:
            self._tell("removed", path, size, None)
            return
        kind = mode[:1].replace(b"h", b"-")
        if kind != stat.filemode(found.st_mode)[:1].encode():
            self._tell("modified", path, size, found.st_size, "type")
        elif mode[1:] != stat.filemode(found.st_mode)[1:].encode():
            self._tell("modified", path, size, found.st_size, "mode")
        elif kind == b"-" and (size != found.st_size or _differs(moment, found.st_mtime_ns)):
            self._tell("modified", path, size, found.st_size, "content")

    def live(self, path: bytes) -> None:
        """Take a path that a backup would take now."""
        path, where = self._places.in_archive(path.strip(b"/")), path
        digest = hashlib.blake2b(path, digest_size=12).digest()
        if not inside(path, self._below) or digest in self._known:
            return
        self._known.add(digest)
        try:
            found = os.lstat(where)
        except OSError:
            return
        if stat.S_ISSOCK(found.st_mode):  # Borg's dry run names it, and no archive holds it
            return
        self._tell("added", path, None, found.st_size if stat.S_ISREG(found.st_mode) else 0)

    def _tell(self, kind: str, path: bytes, size: Optional[int], now: Optional[int], what: str = "") -> None:
        total = self.totals[kind]
        total["files"] += 1
        total["bytes"] += (now if size is None else size) or 0
        text = f"/{path.decode('utf-8', 'replace')}"
        self._bytes += 2 * len(text) + 120
        if len(self.shown) < SHOWN and self._bytes <= SHOWN_BYTES:
            ref = base64.urlsafe_b64encode(b"/" + path).decode().rstrip("=")
            self.shown.append({"kind": kind, "path": text, "ref": ref, "size": size, "now": now, "what": what})

    def result(self) -> dict[str, Any]:
        """What differs: counts and bytes of all, and the first paths."""
        self.shown.sort(key=lambda each: each["path"])
        total = sum(each["files"] for each in self.totals.values())
        return {
            "compared": self.compared,
            **self.totals,
            "differences": self.shown,
            "more": total - len(self.shown),
        }


def compare(settings: Settings, repository: Repository, archive: str, path: str) -> dict[str, Any]:
    """What differs between an archive and the host, below a directory. Raises AgentError."""
    began, below = time.monotonic(), os.fsencode(inner_path(path))
    name, _ = resolve_archive(settings, repository, archive)
    sources = sources_of(configuration(settings, repository))
    found = Comparison(below, sources.places(), canary_directory(settings))
    chosen = [f"pp:{os.fsdecode(below)}"] if below else []
    list_paths(settings, repository, name, Names(found), *chosen, seconds=COMPARE_SECONDS)
    taken(settings, repository, sources, found.live, COMPARE_SECONDS)
    told = {"repository_id": repository.id, "archive": name, "path": f"/{below.decode('utf-8', 'replace')}"}
    return {**told, **found.result(), "seconds": round(time.monotonic() - began, 1)}


def _differs(moment: bytes, mtime: int) -> bool:
    at = datetime.datetime.fromisoformat(moment.decode())
    at = at if at.tzinfo else at.replace(tzinfo=datetime.timezone.utc)
    archived = (at - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)) // datetime.timedelta(
        microseconds=1
    )
    return abs(archived - mtime // 1000) > 100  # microseconds: Borg prints times from a float
