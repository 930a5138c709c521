# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Moves what was extracted aside into its place, by the conflict rule."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import errno
import os
import secrets
import shutil
import stat
from pathlib import Path
from typing import Iterator, Optional

from saveos_agent.directories import DIRECTORY, open_below, open_directory, opened
from saveos_agent.errors import AgentError
from saveos_agent.processes import LIBC, Cancel
from saveos_agent.redaction import Redactor

RESTORE_FAILED_KEEP, RESTORE_FAILED_SIZE, PREVIEW_KEEP = 1000, 200_000, 200
_RENAME_NOREPLACE = 1


class Failures:
    """What could not be restored, file by file; each path once, the first RESTORE_FAILED_KEEP of them kept."""

    def __init__(self, redactor: Redactor) -> None:
        self.redactor, self.known, self.total, self.size = redactor, dict[str, str](), 0, 0

    def add(self, path: str, reason: str) -> None:
        path = "/" + path.lstrip("/")
        if path in self.known:
            return
        self.total += 1
        self.size += len(path) + len(reason)
        if len(self.known) < RESTORE_FAILED_KEEP and self.size < RESTORE_FAILED_SIZE:
            self.known[path] = reason

    def listed(self) -> list[dict[str, str]]:
        clean = self.redactor.clean
        return [
            {"path": clean(os.fsencode(path).decode("utf-8", "replace")), "message": clean(reason)}
            for path, reason in self.known.items()
        ]


def decide(rule: str, is_directory: bool, mtime: int, there: Optional[os.stat_result]) -> str:
    """What happens to an entry: create, merge, skip, overwrite, rename, or blocked. `mtime` in µs."""
    if there is None:
        return "create"
    both = is_directory, stat.S_ISDIR(there.st_mode)
    if all(both):
        return "merge"
    if rule == "rename":
        return "rename"
    if rule == "skip":
        return "skip"
    if any(both):
        return "blocked"
    if rule == "newer" and there.st_mtime_ns // 1000 >= mtime:
        return "skip"
    return "overwrite" if rule in ("overwrite", "newer") else "blocked"


class Foresight:
    """Says for each entry, parents first, what a restore does to it, without doing it."""

    def __init__(self, base: str, rule: str) -> None:
        self.base, self.rule = base.rstrip("/"), rule
        self.directories: dict[str, str] = {"": "merge"}
        self.actions: collections.Counter[str] = collections.Counter()
        self.first: list[dict[str, str]] = []

    def look(self, path: str, is_directory: bool, mtime: int) -> str:
        """Decide on one entry and count it; directories that are there already do not count."""
        action = self._decide(path, is_directory, mtime)
        if is_directory:
            self.directories[path] = action
        if action != "merge":
            self.actions[action] += 1
            if len(self.first) < PREVIEW_KEEP:
                shown = os.fsencode(f"{self.base}/{path}").decode("utf-8", "replace")
                self.first.append({"path": shown, "action": action})
        return action

    def _decide(self, path: str, is_directory: bool, mtime: int) -> str:
        above = os.path.dirname(path)
        if above not in self.directories:
            self.directories[above] = self._decide(above, True, 0)
        state = self.directories[above]
        if state in ("create", "rename"):
            return "create"
        if state in ("skip", "blocked"):
            return state
        try:
            there: Optional[os.stat_result] = os.lstat(f"{self.base}/{path}")
        except OSError:
            there = None
        return decide(self.rule, is_directory, mtime, there)

    def counts(self) -> dict[str, int]:
        names = {"created": "create", "overwritten": "overwrite", "skipped": "skip", "renamed": "rename"}
        return {name: self.actions[action] for name, action in names.items()}


def put_into(mover: Mover, partial: Path, destination: Path) -> None:
    """Move a staged tree to a destination: as a whole where that is free, else entry by entry."""
    parent = open_directory(str(destination.parent), create=True)
    try:
        with contextlib.suppress(OSError):
            os.rename(partial, destination.name, dst_dir_fd=parent)  # absent, or an empty directory
            return
        with contextlib.suppress(FileExistsError):
            os.mkdir(destination.name, 0o700, dir_fd=parent)
    finally:
        os.close(parent)
    with opened(open_directory(str(partial))) as source, opened(open_directory(str(destination))) as target:
        mover.merge(source, target, "")


def put_back(mover: Mover, partial: Path, chosen: list[str]) -> None:
    """Move a staged tree to where it came from. Above what was chosen, links of the host's own are followed."""
    with opened(os.open(partial, DIRECTORY)) as root:
        for path in chosen or [""]:
            above, name = os.path.split(path)
            try:
                source = open_below(root, above)
            except OSError:
                continue  # not in the archive, which is noted already, or moved before a kill
            with opened(source):
                if path and name not in os.listdir(source):
                    continue
                with opened(open_directory(f"/{above}", create=True)) as target:
                    if path:
                        mover.entry(source, target, name, path)
                    else:
                        mover.merge(source, target, "")


