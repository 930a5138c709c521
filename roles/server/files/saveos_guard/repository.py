# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One repository: its places, what is known of it, and what holds for all of one run."""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
from dataclasses import dataclass
from typing import Any

from saveos_guard.borg_files import numbers
from saveos_guard.errors import Trouble
from saveos_guard.files import read_json, write_json
from saveos_guard.ledger import Ledger
from saveos_guard.settings import ID
from saveos_guard.values import DAY, number, parse_size, seconds_of
from saveos_guard.view import META


def kernel_clock_synced() -> bool:
    """Whether the kernel's clock is kept in sync by a time service."""
    with contextlib.suppress(Exception):
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(512))
        return bool(0 <= state < 5)
    return False


class Repository:
    """The places of one repository, and what the guard does with it."""

    def __init__(self, guard: Guard, name: str) -> None:
        self.guard, self.id, self.now = guard, name, guard.now
        self.settings: dict[str, Any] = guard.settings
        self.path = f"{guard.root}/repositories/{name}"
        self.hold = f"{guard.root}/.guard/{name}"
        self.place = f"{self.settings['state']}/{name}"
        for folder in (f"{guard.root}/.guard", self.hold, self.place):
            os.makedirs(folder, mode=0o700, exist_ok=True)
            os.chmod(folder, 0o700)
        self.state: dict[str, Any] = read_json(f"{self.place}/state.json", {}) or {}
        self.told: dict[str, Any] = read_json(f"{self.place}/told.json", {}) or {}
        self.ledger = Ledger(f"{self.place}/ledger.jsonl")
        with contextlib.suppress(FileNotFoundError):
            found = os.lstat(self.path)
            if stat.S_ISDIR(found.st_mode):
                self.state["owner"] = [found.st_uid, found.st_gid]  # also for when it is not there

    @property
    def owner(self) -> tuple[int, int]:
        """(uid, gid) of the user under `borg serve`: whose the repository is, or was. Trouble for nobody's."""
        if "owner" not in self.state:
            raise Trouble(f"nobody knows whose repository {self.id} was: provision this storage server")
        uid, gid = self.state["owner"]
        return uid, gid

    @property
    def gone(self) -> bool:
        """Whether it was here and is not any more."""
        return self.ledger.started and not os.path.exists(f"{self.path}/config")

    def save(self) -> None:
        """Keep the state for the next run."""
        write_json(f"{self.place}/state.json", self.state)

    def transaction(self) -> int | None:
        """The last transaction whose index is written; None before the first."""
        try:
            return max(numbers(os.listdir(self.path), "index."), default=None)
        except OSError:
            return None

    def copies(self) -> list[dict[str, Any]]:
        """Whole copies, oldest first: {name, at, transaction, good, why, …}."""
        found = []
        for name in sorted(os.listdir(self.hold)):
            meta = None if name.startswith(".") else read_json(f"{self.hold}/{name}/{META}")
            if isinstance(meta, dict):
                found.append({**meta, "name": name})
        return sorted(found, key=lambda each: (each["at"], each["name"]))

    def mark(self, copy: dict[str, Any], **values: Any) -> None:
        """Note something on a copy."""
        copy.update(values)
        meta = {key: value for key, value in copy.items() if key != "name"}
        write_json(f"{self.hold}/{copy['name']}/{META}", meta)

    @property
    def quota(self) -> int | None:
        """Its quota in bytes; None for none."""
        return parse_size(self.settings["repositories"].get(self.id, {}).get("quota"))

    @property
    def baseline(self) -> int:
        """Freeable bytes that were judged before."""
        return int(self.state.get("baseline") or 0)

    def brought(self) -> int:
        """Bytes that came with archives that have ended: all that prune can ever free."""
        return sum(entry.grown for entry in self.ledger.of("ended"))

    def told_at(self) -> float:
        """When the controller's word was made; 0 for never."""
        return min(seconds_of(self.told.get("at")) or 0, number(self.told.get("arrived")))

    def clock_synced(self) -> bool:
        """Whether this server's clock can be trusted with what expires: by the kernel, or the controller."""
        arrived, at = number(self.told.get("arrived")), seconds_of(self.told.get("at")) or 0
        same = abs(arrived - at) < 300 and arrived <= self.now + 300 and self.now - arrived < DAY
        last = max(self.ledger.last_at, float(self.state.get("last_run") or 0))
        jumped = self.now < last - 300 or (
            last and self.now - last > 40 * DAY and not self.guard.kernel and not same
        )
        return (self.guard.kernel or same) and not jumped


@dataclass
class Guard:
    """What holds for all repositories of one run."""

    settings: dict[str, Any]
    now: float
    floor: float  # days; the hold
    kernel: bool

    @property
    def root(self) -> str:
        """Where repositories and copies lie."""
        return os.path.normpath(str(self.settings["root"]))

    def ids(self) -> list[str]:
        """Every repository there is, or was."""
        there = os.listdir(f"{self.root}/repositories") if os.path.isdir(f"{self.root}/repositories") else []
        known = os.listdir(self.settings["state"])
        names = {name for name in [*there, *self.settings["repositories"]] if ID.fullmatch(name)}
        names |= {name for name in known if os.path.exists(f"{self.settings['state']}/{name}/ledger.jsonl")}
        return sorted(names)

    def repository(self, name: str) -> Repository:
        """One of them. Trouble when there is none of this name."""
        if name not in self.ids():
            raise Trouble(f"there is no repository {name} on this server")
        return Repository(self, name)
