# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Scratch: a directory that archives are restored into and that leaves nothing behind, killed or not."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from pathlib import Path
from typing import Iterator

from saveos_agent.borg import LOCK_WAIT, borg_error, borg_status, list_paths
from saveos_agent.canary import canary_file
from saveos_agent.changes import Names
from saveos_agent.errors import AgentError
from saveos_agent.output import Output
from saveos_agent.redaction import Redactor
from saveos_agent.runs import remove_drill
from saveos_agent.samples import Archived, Sample
from saveos_agent.settings import Repository, Settings
from saveos_agent.state import store
from saveos_agent.times import new_run_id

DRILL_SECONDS = 2 * 3600
DRILL_ROOM = 256 * 1024 * 1024  # bytes that must stay free beyond what is restored


def roomy() -> Path:
    """Where there is room for what is thrown away again: /tmp may be memory."""
    return Path("/var/tmp" if os.path.isdir("/var/tmp") else "/tmp")


@contextlib.contextmanager
def scratch_directory(settings: Settings, parent: Path, purpose: str, run_id: str) -> Iterator[Path]:
    """A new directory for a drill or to send from (`purpose`), while the block runs. The caller holds the lock.

    Of a process that is killed the next run takes it away, with the processes of that run id.
    """
    place = parent / f"saveos-{purpose}-{secrets.token_hex(8)}"
    store(settings, "drill.json", {"scratch": str(place), "run_id": run_id})
    try:
        place.mkdir(mode=0o700)
        yield place
    finally:
        remove_drill(settings)


class Scratch:
    """A scratch directory, and restoring into it. The caller holds the lock."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.run_id = new_run_id()
        self.redactor = Redactor.for_host(settings)
        self.deadline = time.monotonic() + DRILL_SECONDS
        self.scratch = Path()

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """The directory while the block runs."""
        with scratch_directory(self.settings, roomy(), "drill", self.run_id) as self.scratch:
            self.scratch.chmod(0o711)  # database servers do not run as root and must get in
            yield

    def _choose(self, repository: Repository, archive: str, seed: int, size: int) -> Sample:
        """A sample of an archive's files, and its dumps."""
        sample = Sample(seed, size, str(canary_file(self.settings)).strip("/"))
        seconds = self._left()
        list_paths(self.settings, repository, archive, Names(sample), run_id=self.run_id, seconds=seconds)
        return sample

    def _left(self) -> float:
        return max(1.0, self.deadline - time.monotonic())

    def _restore(
        self, repository: Repository, archive: str, items: list[Archived]
    ) -> tuple[Path, dict[str, str]]:
        """Extract files into the scratch directory; returns where, and why some are not there.

        Borg ends at the first chunk that is not what it was, so what is missing then is tried by itself.
        """
        where = self.scratch / f"files-{secrets.token_hex(4)}"
        where.mkdir(mode=0o700)
        self._room(sum(item.size for item in items))
        if items:
            self._extract(repository, archive, where, [f"pf:{item.path}" for item in items])
        reasons = {}
        for item in items:
            if self._whole(where, item):
                continue
            reason = self._extract(repository, archive, where, [f"pf:{item.path}"])
            if reason or not self._whole(where, item):
                reasons[item.path] = reason or "Borg did not restore it"
        return where, reasons

    @staticmethod
    def _whole(where: Path, item: Archived) -> bool:
        try:
            return (where / item.path).lstat().st_size == item.size
        except OSError:
            return False

    def _extract(self, repository: Repository, archive: str, where: Path, patterns: list[str]) -> str:
        """Why borg extract failed; "" when it did not."""
        output = Output(self.redactor)
        arguments = ["extract", "--log-json", "--sparse", *LOCK_WAIT, f"::{archive}", *patterns]
        status = borg_status(
            self.settings,
            repository,
            self.run_id,
            output,
            *arguments,
            directory=str(where),
            seconds=self._left(),
        )
        if status == 0 and not output.failed_files:
            return ""
        if output.failed_files:
            return output.failed_files[0]["message"][:300]
        return borg_error(self.settings, repository, output).message[:300]

    def _room(self, size: int) -> None:
        free = shutil.disk_usage(self.scratch).free
        if free < size + DRILL_ROOM:
            raise AgentError(
                "disk_full",
                f"A drill needs {size + DRILL_ROOM} bytes below {self.scratch.parent}, and {free} are free.",
                "Free some space there.",
            )
