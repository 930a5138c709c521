# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Extracts an archive aside, compares by hash, and puts it into place."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import shutil
import stat
import threading
import time
from pathlib import Path
from typing import Any, Iterator, Optional

from saveos_agent.borg import LOCK_WAIT, borg_output, list_paths, resolve_archive
from saveos_agent.direct import how_borg_runs, run_borg
from saveos_agent.directories import DIRECTORY, open_below, opened
from saveos_agent.errors import EXIT_FAILED, AgentError
from saveos_agent.files import remove, remove_tree
from saveos_agent.mover import (
    RESTORE_FAILED_KEEP,
    Failures,
    Foresight,
    Mover,
    disown,
    put_back,
    put_into,
    tree_size,
    untouched,
)
from saveos_agent.output import Output, classify, ssh_probe
from saveos_agent.packing import Unpacker
from saveos_agent.processes import Cancel, end_processes
from saveos_agent.redaction import Redactor
from saveos_agent.request import RestoreRequest, check_restore, outermost, staging_parent
from saveos_agent.runs import CANCELED, Run, failure
from saveos_agent.settings import Repository, Settings
from saveos_agent.state import HISTORY_KEEP, recent_records, store
from saveos_agent.times import new_run_id
from saveos_agent.transfer import Download

PARTIAL = ".saveos-partial"
BEGIN_WITHIN = 12 * 3600  # seconds in which another host has extracted what it sends


