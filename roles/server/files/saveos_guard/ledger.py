# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The hash-chained ledger of one repository."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass, field
from typing import Any

from saveos_guard.files import sync_dir


@dataclass
class Entry:
    """An archive in the ledger. `status`: live | gone (not judged) | ended (it was to go)."""

    id: str
    name: str
    at: float  # what prune goes by, bounded by what this server saw
    told_at: float
    seen: float | None  # when its object was committed here; None when it never was seen to live
    segment: int | None
    grown: int  # bytes that came with it, by the server's own count
    files: int | None
    size: int | None
    adopted: bool
    status: str = "live"
    gone_after: float = 0
    gone_at: float = 0
    accepted: set[str] = field(default_factory=set)  # reason codes that a person lifted


class Ledger:
    """Hash-chained lines of one repository: what it holds by everyone's word, and every act of the guard.

    The chain shows a line that was changed; a last line without its end was never acknowledged and is cut off.
    """

    def __init__(self, path: str) -> None:
        self.path, self.head, self.length, self.broken = path, "", 0, ""
        self.archives: dict[str, Entry] = {}
        self.policies: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.lifted: set[str] = set()  # approvals that were used
        self.last_at = 0.0
        self.started = False
        try:
            with open(path, "rb") as file:
                content = file.read()
        except FileNotFoundError:
            return
        self.started = True
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with open(path, "r+b") as file:
                file.truncate(whole)
        for number_, line in enumerate(content[:whole].splitlines(), 1):
            try:
                entry = json.loads(line)
                claimed = entry.pop("hash")
                if claimed != self._hash(entry):
                    raise ValueError("its hash is wrong")
                self._apply(entry)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                self.broken = f"line {number_}: {error}"
                return
            self.head, self.length = claimed, number_

    def _hash(self, entry: dict[str, Any]) -> str:
        text = json.dumps(entry, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(f"{self.head}\n{text}".encode()).hexdigest()

    def _apply(self, entry: dict[str, Any]) -> None:
        kind = entry["kind"]
        self.last_at = max(self.last_at, float(entry["ts"]))
        if kind == "archive":
            names = Entry.__dataclass_fields__
            self.archives[entry["id"]] = Entry(**{key: value for key, value in entry.items() if key in names})
        elif kind == "gone":
            found = self.archives[entry["id"]]
            found.status, found.gone_after, found.gone_at = "gone", entry["after"], entry["ts"]
        elif kind == "back":
            self.archives[entry["id"]].status = "live"
        elif kind == "ended":
            self.archives[entry["id"]].status = "ended"
        elif kind == "accept":
            self.lifted.add(entry["approval"])
            for each in entry.get("ids", []):
                if each in self.archives:
                    self.archives[each].accepted.add(entry["code"])
        elif kind == "policy":
            self.policies.append(entry)
        elif kind == "key":
            self.keys.append(entry["digest"])

    def add(self, kind: str, ts: float, **values: Any) -> None:
        """Append a line; it is on the disk when this returns, or nothing of it is."""
        entry = {"kind": kind, "ts": round(ts, 3), **values}
        claimed = self._hash(entry)
        line = json.dumps({**entry, "hash": claimed}, sort_keys=True).encode() + b"\n"
        fresh = not os.path.exists(self.path)
        with open(self.path, "ab") as file:
            size = file.tell()
            try:
                os.fchmod(file.fileno(), 0o600)
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(file.fileno(), size)
                raise
        if fresh:
            sync_dir(os.path.dirname(self.path))
        self._apply(entry)
        self.head, self.length, self.started = claimed, self.length + 1, True

    def of(self, *states: str) -> list[Entry]:
        """Entries of a status."""
        return [entry for entry in self.archives.values() if entry.status in states]

    def active_policies(self, now: float, hold: float) -> list[dict[str, Any]]:
        """The policies that must all let an archive go: those told lately, and the one from before."""
        older = [each for each in self.policies if each["ts"] <= now - hold] or self.policies[:1]
        return [*older[-1:], *(each for each in self.policies if each["ts"] > now - hold and each not in older)]
