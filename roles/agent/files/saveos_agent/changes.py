# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Changes: what `borg create` says of files while it runs, so that the archive need not be listed."""

from __future__ import annotations

import collections
import contextlib
import datetime
import gzip
import hashlib
import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Optional

from saveos_agent.borg import list_paths, resolve_archive
from saveos_agent.delivery import wanted_by_catalogue
from saveos_agent.errors import AgentError
from saveos_agent.files import read_json, remove, write_json
from saveos_agent.processes import Cancel, die_with_parent
from saveos_agent.settings import PROGRAM, Repository, Settings
from saveos_agent.state import load, store

CHANGES = "changes"  # the hidden verb that runs borg
CHANGED, ALWAYS = "AMC", "dsfbch"  # what Borg says of changed files, and of what it tells with every archive
CLOCK_SLACK = 300
TAKEOVER_SECONDS = 60
SPOOLING = """#!/bin/sh
# Made by saveos-agent for each backup: runs borg, and spools what `create` says of files.
[ "$1" = create ] || exec {borg} "$@"
unset LD_LIBRARY_PATH # the bundle's, which is none of Python's business
SAVEOS_BORG={borg} exec {python} -I {agent} {verb} {spool} {since} "$@"
"""


def changes_path(settings: Settings, repository: Repository, archive: str = "") -> Path:
    """Where the changes of a repository's archive wait to be sent; without an archive while it is made."""
    return settings.state / "listings" / f"{repository.id}.{archive or 'new'}.changes"


def config_mark(repository: Repository) -> str:
    """What the configuration is: changes say nothing of files that a new one leaves out."""
    return hashlib.sha256(repository.config.read_bytes()).hexdigest()


def remember_base(settings: Settings, repository: Repository, archive: str) -> None:
    """Note which archive the catalogue has of a repository, and when it was begun at the earliest."""
    known = load(settings, "catalogue.json")
    known = known if isinstance(known, dict) else {}
    begun = known.get("begun") or {}
    since = (begun.get(repository.id) or {}).get(archive)
    base = {"archive": archive, "since": since, "config": config_mark(repository)} if since else {}
    store(settings, "catalogue.json", {**known, repository.id: base})


def base_of(settings: Settings, repository: Repository, wanted: dict[str, Any]) -> str:
    """The archive that the changes at hand refer to, if the catalogue has just that one; else ""."""
    known = (load(settings, "catalogue.json") or {}).get(repository.id) or {}
    return str(known["archive"]) if known and known["archive"] == wanted.get("base") else ""


def spool_changes(settings: Settings, repository: Repository) -> list[str]:
    """Arguments with which borgmatic runs a borg that spools changes; none where all must be listed."""
    begun = changes_path(settings, repository).with_suffix(".begun")
    remove(changes_path(settings, repository))
    if not settings.controller_url or not settings.catalogue:
        return []
    try:
        begun.parent.mkdir(mode=0o700, exist_ok=True)
        write_json(begun, time.time())
        known = (load(settings, "catalogue.json") or {}).get(repository.id) or {}
        borg = re.search(r"""^local_path: ["']?(.+?)["']?$""", repository.config.read_text(), re.MULTILINE)
        if not known or known["config"] != config_mark(repository) or not borg or borg[1] != settings.borg:
            return []
        words = {
            "borg": settings.borg,
            "python": sys.executable,
            "agent": PROGRAM,
            "verb": CHANGES,
            "spool": str(changes_path(settings, repository)),
            "since": str(float(known["since"]) - CLOCK_SLACK),
        }
        program = settings.state / f"borg-changes-{repository.id}"
        fresh = program.with_suffix(".new")
        fresh.write_text(SPOOLING.format(**{name: shlex.quote(word) for name, word in words.items()}))
        fresh.chmod(0o700)
        os.replace(fresh, program)
    except (OSError, ValueError, KeyError, TypeError):
        return []  # the catalogue is never a reason for a backup to fail
    return ["--local-path", str(program)] if os.access(program, os.X_OK) else []  # not on a disk without exec


