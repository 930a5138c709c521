# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""An archive against the host as it is: what was added, removed and modified; never what is in a file.

Nothing is read but names and metadata: the archive's listing, lstat of each of its paths, and Borg's own dry
run over the configured sources, so that what a backup would leave out is not called added.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import json
import os
import stat
import time
from typing import Any, Optional

from saveos_agent.borg import inner_path, list_paths, resolve_archive
from saveos_agent.canary import canary_file
from saveos_agent.changes import Names, Printed
from saveos_agent.errors import EXIT_FAILED, AgentError
from saveos_agent.output import Output, classify
from saveos_agent.processes import run_child
from saveos_agent.redaction import Redactor
from saveos_agent.settings import Repository, Settings
from saveos_agent.times import new_run_id

COMPARE_SECONDS = 7200
SHOWN, SHOWN_BYTES = 2000, 300_000  # paths, and bytes of them, that travel; the counts are always of all
DUMPS = b"borgmatic/"  # database dumps are in archives, and in no file system


class Comparison:
    """Takes an archive's records and the host's paths; keeps a digest of a path, not the path."""

    def __init__(self, below: bytes) -> None:
        self._rest = b""
        self._below = below
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
            if not path.startswith(DUMPS) and self._inside(path):
                self._archived(mode, int(size), moment, path)

    def _inside(self, path: bytes) -> bool:
        return not self._below or path == self._below or path.startswith(self._below + b"/")

    def _archived(self, mode: bytes, size: int, moment: bytes, path: bytes) -> None:
        self._known.add(hashlib.blake2b(path, digest_size=12).digest())
        self.compared += 1
        try:
            found = os.lstat(b"/" + path)
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
        path = path.strip(b"/")
        digest = hashlib.blake2b(path, digest_size=12).digest()
        if not self._inside(path) or digest in self._known:
            return
        self._known.add(digest)
        try:
            found = os.lstat(b"/" + path)
        except OSError:
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
    found = Comparison(below)
    chosen = [f"pp:{os.fsdecode(below)}"] if below else []
    list_paths(settings, repository, name, Names(found), *chosen, seconds=COMPARE_SECONDS)
    walk(settings, repository, found)
    told = {"repository_id": repository.id, "archive": name, "path": f"/{below.decode('utf-8', 'replace')}"}
    return {**told, **found.result(), "seconds": round(time.monotonic() - began, 1)}


def walk(settings: Settings, repository: Repository, found: Comparison) -> None:
    """Show a comparison each path that a backup would take now, by Borg's own matching."""
    sources = configured(settings, repository, "source_directories")
    excludes = configured(settings, repository, "exclude_patterns")
    caches = configured(settings, repository, "exclude_caches")
    printed = Printed()
    own = os.fsencode(str(canary_file(settings).parent)).strip(b"/")

    def on_line(_: str, text: str) -> None:
        try:
            data = json.loads(text)
        except ValueError:
            return
        if data.get("type") == "file_status" and data.get("status") == "-":
            path = os.fsencode(data["path"])
            if not path.strip(b"/").startswith(own):
                with contextlib.suppress(OSError):  # went meanwhile
                    for each in printed.paths(path):
                        found.live(each)

    if not sources:
        return
    argv = [settings.borg, "create", "--dry-run", "--list", "--log-json"]
    argv += (["--exclude-caches"] if caches is True else []) + [f"--exclude={each}" for each in excludes or []]
    status = run_child(
        ["nice", *argv, "/nowhere::compare", "--", *sources], new_run_id(), on_line, seconds=COMPARE_SECONDS
    )
    if status not in (0, 1, 2):  # a source that is not there is a warning, and its files are removed ones
        raise AgentError("compare_failed", "The host's files could not be walked in time.", "Name a directory.")


def configured(settings: Settings, repository: Repository, option: str) -> Any:
    """An option as borgmatic reads it from the repository's configuration. Raises AgentError."""
    collected: list[str] = []
    output = Output(Redactor.for_host(settings), on_out=collected.append)
    argv = [settings.borgmatic, "--config", str(repository.config), "--no-color", "config", "show"]
    try:
        status = run_child([*argv, "--option", option, "--json"], new_run_id(), output.line)
        found = json.loads("\n".join(collected)) if status == 0 else [None]
    except (OSError, ValueError):
        status, found = EXIT_FAILED, [None]
    if status != 0:
        error = classify(output)
        raise AgentError(error["code"], error["message"], "Provision the host again.")
    return found[0] if found else None


def _differs(moment: bytes, mtime: int) -> bool:
    at = datetime.datetime.fromisoformat(moment.decode())
    at = at if at.tzinfo else at.replace(tzinfo=datetime.timezone.utc)
    archived = (at - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)) // datetime.timedelta(
        microseconds=1
    )
    return abs(archived - mtime // 1000) > 100  # microseconds: Borg prints times from a float
