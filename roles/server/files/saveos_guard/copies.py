# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Copies of a repository: hard links, and real copies of what Borg writes again."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from saveos_guard.borg_files import OWN, SMALL, key_digest, numbers
from saveos_guard.errors import Busy, Damaged
from saveos_guard.files import drop, sync_dir, write_json
from saveos_guard.reasons import reason
from saveos_guard.repository import Repository
from saveos_guard.values import DAY, iso
from saveos_guard.view import META, View


def clean(repository: Repository) -> None:
    """Remove what a run that was killed left half made."""
    for name in os.listdir(repository.hold):
        whole = os.path.exists(f"{repository.hold}/{name}/{META}")
        if name.startswith(".") or not whole:
            shutil.rmtree(f"{repository.hold}/{name}")


def link(name: str, source: int, target: int, owner: tuple[int, int]) -> None:
    """Hard-link one file between directories, and take it from the user: nobody writes to it any more."""
    handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source)
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_uid not in (0, owner[0]):
            raise Damaged(f"{name} is not a file of the repository's user")
        os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
        if os.geteuid() == 0 and (
            (found.st_uid, found.st_gid) != (0, owner[1]) or found.st_mode & 0o777 != 0o440
        ):
            os.fchown(handle, 0, owner[1])
            os.fchmod(handle, 0o440)
    finally:
        os.close(handle)


def copy_small(name: str, source: int, target: int) -> None:
    """Copy what Borg may write again; a file that is not there is none."""
    try:
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source)
    except FileNotFoundError:
        return
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise Damaged(f"{name} is not a file")
        fresh = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=target)
        with os.fdopen(fresh, "wb") as copy:
            shutil.copyfileobj(file, copy, 1 << 20)
            copy.flush()
            os.fsync(copy.fileno())


@contextlib.contextmanager
def opened(path: str, inside: int | None = None) -> Iterator[int]:
    """A directory to link from or into; no symbolic link is followed."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=inside)
    try:
        yield handle
    finally:
        os.close(handle)


def link_segments(data: int, target: str, transaction: int, owner: tuple[int, int]) -> None:
    """Link the segments of a repository's `data` up to a transaction."""
    for folder in numbers(os.listdir(data)):
        with opened(str(folder), data) as inside:
            segments = [each for each in numbers(os.listdir(inside)) if each <= transaction]
            if not segments:
                continue
            os.mkdir(f"{target}/{folder}", 0o700)
            with opened(f"{target}/{folder}") as outside:
                for segment in segments:
                    link(str(segment), inside, outside, owner)
                os.fsync(outside)


def duplicate(source: str, target: str, transaction: int, owner: tuple[int, int]) -> None:
    """Build a directory that holds a repository's state at a transaction; everything in it is on the disk.

    Committed segments, index, hints and integrity (which Borg replaces, but never writes to) are linked.
    Busy when the repository went on meanwhile.
    """
    os.mkdir(target, 0o700)
    os.mkdir(f"{target}/data", 0o700)
    with opened(source) as top, opened(target) as there:
        try:
            for name in OWN:
                link(f"{name}.{transaction}", top, there, owner)
            for name in SMALL:
                copy_small(name, top, there)
            with opened("data", top) as data:
                link_segments(data, f"{target}/data", transaction, owner)
        except FileNotFoundError as error:
            raise Busy("it changed while it was copied") from error
        if f"index.{transaction}" not in os.listdir(top):
            raise Busy("it changed while it was copied")
        sync_dir(f"{target}/data")
        os.fsync(there)


def take_copy(repository: Repository, why: str, transaction: int) -> dict[str, Any]:
    """Copy the live repository. Raises Busy, Damaged, OSError; then nothing of it is left that counts."""
    partial = f"{repository.hold}/.partial"
    if os.path.isdir(partial):
        shutil.rmtree(partial)
    try:
        duplicate(repository.path, partial, transaction, repository.owner)
        segments = [each for folder in os.scandir(f"{partial}/data") for each in os.scandir(folder.path)]
        last = max(segments, key=lambda each: int(each.name), default=None)
        meta = {
            "at": round(repository.now, 3),
            "transaction": transaction,
            "committed_at": last.stat().st_mtime if last else repository.now,
            "key": key_digest(partial),
            "why": why,
            "good": False,
        }
        write_json(f"{partial}/{META}", meta)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return place_copy(repository, partial, meta)


