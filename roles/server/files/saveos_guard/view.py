# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A copy of a repository as it is judged."""

from __future__ import annotations

import os

from saveos_guard.borg_files import MANIFEST, Index
from saveos_guard.errors import Damaged
from saveos_guard.files import read_json
from saveos_guard.hints import unpack

META = "saveos-guard.json"  # in a copy: written last, so a copy without it is none
ABSURD_BYTES = 1 << 28  # of a hints file: no honest repository comes near, and it must fit in memory


class View:
    """A copy as it is judged: nothing in it changes any more. Damaged when it cannot be read."""

    def __init__(self, path: str) -> None:
        self.path = path
        meta = read_json(f"{path}/{META}", {})
        self.transaction, self.at = int(meta["transaction"]), float(meta["committed_at"])
        self.key, self.good, self.why = str(meta["key"]), bool(meta.get("good")), str(meta.get("why"))
        entries = [entry for folder in os.scandir(f"{path}/data") for entry in os.scandir(folder.path)]
        self.files = {int(entry.name): entry.path for entry in entries}
        self.segments = {int(entry.name): entry.stat(follow_symlinks=False) for entry in entries}
        self.bytes = sum(found.st_size for found in self.segments.values())
        self.index = Index(f"{path}/index.{self.transaction}")
        file = f"{path}/hints.{self.transaction}"
        if os.path.getsize(file) > ABSURD_BYTES:
            raise Damaged("its hints are larger than any honest repository's")
        with open(file, "rb") as handle:
            try:
                hints = unpack(handle.read())
                self.counts = {int(key): int(value) for key, value in hints[b"segments"].items()}
                self.freeable = {
                    int(key): int(value) for key, value in hints[b"compact"].items() if int(value) > 0
                }
                shadow = hints.get(b"shadow_index", {})
                self.shadow = {bytes(key) for key, value in shadow.items() if value}
                self.quota_used = int(hints.get(b"storage_quota_use", 0))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise Damaged(f"its hints cannot be read: {error}") from error
        self.lost = sorted(
            number for number, count in self.counts.items() if count and number not in self.segments
        )

    @property
    def freeable_bytes(self) -> int:
        """What a compact could free at the most."""
        return min(sum(self.freeable.values()), self.bytes)

    def worthwhile(self) -> tuple[int, int]:
        """(bytes a compact would free, bytes it would write anew): of segments over a tenth freeable."""
        freed = written = 0
        for segment, free in self.freeable.items():
            size = self.segments[segment].st_size if segment in self.segments else 0
            if size and free > size * 0.1:
                freed, written = freed + min(free, size), written + max(0, size - free)
        return freed, written

    def shadowed(self) -> dict[bytes, tuple[int, int] | None]:
        """Objects of which an older content is marked deleted: where they live now, None for nowhere."""
        return {key: self.index.get(key) for key in self.shadow if key != MANIFEST}