class Restoring:
    """One restore: extract aside, compare with the archive by hash, move into place. `saved` outlives us."""

    def __init__(  # noqa: PLR0917
        self,
        settings: Settings,
        request: RestoreRequest,
        run: Run,
        repository: Repository,
        cancel: Cancel,
        saved: dict[str, Any],
    ) -> None:
        self.settings, self.request, self.run, self.repository = settings, request, run, repository
        self.cancel, self.saved = cancel, saved
        self.destination = request.target(settings)
        self.redactor = Redactor.for_host(settings)
        self.failures = Failures(self.redactor)
        self.archive = ""

    def do(self) -> dict[str, Any]:
        """Do all of it, or go on after a kill. Returns the result. Raises AgentError, OSError."""
        request, run = self.request, self.run
        run.repository_id = self.repository.id
        run.restore = {
            "archive": request.archive,
            "paths": [os.fsencode(path).decode("utf-8", "replace") for path in request.paths],
            "destination": str(self.destination),
            "in_place": request.in_place,
            "conflict": request.conflict,
            "tries": self.saved["tries"],
        }
        run.restore.update(files=0, bytes=0, failed_files=[], failed_total=0, verified=None, verified_files=0)
        run.restore.update(created=0, overwritten=0, skipped=0, renamed=0)
        if self.saved.get("moving"):
            run.partial = self.saved["partial"]
            run.announce()
            result: dict[str, Any] = self.saved["result"]
            for item in self.saved["restore"].pop("failed_files"):
                self.failures.add(item["path"], item["message"])
            run.restore.update(self.saved["restore"], tries=self.saved["tries"])
        else:
            run.announce()
            run.tell("extract", self.repository.id)
            self.stage()
            result = self.fetch()
        if result["state"] in ("succeeded", "warning"):
            self.settle_in()
            if self.failures.total:
                result["state"] = "warning"
        run.restore.update(failed_files=self.failures.listed(), failed_total=self.failures.total)
        return result

    def stage(self) -> None:
        """Check the destination and make the directory to extract into, with what it needs known to fit."""
        request = self.request
        check_restore(self.settings, request)
        self.archive = request.archive
        if not request.transfer:
            self.archive = resolve_archive(self.settings, self.repository, request.archive)[0]
        parent = staging_parent(self.settings, request.near(self.settings))
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not request.transfer:
            check_space(self.settings, request, self.repository, self.archive, parent)
        partial = parent / f".saveos-{request.run_id[-12:]}{PARTIAL}"
        self.run.partial = self.saved["partial"] = str(partial)
        store(self.settings, request.state_file, self.saved)
        self.run.announce()
        remove_tree(partial)
        partial.mkdir(mode=0o700)

    def fetch(self) -> dict[str, Any]:
        """Extract and verify in one go: Borg's own hashes are asked for while it extracts."""
        if self.request.transfer:
            return self.receive()
        partial, truth = Path(self.run.partial), Hashes(self)
        truth.start()
        try:
            result = extract(self, partial)
        except BaseException:
            truth.end()
            raise
        assert self.run.restore is not None
        if result["state"] in ("succeeded", "warning"):
            self.run.restore.update(truth.compare(partial))
            self.own(partial)
            self.run.restore.update(self.expect(partial))
        else:
            truth.end()
        return result

    def receive(self) -> dict[str, Any]:
        """Unpack what another host sends, each file compared with the hash that it was sent with."""
        assert self.run.restore is not None
        partial, stream = Path(self.run.partial), Download(self.settings, self.request.transfer, BEGIN_WITHIN)
        try:
            with watched(self.run, self.repository.id, partial):
                told = Unpacker(partial, self.failures, self.check).unpack(stream)
        finally:
            stream.close()
        files, size = tree_size(partial)
        self.run.restore.update(archive=self.archive, files=files, bytes=size)
        self.run.restore.update({name: told[name] for name in ("verified", "verified_files")})
        self.own(partial)
        self.run.restore.update(self.expect(partial))
        return failure(self.repository.id, {}, "succeeded", 0) | {"error": None}

    def check(self) -> None:
        """Raise AgentError where the run was canceled."""
        if self.cancel.requested:
            raise AgentError("canceled", "The run was canceled.", "Start it again when it suits.")

    def own(self, partial: Path) -> None:
        """Make what is staged ours where the archive's owners are not wanted."""
        if not self.request.owners:
            disown(partial)

    def expect(self, partial: Path) -> dict[str, int]:
        """What moving will do, counted before it begins, so that the figures hold after a kill, too."""
        seen = Foresight(str(self.destination), self.request.conflict)
        times = self.saved["times"] = dict[str, list[int]]()
        for directory, names, files in os.walk(partial):
            inside = os.path.relpath(directory, partial)
            inside = "" if inside == "." else inside
            for name in (*names, *files):
                status = os.lstat(os.path.join(directory, name))
                path, is_directory = os.path.join(inside, name), stat.S_ISDIR(status.st_mode)
                if seen.look(path, is_directory, status.st_mtime_ns // 1000) == "merge":
                    times[path] = [status.st_atime_ns, status.st_mtime_ns]
        return seen.counts()

    def settle_in(self) -> None:
        """Move what is staged to where it belongs; goes on where a killed run stopped."""
        assert self.run.restore is not None
        if not self.saved.get("moving"):
            self.run.restore["failed_files"] = [
                {"path": path, "message": reason} for path, reason in self.failures.known.items()
            ]
            self.saved.update(moving=True, restore=self.run.restore, result={"state": "succeeded"})
            self.saved["result"] = failure(self.repository.id, {}, "succeeded", 0) | {"error": None}
            store(self.settings, self.request.state_file, self.saved)
        self.run.tell("finish", self.repository.id)
        partial = Path(self.run.partial)
        if partial.is_dir():
            times = self.saved.get("times")
            mover = Mover(self.request.conflict, self.failures, self.cancel, times)
            mover.untouched = untouched(self.request.owners, self.request.acls, self.request.xattrs)
            if self.request.in_place:
                put_back(mover, partial, outermost(self.request.paths))
            else:
                put_into(mover, partial, self.destination)


@contextlib.contextmanager
def watched(run: Run, repository_id: str, partial: Path, pause: float = 1.0) -> Iterator[None]:
    """Tell how much is extracted while the block runs, a twentieth of the time looking.

    Borg's own --progress would read the archive's whole list of files once more, before the first file.
    """
    ended = threading.Event()

    def look() -> None:
        wait = pause
        while not ended.wait(wait):
            began = time.monotonic()
            with contextlib.suppress(OSError):
                files, size = tree_size(partial)
                if not ended.is_set():
                    run.tell("extract", repository_id, {"nfiles": files, "original_size": size})
            wait = max(pause, 20 * (time.monotonic() - began))

    if run.tells:
        threading.Thread(target=look, name="watch", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def extract(work: Restoring, partial: Path) -> dict[str, Any]:
    """borg extract into the partial directory; the result with what could not be restored."""
    run, request, cancel = work.run, work.request, work.cancel
    output = Output(work.redactor, failed_keep=RESTORE_FAILED_KEEP)
    arguments = ["extract", "--log-json", "--sparse", *request.left_behind()]
    arguments += [*LOCK_WAIT, *request.exclusions()]
    arguments += [f"::{work.archive}", *request.selectors()]
    try:
        with watched(run, work.repository.id, partial):
            status = run_borg(
                work.settings,
                work.repository,
                run.run_id,
                output,
                *arguments,
                directory=str(partial),
                cancel=cancel,
            )
    except OSError as error:
        output.line("err", f"Borg cannot be started: {error.strerror}")
        status = EXIT_FAILED
    run.log.extend(output.log)
    files, size = tree_size(partial)
    assert run.restore is not None
    run.restore.update(archive=work.archive, files=files, bytes=size)
    for item in output.failed_files:
        work.failures.add(item["path"], item["message"])
    work.failures.total += output.failed_total - len(output.failed_files)
    result = failure(work.repository.id, CANCELED, "canceled", status)
    result["warnings"] = output.warnings
    if cancel.requested:
        return result
    only_warnings = status == 0 or (output.warnings and not set(output.statuses) - set(range(100, 128)))
    if only_warnings and (files or not request.paths):
        result.update(state="warning" if output.warnings else "succeeded", error=None)
    elif only_warnings:
        text = f"None of the paths is in archive {work.archive}."
        missing = AgentError("source_missing", text, "Browse the archive for their right names.")
        result.update(state="failed", error=missing.as_dict())
    else:
        result.update(state="failed", error=classify(output, ssh_probe(work.settings, work.repository)))
    return result


def check_space(
    settings: Settings, request: RestoreRequest, repository: Repository, archive: str, place: Path
) -> None:
    """Refuse what does not fit. The whole archive's size is known of its backup, or Borg adds it up; only where
    that is too much, the selection is listed. Raises AgentError."""
    free = shutil.disk_usage(place).free
    needed = size_of_backup(settings, repository, archive)
    if needed is None:
        told = json.loads(borg_output(settings, repository, new_run_id(), "info", "--json", f"::{archive}"))
        needed = int((told["archives"][0].get("stats") or {}).get("original_size") or 0)
    if needed > free and (request.paths or request.excludes):
        needed = sum(size for _, size, _, _ in archive_entries(settings, request, repository, archive))
    if needed > free:
        raise AgentError(
            "disk_full",
            f"{needed} bytes are to be restored, and the file system of {place} has {free} free.",
            "Free space, name a destination on another file system, or choose less.",
        )


def size_of_backup(settings: Settings, repository: Repository, archive: str) -> Optional[int]:
    """Bytes of an archive as the record of its backup has them; None where that is no longer kept here."""
    for record in recent_records(settings, HISTORY_KEEP):
        for result in record.get("results") or ():
            made = result.get("archive") or {}
            if result.get("repository_id") == repository.id and made.get("name") == archive:
                return int(made.get("original_size") or 0) or None
    return None


def archive_entries(
    settings: Settings, request: RestoreRequest, repository: Repository, archive: str
) -> Iterator[tuple[str, int, int, str]]:
    """Mode, size, mtime (µs) and inner path of what is chosen. Raises AgentError."""
    rest, found = b"", list[tuple[str, int, int, str]]()

    def take(chunk: bytes) -> None:
        nonlocal rest
        *whole, rest = (rest + chunk).split(b"\0")
        for record in whole:
            mode, size, moment, path = record.split(b" ", 3)
            at = datetime.datetime.fromisoformat(moment.decode()).replace(tzinfo=datetime.timezone.utc)
            micro = int(at.timestamp()) * 1_000_000 + at.microsecond
            found.append((mode.decode(), int(size), micro, os.fsdecode(path)))

    chosen = [*request.selectors(), *request.exclusions()]
    list_paths(settings, repository, archive, take, *chosen, under=())
    yield from found


class Hashes(threading.Thread):
    """Asks Borg for the hash of each chosen file while another process of it extracts them."""

    FORMAT = "{mode} {sha256} {bpath}{NUL}"

    def __init__(self, work: Restoring) -> None:
        super().__init__(name="hashes", daemon=True)
        self.work, self.status = work, EXIT_FAILED
        self.run_id = new_run_id()
        self.file = work.settings.state / f".hashes.{work.request.run_id}"
        self.wanted = work.request.verify

    def start(self) -> None:
        if self.wanted:
            how_borg_runs(self.work.settings, self.work.repository)  # known before two ask at once
            super().start()

    def run(self) -> None:
        work, request = self.work, self.work.request
        output = Output(work.redactor)
        words = ["list", *LOCK_WAIT, "--format", self.FORMAT, *request.exclusions(), f"::{work.archive}"]
        words += request.selectors()
        with contextlib.suppress(OSError), open(self.file, "wb") as file:
            self.status = run_borg(
                work.settings, work.repository, self.run_id, output, *words, on_bytes=file.write
            )
        if self.status != 0 and output.warnings and not set(output.statuses) - set(range(100, 128)):
            self.status = 0  # a path that is not in the archive

    def end(self) -> None:
        """Give up."""
        if self.wanted:
            end_processes(self.run_id, grace=2)
            self.join()
        remove(self.file)

    def compare(self, partial: Path) -> dict[str, Any]:
        """Compare what is staged; what differs is taken out and noted as failed. Raises AgentError."""
        if not self.wanted:
            return {"verified": None, "verified_files": 0}
        self.work.run.tell("finish", self.work.repository.id)
        while self.is_alive():
            if self.work.cancel.requested:
                self.end()
                raise AgentError("canceled", "The run was canceled.", "Start it again when it suits.")
            self.join(0.2)
        if self.status != 0:
            remove(self.file)
            raise AgentError(
                "unknown",
                "What was restored could not be compared with the archive: Borg did not tell its hashes.",
                "Try again, or leave the comparison out (--no-verify).",
            )
        good = bad = 0
        with open(self.file, "rb") as file:
            for record in _records(file):
                mode, digest, path = record.split(b" ", 2)
                if mode[:1] != b"-":  # directories, links and devices; "h" is one more name of a file
                    continue
                if self._staged(partial, os.fsdecode(path), digest.decode()):
                    good += 1
                else:
                    bad += 1
        remove(self.file)
        return {"verified": bad == 0, "verified_files": good}

    def _staged(self, partial: Path, path: str, digest: str) -> bool:
        """Whether a staged file has this content. Borg prints ? for bytes that are no text: any name that
        prints so may be the one. Never through a symbolic link: the archive may hold hostile ones."""
        names = [path]
        if "?" in path:
            names = [os.path.relpath(found, partial) for found in _printing_so(str(partial), path)] or names
        with opened(os.open(partial, DIRECTORY)) as root:
            if any(staged_hash(root, name) == digest for name in names):
                return True
            self.work.failures.add(path, "was not restored as the archive holds it")
            if len(names) == 1:
                above, name = os.path.split(names[0])
                with contextlib.suppress(OSError), opened(open_below(root, above)) as directory:
                    os.unlink(name, dir_fd=directory)
        return False


def _printing_so(base: str, path: str) -> list[str]:
    """Paths below a directory that Borg prints as `path`."""
    found = [base]
    for part in path.split("/"):
        following = []
        for directory in found:
            with contextlib.suppress(OSError):
                names = os.listdir(directory) if "?" in part else [part]
                following += [
                    os.path.join(directory, name)
                    for name in names
                    if name == part or name.encode("utf-8", "replace").decode() == part
                ]
        found = following
    return found


def _records(file: Any) -> Iterator[bytes]:
    rest = b""
    while chunk := file.read(1 << 20):
        *whole, rest = (rest + chunk).split(b"\0")
        yield from whole


def staged_hash(root: int, path: str) -> str:
    """SHA-256 in hex of a regular file below an open directory; "" for anything else."""
    digest, (above, name) = hashlib.sha256(), os.path.split(path)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with opened(open_below(root, above)) as directory:
            file = open(os.open(name, flags, dir_fd=directory), "rb")  # noqa: SIM115 - closed below
        with file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return ""
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError:
        return ""
    return digest.hexdigest()