def name_changes(settings: Settings, repository: Repository, archive: Optional[dict[str, Any]]) -> None:
    """Note what archive the spooled changes, and the moment before it, belong to."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        path = changes_path(settings, repository)
        begun = read_json(path.with_suffix(".begun"))
        remove(path.with_suffix(".begun"))
        for old in path.parent.glob(f"{repository.id}.*.changes"):
            if old != path:
                remove(old)
        if not archive:
            remove(path)
            return
        if path.exists():
            os.replace(path, changes_path(settings, repository, archive["id"]))
        known = load(settings, "catalogue.json") or {}
        mine = {repository.id: {archive["id"]: begun}}
        store(settings, "catalogue.json", {**known, "begun": {**(known.get("begun") or {}), **mine}})


def wanted_in_full(settings: Settings, repository: Repository, archive: str, cancel: Optional[Cancel]) -> bool:
    """Whether changes did not do, once the controller has taken them over; False where that takes long."""
    deadline = time.monotonic() + TAKEOVER_SECONDS
    while time.monotonic() < deadline and not (cancel is not None and cancel.requested):
        wanted = wanted_by_catalogue(settings, repository)
        if not wanted.get("waiting"):
            return wanted.get("archive") == archive
        time.sleep(1)
    return False


def run_create(spool: str, since: str, argv: list[str]) -> int:
    """Run `borg create`, spooling what it says of files; all else is as if it ran by itself."""
    borg = os.environ.pop("SAVEOS_BORG")
    if "--log-json" not in argv or {"--dry-run", "-n", "--list", "--filter"} & set(argv):
        os.execv(borg, [borg, *argv])  # noqa: S606
    os.umask(0o077)
    words = [borg, argv[0], "--list", "--filter", CHANGED + ALWAYS, *argv[1:]]
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # the whole group gets them: borg ends, and then this does
    process = subprocess.Popen(
        words,
        stderr=subprocess.PIPE,
        close_fds=False,  # borgmatic hands the passphrase over in one
        preexec_fn=die_with_parent(),  # noqa: PLW1509
    )
    assert process.stderr is not None
    changes = Changes(Path(spool), float(since))
    for line in process.stderr:
        if not line.startswith(b'{"type": "file_status"'):
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()
        elif not changes.broken:
            changes.take(line)
    status = process.wait()
    changes.finish(status)
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


class Printed:
    """Finds on the host what Borg printed of a path: ? stands for bytes that are no text."""

    def __init__(self) -> None:
        self._names: dict[bytes, dict[bytes, list[bytes]]] = {}

    def paths(self, path: bytes) -> list[bytes]:
        """All paths that print so. Raises OSError."""
        found = [b""]
        for part in path.strip(b"/").split(b"/"):
            found = [above + b"/" + name for above in found for name in self._fitting(above or b"/", part)]
        return found

    def _fitting(self, directory: bytes, printed: bytes) -> list[bytes]:
        if b"?" not in printed:
            return [printed]
        if directory not in self._names:
            self._names = {directory: collections.defaultdict(list)}
            for name in os.listdir(directory):
                self._names[directory][os.fsdecode(name).encode("utf-8", "replace")].append(name)
        return self._names[directory][printed]


class Changes:
    """Writes a listing of changes, as the controller reads it. What it cannot tell for sure breaks it."""

    def __init__(self, path: Path, since: float) -> None:
        self.path, self.since, self.broken = path, since, False
        self._part = path.with_suffix(".part")
        self._live = Printed()
        try:
            self._file: Any = gzip.open(self._part, "wb", compresslevel=4)
        except OSError:
            self.broken = True

    def take(self, line: bytes) -> None:
        """Take one file_status of Borg's."""
        try:
            said = json.loads(line)
            status, path = str(said["status"]), str(said["path"]).encode("utf-8", "replace")
            if not path.startswith(b"/") or b"/./" in path:  # a dump's pipe: not where the archive has it
                self.broken = True
                return
            for live in self._live.paths(path):
                self._write(live, always=status in CHANGED)
        except (OSError, ValueError, KeyError):
            self.broken = True

    def _write(self, path: bytes, always: bool) -> None:
        try:
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return  # went meanwhile: the number of files will not fit, and all is listed
        if not always and status.st_ctime < self.since:
            return
        kind = status.st_mode
        size = status.st_size if stat.S_ISREG(kind) or stat.S_ISLNK(kind) else 0
        moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=status.st_mtime_ns // 10**9)
        record = f"{stat.filemode(kind)} {size} {moment.isoformat()} ".encode()
        self._file.write(record + path + b"\0")
        if stat.S_ISDIR(kind):
            self._file.write(b"names 0 0 " + path + b"\0")
            for name in os.listdir(path):
                self._file.write(b"name 0 0 " + path.rstrip(b"/") + b"/" + name + b"\0")

    def finish(self, status: int) -> None:
        """Keep the listing where borg made an archive and nothing is in doubt."""
        with contextlib.suppress(OSError, AttributeError):
            self._file.close()
            if not self.broken and (status in (0, 1) or 100 <= status <= 127):
                os.replace(self._part, self.path)
        remove(self._part)


class Names:
    """Passes Borg's listing on, and looks up on the host what Borg does not print.

    For bytes that are no text Borg prints ?, and for further names of a file (hard links) the size 0.
    """

    def __init__(self, write: Callable[[bytes], Any]) -> None:
        self._write = write
        self._rest = b""
        self._names: dict[bytes, dict[bytes, list[bytes]]] = {}

    def __call__(self, chunk: bytes) -> None:
        whole, separator, self._rest = (self._rest + chunk).rpartition(b"\0")
        if b"?" in whole or b"\0h" in whole or whole[:1] == b"h":
            records = whole.split(b"\0")
            whole = b"\0".join(
                self._record(each) if b"?" in each or each[:1] == b"h" else each for each in records
            )
        self._write(whole + separator)

    def _record(self, record: bytes) -> bytes:
        mode, size, moment, path = record.split(b" ", 3)
        found = b""
        for part in path.strip(b"/").split(b"/"):
            found += b"/" + (self._live(found or b"/", part) if b"?" in part else part)
        if mode[:1] == b"h":
            with contextlib.suppress(OSError):
                size = b"%d" % os.lstat(found).st_size
        return b" ".join((mode, size, moment, found))

    def _live(self, directory: bytes, printed: bytes) -> bytes:
        """The next name of a directory that prints so; what was printed where there is none."""
        if directory not in self._names:
            self._names = {directory: collections.defaultdict(list)}  # one directory: a listing is in order
            with contextlib.suppress(OSError):
                for name in sorted(os.listdir(directory), reverse=True):
                    self._names[directory][os.fsdecode(name).encode("utf-8", "replace")].append(name)
        fitting = self._names[directory][printed]
        return printed if not fitting or printed in fitting else fitting.pop() if fitting[1:] else fitting[0]


def write_listing(
    settings: Settings, repository: Repository, archive: str, path: Path, cancel: Optional[Cancel]
) -> None:
    """Write a whole archive's listing as Borg prints it, compressed. Raises AgentError."""
    name, _ = resolve_archive(settings, repository, archive)
    part = path.with_suffix(".part")
    try:
        with gzip.open(part, "wb", compresslevel=6) as file:
            list_paths(settings, repository, name, Names(file.write), cancel=cancel)
    except AgentError:
        remove(part)
        raise
    os.replace(part, path)