def free_name(repository: Repository, at: float, mark: str = "") -> str:
    """A name for a copy of this moment that no other has."""
    taken, stem = set(os.listdir(repository.hold)), datetime.fromtimestamp(at, timezone.utc)
    return next(each for n in range(1, 10_000) if (each := f"{stem:%Y%m%dT%H%M%SZ}-{mark}{n}") not in taken)


def place_copy(repository: Repository, built: str, meta: dict[str, Any]) -> dict[str, Any]:
    """Give a built copy its name."""
    name = free_name(repository, meta["at"])
    os.rename(built, f"{repository.hold}/{name}")
    sync_dir(repository.hold)
    return {**meta, "name": name}


def thin(repository: Repository) -> None:
    """Drop copies that were held long enough; never the newest, nor the last good one.

    Every copy from before a compact or an undo is held for all the days, of others one of each day.
    """
    copies = repository.copies()
    good = [each["name"] for each in copies if each.get("good")][-1:]
    days: set[str | None] = set()
    for copy in reversed(copies):
        age = repository.now - copy["at"]
        day = (iso(copy["at"]) or "")[:10]
        keep = age < DAY or (
            age < repository.guard.floor * DAY and (copy["why"] != "change" or day not in days)
        )
        if copy["why"] == "change":
            days.add(day)
        if not keep and copy is not copies[-1] and copy["name"] not in good:
            drop(f"{repository.hold}/{copy['name']}")


def extra_bytes(repository: Repository, live: dict[int, int]) -> dict[str, int]:
    """By copy, bytes on the disk that neither the repository (`live`: its inodes) nor a newer copy has."""
    known, found = set(live), {}
    for copy in reversed(repository.copies()):
        mine = 0
        for folder, _, names in os.walk(f"{repository.hold}/{copy['name']}"):
            for name in names:
                status = os.lstat(f"{folder}/{name}")
                if status.st_ino not in known:
                    known.add(status.st_ino)
                    mine += status.st_blocks * 512
        found[copy["name"]] = mine
    return found


def lost_segments(repository: Repository, copy: dict[str, Any]) -> list[int]:
    """Segments of the newest copy that are not in the repository, though the guard removed none."""
    folders = [f"{repository.path}/data", f"{repository.hold}/{copy['name']}/data"]
    live, held = (
        {(entry.name, entry.inode()) for folder in os.scandir(top) for entry in os.scandir(folder.path)}
        if os.path.isdir(top) and not os.path.islink(top)
        else set()
        for top in folders
    )
    return sorted(int(name) for name, _ in held - live)


def current_view(repository: Repository, report: dict[str, Any]) -> tuple[View | None, dict[str, Any]]:
    """The repository as it is now, as a copy: the newest, when nothing was committed since."""
    transaction = repository.transaction()
    if transaction is None:
        return None, {}
    last = next(reversed(repository.copies()), None)
    if (
        last and last["why"] != "undo" and repository.state.get("ours") != last["name"]
    ):  # only clients came since
        if lost := lost_segments(repository, last):
            text = f"{len(lost)} segments were removed or replaced by something other than the guard"
            report["reasons"].append(reason("damaged", text))
        if lost or (last["transaction"], last["key"]) == (transaction, key_digest(repository.path)):
            return View(f"{repository.hold}/{last['name']}"), last
    for attempt in range(3):
        try:
            copy = take_copy(repository, "change", transaction)
            break
        except Busy:
            transaction = repository.transaction()
            if attempt == 2 or transaction is None:
                raise
    repository.state["ours"] = ""
    repository.save()
    return View(f"{repository.hold}/{copy['name']}"), copy