@contextlib.contextmanager
def _both(source: int, name: str, target: int, new: str) -> Iterator[tuple[int, int]]:
    """A directory of each of two open directories, itself opened; never a symbolic link."""
    with opened(os.open(name, DIRECTORY, dir_fd=source)) as inner:  # noqa: SIM117
        with opened(os.open(new, DIRECTORY, dir_fd=target)) as place:
            yield inner, place


class Mover:
    """Moves entries between open directories and follows no symbolic link in either of them.

    An entry is moved by one rename, so a kill leaves it here or there; what is moved is gone from the source,
    so doing it again goes on. Between file systems it is copied beside its place first.
    """

    def __init__(
        self, rule: str, failures: Failures, cancel: Cancel, times: Optional[dict[str, list[int]]] = None
    ) -> None:
        self.rule, self.failures, self.cancel = rule, failures, cancel
        self.times = times or {}  # of directories: inner path → atime and mtime in ns, known before a kill
        self.copies: dict[tuple[int, int], tuple[str, int]] = {}  # hard links, copied to another file system
        self.untouched: frozenset[str] = frozenset()  # what directories that are there keep of their own

    def merge(self, source: int, target: int, shown: str) -> None:
        for name in sorted(os.listdir(source)):
            if self.cancel.requested:
                raise AgentError("canceled", "The run was canceled.", "Start it again when it suits.")
            self.entry(source, target, name, f"{shown}/{name}")

    def entry(self, source: int, target: int, name: str, shown: str) -> None:
        """Move one entry; what fails is noted, and the others go on."""
        try:
            self._entry(source, target, name, shown)
        except OSError as error:
            self.failures.add(shown, error.strerror or str(error))

    def _entry(self, source: int, target: int, name: str, shown: str) -> None:
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        try:
            there: Optional[os.stat_result] = os.stat(name, dir_fd=target, follow_symlinks=False)
        except FileNotFoundError:
            there = None
        action = decide(self.rule, stat.S_ISDIR(status.st_mode), status.st_mtime_ns // 1000, there)
        if action == "create":
            self._put(source, name, target, name, shown)
        elif action == "overwrite":
            self._put(source, name, target, name, shown, replace=True)
        elif action == "rename":
            self._put_beside(source, name, target, shown)
        elif action == "merge":
            self._into(source, name, target, shown, keep=self.rule in ("skip", "rename"))
        elif action == "blocked":
            assert there is not None
            kind = "directory" if stat.S_ISDIR(there.st_mode) else "file or link"
            self.failures.add(shown, f"a {kind} of that name is in its way")

    def _into(self, source: int, name: str, target: int, shown: str, keep: bool) -> None:
        """Merge a directory into one that is there; with `keep` that one's owner, mode and times stay."""
        with _both(source, name, target, name) as (inner, place):
            times = self.times.get(shown.lstrip("/")) or _times(inner)  # moving out of it changes them
            self.merge(inner, place, shown)
            if not keep:
                copy_metadata(f"/proc/self/fd/{inner}", f"/proc/self/fd/{place}", times, self.untouched)
        with contextlib.suppress(OSError):
            os.rmdir(name, dir_fd=source)

    def _put_beside(self, source: int, name: str, target: int, shown: str) -> None:
        """Put an entry under a name that is free: NAME.restored, NAME.restored-2, …"""
        number = 1
        while True:
            suffix = ".restored" + (f"-{number}" if number > 1 else "")
            base = os.fsdecode(os.fsencode(name)[: 255 - len(suffix)])
            try:
                self._put(source, name, target, base + suffix, shown)
            except FileExistsError:
                number += 1
            else:
                return

    def _put(self, source: int, name: str, target: int, new: str, shown: str, replace: bool = False) -> None:
        try:
            rename_entry(source, name, target, new, replace)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._copy(source, name, target, new, shown, replace)

    def _copy(self, source: int, name: str, target: int, new: str, shown: str, replace: bool) -> None:
        """Bring an entry to another file system: a copy beside its place, with all that belongs to it."""
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            os.mkdir(new, 0o700, dir_fd=target)
            with _both(source, name, target, new) as (inner, place):
                times = _times(inner)
                self.merge(inner, place, shown)
                copy_metadata(f"/proc/self/fd/{inner}", f"/proc/self/fd/{place}", times)
            os.rmdir(name, dir_fd=source)
            return
        fresh = f".saveos-{secrets.token_hex(6)}.new"
        key, goal = (status.st_dev, status.st_ino), f"/proc/self/fd/{target}/{fresh}"
        try:
            if not self._linked(key, target, fresh):
                copy_file(f"/proc/self/fd/{source}/{name}", goal, status)
            made = os.stat(fresh, dir_fd=target, follow_symlinks=False)
            rename_entry(target, fresh, target, new, replace)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(fresh, dir_fd=target)
            raise
        if status.st_nlink > 1:
            self.copies[key] = os.path.join(os.readlink(f"/proc/self/fd/{target}"), new), made.st_ino
        os.unlink(name, dir_fd=source)

    def _linked(self, key: tuple[int, int], target: int, fresh: str) -> bool:
        """Make `fresh` one more name of a file that was copied before, if it is one."""
        known, inode = self.copies.get(key, ("", 0))
        if not known:
            return False
        with contextlib.suppress(OSError):
            os.link(known, fresh, dst_dir_fd=target, follow_symlinks=False)
            if os.stat(fresh, dir_fd=target, follow_symlinks=False).st_ino == inode:
                return True
            os.unlink(fresh, dir_fd=target)
        return False


def rename_entry(source: int, name: str, target: int, new: str, replace: bool) -> None:
    """Rename between open directories; without `replace`, never over what is there. Raises OSError."""
    call = None if replace else getattr(LIBC, "renameat2", None)
    if call is not None:
        if not call(source, os.fsencode(name), target, os.fsencode(new), _RENAME_NOREPLACE):
            return
        number = ctypes.get_errno()
        if number not in (errno.EINVAL, errno.ENOSYS):  # a file system or kernel that cannot
            raise OSError(number, os.strerror(number), new)
    if not replace:
        with contextlib.suppress(FileNotFoundError):
            os.stat(new, dir_fd=target, follow_symlinks=False)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
    os.rename(name, new, src_dir_fd=source, dst_dir_fd=target)


def copy_file(source: str, goal: str, status: os.stat_result) -> None:
    """Copy one entry that is no directory to a new path, holes kept, with all that belongs to it."""
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), goal)
    elif stat.S_ISREG(status.st_mode):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as old:
            with open(os.open(goal, flags, 0o600), "wb") as new:
                _copy_data(old.fileno(), new.fileno(), status.st_size)
                os.fsync(new.fileno())
    else:
        os.mknod(goal, stat.S_IFMT(status.st_mode) | 0o600, status.st_rdev)
    copy_metadata(source, goal)


