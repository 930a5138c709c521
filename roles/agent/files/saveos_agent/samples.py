# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Samples: which files of an archive's listing are restored to prove it, and which database dumps it has."""

from __future__ import annotations

import datetime
import os
import random
import re
from dataclasses import dataclass
from typing import Optional

DRILL_FILE_BYTES, DRILL_BYTES = 64 * 1024 * 1024, 512 * 1024 * 1024  # of a sampled file, and of a sample
DUMP = re.compile(r"borgmatic/(postgresql|mariadb|mysql|sqlite|mongodb)_databases/[^/]+/[^/]+")


@dataclass(frozen=True)
class Archived:
    """A regular file as an archive holds it; times are POSIX seconds."""

    path: str  # without the leading slash
    size: int
    mtime: float


class Sample:
    """Chooses files of a listing: a reservoir with a seed, so that the same seed draws the same files."""

    def __init__(self, seed: int, size: int, canary: str) -> None:
        self._random = random.Random(seed)
        self._size, self._canary = size, canary
        self._rest = b""
        self._seen = 0
        self.files: list[Archived] = []
        self.dumps: dict[str, list[Archived]] = {}
        self.canary: Optional[Archived] = None
        self.holds_files = False  # of the host's own, whether a sample can take them or not

    def __call__(self, chunk: bytes) -> None:
        *records, self._rest = (self._rest + chunk).split(b"\0")
        for record in records:
            mode, size, moment, path = record.split(b" ", 3)
            if mode.startswith(b"-"):
                at = datetime.datetime.fromisoformat(moment.decode())
                at = at if at.tzinfo else at.replace(tzinfo=datetime.timezone.utc)
                self._take(Archived(os.fsdecode(path.strip(b"/")), int(size), at.timestamp()))

    def _take(self, item: Archived) -> None:
        dump = DUMP.match(item.path)
        if dump:
            self.dumps.setdefault(dump[0], []).append(item)
            return
        if item.path == self._canary:
            self.canary = item
            return
        if item.path.startswith("borgmatic/"):
            return
        self.holds_files = True
        if item.size <= DRILL_FILE_BYTES and self._exact(item):
            self._seen += 1
            if len(self.files) < self._size:
                self.files.append(item)
            elif (place := self._random.randrange(self._seen)) < self._size:
                self.files[place] = item

    @staticmethod
    def _exact(item: Archived) -> bool:
        """Whether the path is surely the archive's: Borg prints ? for bytes that are no text."""
        return "?" not in item.path or os.path.lexists(f"/{item.path}")

    def bounded(self) -> list[Archived]:
        """The chosen files, as many as fit in the bytes of a sample."""
        total, kept = 0, []
        for item in self.files:
            total += item.size
            if total <= DRILL_BYTES:
                kept.append(item)
        return kept
