"""A storage server in a directory: real Borg clients of `borg serve --append-only`, and the guard as modules.

Time is what the test says: where a moment is given, clients and compaction run under libfaketime, the guard is
told it, and files get the times they would have.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import tempfile
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from tests.packed import Packed

CHECKOUT = Path(__file__).resolve().parents[1]
SOURCES = CHECKOUT / "roles/server/files/saveos_guard"
FAKETIME = Path(f"/usr/lib/{os.uname().machine}-linux-gnu/faketime/libfaketime.so.1")
PASSPHRASE = "canary-guard-7f3a"
REPOSITORY = "r1"
PARTS = ("root", "state", "source", "client")


@cache
def load() -> Packed:
    """Return the guard's modules as one, out of the packed file."""
    directory = tempfile.mkdtemp(prefix="saveos-guard-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return Packed(SOURCES, Path(directory))


class Storage:
    """One repository on a storage server, its host, and what a controller would know of it."""

    def __init__(
        self, base: Path, borg: str, quota: str = "", like: Storage | None = None, **settings: Any
    ) -> None:
        """Make one, or with `like` another as it is now (which spares Borg the way there)."""
        self.base, self.borg_path, self.guard = base, borg, load()
        self.path = base / "root/repositories" / REPOSITORY
        self.source, self.state = base / "source", base / "state"
        if like:
            subprocess.run(["cp", "-a", *(str(like.base / part) for part in PARTS), str(base)], check=True)
        else:
            for folder in (self.path, self.source, self.state):
                folder.mkdir(parents=True)
        restrict = f"--append-only --restrict-to-repository {self.path}"
        limit = f" --storage-quota {quota}" if quota else ""
        self.shell = base / "shell"
        self.shell.write_text(f"#!/bin/sh\nexec {borg} serve {restrict}{limit}\n")
        self.shell.chmod(0o755)
        self.settings: dict[str, Any] = {
            **self.guard.DEFAULTS,
            "root": str(base / "root"),
            "state": str(self.state),
            "borg": borg,
            "settle_seconds": 0,
            "compact_every_hours": 0,
            "reserve_bytes": 0,
            "repositories": {REPOSITORY: {"quota": quota}},
            **settings,
        }
        self.retention: dict[str, Any] = {"keep_within": "2d", "keep_daily": 3}
        self.archives: list[dict[str, Any]] = [dict(each) for each in like.archives] if like else []
        self.now: float | None = None  # None: the real time
        if not like:
            self.client("init", "-e", "repokey-blake2", self.url)

    @property
    def url(self) -> str:
        """The repository as its host sees it."""
        return f"ssh://server{self.path}"

    @property
    def hold(self) -> Path:
        """Where its copies lie."""
        return self.base / "root/.guard" / REPOSITORY

    @property
    def time(self) -> float:
        """The moment that counts."""
        return datetime.now(UTC).timestamp() if self.now is None else self.now

    def client(self, *words: str, code: int | None = 0, base: str = "client", **more: str) -> str:
        """Run borg on the host, through the forced command; its standard output, or all for another code."""
        environment = {
            **os.environ,
            "BORG_PASSPHRASE": PASSPHRASE,
            "BORG_BASE_DIR": str(self.base / base),
            "BORG_RSH": str(self.shell),
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
            "TZ": "UTC",
            **self.faked(),
            **more,
        }
        ran = subprocess.run(
            [self.borg_path, *words],
            env=environment,
            text=True,
            capture_output=True,
            check=False,
            cwd=self.base,
        )
        self.settle_times()
        assert code is None or ran.returncode == code, f"{words}: {ran.returncode}\n{ran.stdout}{ran.stderr}"
        return ran.stdout if code == 0 else ran.stdout + ran.stderr

    def faked(self) -> dict[str, str]:
        """What makes a program believe in our moment."""
        if self.now is None:
            return {}
        moment = datetime.fromtimestamp(self.now, UTC).strftime("@%Y-%m-%d %H:%M:%S")
        return {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME": moment,
            "NO_FAKE_STAT": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def settle_times(self) -> None:
        """Give files that were just written the moment they were written at."""
        if self.now is None:
            return
        for file in [*self.path.rglob("*")]:
            if file.is_file() and file.stat().st_mtime < datetime(2028, 1, 1, tzinfo=UTC).timestamp():
                os.utime(file, (self.now, self.now))

    def back_up(self, name: str) -> dict[str, Any]:
        """Make an archive of the sources, and have the controller know it."""
        made = json.loads(self.client("create", "--json", f"{self.url}::{name}", str(self.source)))["archive"]
        told = {
            "id": made["id"],
            "name": name,
            "at": made["start"] + "+00:00",
            "files": made["stats"]["nfiles"],
            "size": made["stats"]["original_size"],
        }
        self.archives.append(told)
        return told

    def write(self, name: str, seed: int, size: int = 100_000) -> None:
        """Put a file of random bytes into the sources."""
        import random

        (self.source / name).write_bytes(random.Random(seed).randbytes(size))

    def prune(self, *more: str) -> None:
        """Apply the policy on the host, as the agent does."""
        rules = [f"--{key.replace('_', '-')}={value}" for key, value in self.retention.items()]
        self.client("prune", *rules, *more, self.url)

    def names(self) -> set[str]:
        """Return the archives there are, by the host's own word."""
        return set(self.client("list", "--short", self.url).split())

    def tell(self, **more: Any) -> Any:
        """Hand in the controller's word."""
        at = datetime.fromtimestamp(self.time, UTC).isoformat()
        about = {
            "archives": self.archives,
            "retention": self.retention,
            "zone": "UTC",
            "open_alerts": [],
            "approvals": [],
        }
        server = {key: more.pop(key) for key in ("hold_days",) if key in more}
        word = {"schema": 1, "at": at, **server, "repositories": {REPOSITORY: {**about, **more}}}
        return self.guard.tell(self.settings, word, self.time)

    def run(self, compact: bool = True) -> dict[str, Any]:
        """Have the guard run; what it reports of the repository."""
        settings = self.settings
        if (
            faked := self.faked()
        ):  # borg gets no environment of the guard: the settings name a borg with this one
            wrapper = self.base / "faked-borg"
            words = " ".join(f"{key}='{value}'" for key, value in faked.items())
            wrapper.write_text(f'#!/bin/sh\n{words} exec {settings["borg"]} "$@"\n')
            wrapper.chmod(0o755)
            settings = {**settings, "borg": str(wrapper)}
        report = self.guard.run(settings, [], self.time, compact)
        self.settle_times()
        found: dict[str, Any] = report["repositories"][0]
        return found

    def told_and_run(self, **more: Any) -> dict[str, Any]:
        """Tell, then run."""
        self.tell(**more)
        return self.run()

    def undo(self, to: str = "latest-good", plan: bool = False) -> Any:
        """Put the repository back."""
        settings = self.settings
        guard = self.guard.Guard(settings, self.time, self.guard.hold_days(settings)[0], False)
        return self.guard.undo(self.guard.Repository(guard, REPOSITORY), to, plan)

    def mend(self) -> None:
        """Do what the agent's verb mend does: forget what the host remembers of the newer repository."""
        for file in (self.base / "client").rglob("manifest-timestamp"):
            file.unlink()
        self.client("delete", "--cache-only", self.url, code=None)

    def restore(self, name: str) -> dict[str, bytes]:
        """Return the files of an archive."""
        target = self.base / "restored"
        target.mkdir()
        ran = subprocess.run(
            [self.borg_path, "extract", f"{self.url}::{name}"],
            cwd=target,
            env={
                **os.environ,
                "BORG_PASSPHRASE": PASSPHRASE,
                "BORG_BASE_DIR": str(self.base / "client"),
                "BORG_RSH": str(self.shell),
                "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
                **self.faked(),
            },
            text=True,
            capture_output=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        found = {file.name: file.read_bytes() for file in target.rglob("*") if file.is_file()}
        subprocess.run(["rm", "-rf", str(target)], check=True)
        return found

    def wait(self) -> None:
        """Until the clock is past the last commit, so that what is told then is newer."""
        import time

        last = max((file.stat().st_mtime for file in self.path.rglob("*")), default=0.0)
        while self.now is None and time.time() <= last:
            time.sleep(0.01)
