# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Sends content of an archive through the controller: to a person as a tar archive, to a host as it was."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
import zlib
from pathlib import Path
from typing import Any, Optional

from saveos_agent.borg import LOCK_WAIT, borg_error, resolve_archive
from saveos_agent.direct import run_borg
from saveos_agent.errors import AgentError
from saveos_agent.extraction import Hashes, Restoring, check_space, extract
from saveos_agent.output import Output
from saveos_agent.packing import pack
from saveos_agent.processes import Cancel, child_environment
from saveos_agent.redaction import Redactor
from saveos_agent.request import RestoreRequest
from saveos_agent.runs import Run, turn
from saveos_agent.scratch import scratch_directory
from saveos_agent.settings import Settings
from saveos_agent.transfer import HOST_SECONDS, PIECE, Upload, upload_to_host

EMPTY = bytes(512)  # a tar archive that begins so holds nothing
LEVEL = 5  # of gzip


def send(settings: Settings, request: RestoreRequest, staged: bool, seconds: float) -> dict[str, Any]:
    """Wait for the turn, and send; backups wait meanwhile, as behind a restore. Raises AgentError, OSError."""
    cancel = Cancel()

    with turn(settings, seconds, "transfer"):
        repository = settings.repository(request.repository)
        archive = resolve_archive(settings, repository, request.archive)[0]
        if staged:
            return send_staged(settings, request, archive, cancel)
        return send_tar(settings, request, archive)


def send_tar(settings: Settings, request: RestoreRequest, archive: str) -> dict[str, Any]:
    """Send what `borg export-tar` writes, compressed, as it comes."""
    repository = settings.repository(request.repository)
    zstd = shutil.which("zstd")
    form = "tar.zst" if zstd else "tar.gz"
    upload = Upload(settings, request.transfer, form)
    packer: Any = Zstd(zstd, upload, request.run_id) if zstd else Gzip(upload)
    output, first = Output(Redactor.for_host(settings)), bytearray()

    def take(data: bytes) -> None:
        if len(first) < len(EMPTY):
            first.extend(data[: len(EMPTY) - len(first)])
        if data:
            packer.write(data)

    words = ["export-tar", "--log-json", *LOCK_WAIT, *request.exclusions(), f"::{archive}", "-"]
    try:
        words += request.selectors()
        status = run_borg(settings, repository, request.run_id, output, *words, on_bytes=take)
        only_warnings = status == 0 or (output.warnings and not set(output.statuses) - set(range(100, 128)))
        if not only_warnings:
            raise borg_error(settings, repository, output)
        if bytes(first) in (b"", EMPTY):
            text = f"None of the paths is in archive {archive}."
            raise AgentError("source_missing", text, "Browse the archive for their right names.")
        packer.finish()
        upload.finish()
    finally:
        packer.close()
        upload.close()
    return {"archive": archive, "form": form, "sent": upload.sent, "warnings": output.warnings[:50]}


class Gzip:
    """Compresses by the standard library, where the host has no zstd."""

    def __init__(self, upload: Upload) -> None:
        self._upload, self._packer = upload, zlib.compressobj(LEVEL, wbits=31)

    def write(self, data: bytes) -> None:
        self._upload.write(self._packer.compress(data))

    def finish(self) -> None:
        self._upload.write(self._packer.flush())

    def close(self) -> None:
        pass


class Zstd:
    """Compresses by the host's own zstd; a thread sends what it writes."""

    def __init__(self, program: str, upload: Upload, run_id: str) -> None:
        self._upload = upload
        self._fault: Optional[Exception] = None
        self._process = subprocess.Popen(
            [program, "-q", "-c", "-3"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=child_environment(run_id),
        )
        self._thread = threading.Thread(target=self._pass_on, name="zstd", daemon=True)
        self._thread.start()

    def _pass_on(self) -> None:
        assert self._process.stdout is not None
        try:
            while data := os.read(self._process.stdout.fileno(), PIECE):
                self._upload.write(data)
        except (AgentError, OSError) as error:
            self._fault = error
            self._process.kill()

    def write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
        except OSError:
            self._thread.join(10)
            raise self._fault or AgentError("transfer", "zstd ended early.", "Ask anew.") from None

    def finish(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._thread.join()
        status = self._process.wait()
        if self._fault or status:
            raise self._fault or AgentError("transfer", f"zstd ended with status {status}.", "Ask anew.")

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


class Quiet(Run):
    """A run that is not told of: it has no record of its own, because the receiving host's counts."""

    @property
    def tells(self) -> bool:
        return False


def send_staged(settings: Settings, request: RestoreRequest, archive: str, cancel: Cancel) -> dict[str, Any]:
    """Extract aside, compare with the archive by hash, send with all that belongs to each file, take away."""
    repository = settings.repository(request.repository)
    parent = settings.state / "restores"
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    run = Quiet(settings, "restore", request.run_id, request.trigger, request.job_id or None)
    run.restore = {}
    work = Restoring(settings, request, run, repository, cancel, {})
    work.archive = archive
    check_space(settings, request, repository, archive, parent)
    with scratch_directory(settings, parent, "send", request.run_id) as scratch:
        run.partial = str(scratch)
        verified = _extract_verified(work, scratch)
        upload = upload_to_host(settings, request.transfer, HOST_SECONDS)
        try:
            counts = pack(scratch, upload.write, verified, work.failures)
            upload.finish()
        finally:
            upload.close()
    failed = {"failed_files": work.failures.listed(), "failed_total": work.failures.total}
    return {"archive": archive, "form": "tar", "sent": upload.sent, **counts, **failed}


def _extract_verified(work: Restoring, scratch: Path) -> Optional[bool]:
    """Extract, and return whether that is what the archive holds; None where nothing was compared."""
    truth = Hashes(work)
    truth.start()
    try:
        result = extract(work, scratch)
        if result["error"]:
            error = result["error"]
            raise AgentError(error["code"], error["message"], error["fix"])
        verified: Optional[bool] = truth.compare(scratch)["verified"]
    except BaseException:
        truth.end()
        raise
    return verified