def _copy_data(old: int, new: int, size: int) -> None:
    os.truncate(new, size)
    at = 0
    while at < size:
        try:
            at = os.lseek(old, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        end = os.lseek(old, at, os.SEEK_HOLE)
        while at < end:
            data = os.pread(old, min(1 << 20, end - at), at)
            if not data:
                raise OSError(errno.EIO, "the staged file became shorter")
            at += os.pwrite(new, data, at)


def _times(directory: int) -> list[int]:
    status = os.fstat(directory)
    return [status.st_atime_ns, status.st_mtime_ns]


OWNERS, ACLS, XATTRS = "owners", "system.posix_acl_", "user."  # prefixes of attributes' names, the last two


def untouched(owners: bool, acls: bool, xattrs: bool) -> frozenset[str]:
    """What a restore without owners, ACLs or extended attributes leaves alone."""
    wanted = {OWNERS: owners, ACLS: acls, XATTRS: xattrs}
    return frozenset(name for name, is_wanted in wanted.items() if not is_wanted)


def disown(tree: Path) -> None:
    """Make a tree that only we can change ours; what was setuid or setgid to somebody is that to nobody."""
    for directory, names, files in os.walk(tree):
        for name in (*names, *files):
            path = os.path.join(directory, name)
            os.chown(path, os.geteuid(), os.getegid(), follow_symlinks=False)
            mode = os.lstat(path).st_mode
            if not stat.S_ISLNK(mode):
                os.chmod(path, stat.S_IMODE(mode) & ~(stat.S_ISUID | stat.S_ISGID))


def copy_metadata(
    source: str, goal: str, times: Optional[list[int]] = None, left: frozenset[str] = frozenset()
) -> None:
    """Owner, attributes, ACLs, mode and times of one path to another; of directories with `times`.

    `left`: what of the goal's own stays (see `untouched`).
    """
    follow = times is not None  # directories come as /proc/self/fd/N
    status = os.stat(source, follow_symlinks=follow)
    if OWNERS not in left:
        with contextlib.suppress(PermissionError):
            os.chown(goal, status.st_uid, status.st_gid, follow_symlinks=follow)
    ours = tuple(prefix for prefix in (XATTRS, ACLS) if prefix not in left)
    with contextlib.suppress(OSError):
        kept = os.listxattr(source, follow_symlinks=follow)
        for name in os.listxattr(goal, follow_symlinks=follow):
            if name not in kept and name.startswith(ours):
                os.removexattr(goal, name, follow_symlinks=follow)
    shutil.copystat(source, goal, follow_symlinks=follow)
    if times:
        os.utime(goal, ns=(times[0], times[1]))


def tree_size(directory: Path) -> tuple[int, int]:
    """Number of entries that are no directories, and bytes of regular files, below a directory."""
    files = size = 0
    queue = [str(directory)]
    while queue:
        with os.scandir(queue.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    queue.append(entry.path)
                else:
                    files += 1
                    size += (
                        entry.stat(follow_symlinks=False).st_size if entry.is_file(follow_symlinks=False) else 0
                    )
    return files, size
