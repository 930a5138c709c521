# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Find, and remove, old files below a directory; never outside it, whatever lies there.

A tree may belong to people who wish us ill. Every directory is opened below the one before by its own name
(`dir_fd`, O_NOFOLLOW), so no symbolic link is ever followed and a path that is swapped meanwhile leads nowhere
else. A directory on another device or mount (also a bind mount of the same device) is not entered.
Only regular files with one name are removed: no links, devices, sockets; none that a process has open.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from fnmatch import translate

DAY = 86_400
DEEPEST = 100  # levels; a deeper tree is left alone and counted
SHOWN = 20  # paths that a tally names
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
TRAPS = {"link": "links", "hard": "files with several names", "open": "open files", "mount": "mount points",
         "odd": "sockets, pipes and devices", "deep": "too deep directories", "fresh": "fresh files",
         "error": "not permitted"}  # fmt: skip


class Refused(Exception):
    """A root that is not to be walked; the sentence says why."""


class Tally:
    """What matched below a root, and what was removed of it; bytes are blocks on disk, as `du` counts."""

    def __init__(self):
        self.files = self.directories = self.bytes = 0
        self.freed_files = self.freed_bytes = 0
        self.skipped = {}
        self.paths = []
        self.errors = []

    def matched(self, path, size):
        self.files += 1
        self.bytes += size
        if len(self.paths) < SHOWN:
            self.paths.append(path)

    def freed(self, size):
        self.freed_files += 1
        self.freed_bytes += size

    def skip(self, why):
        self.skipped[why] = self.skipped.get(why, 0) + 1

    def failed(self, path, error):
        self.skip("error")
        if len(self.errors) < SHOWN:
            self.errors.append(f"{path}: {os.strerror(error.errno) if error.errno else error}")

    def add(self, other):
        """Take another tally in."""
        for name in ("files", "directories", "bytes", "freed_files", "freed_bytes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for why, count in other.skipped.items():
            self.skipped[why] = self.skipped.get(why, 0) + count
        self.paths = (self.paths + other.paths)[:SHOWN]
        self.errors = (self.errors + other.errors)[:SHOWN]


def blocks(info):
    """Bytes that a file takes on disk."""
    return info.st_blocks * 512


def mount_points(table="/proc/self/mountinfo"):
    """Paths on which something is mounted, also single files."""
    with open(table, encoding="utf-8", errors="surrogateescape") as lines:
        found = [line.split(" ")[4] for line in lines]
    return {re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), path) for path in found}


def mount_id(descriptor):
    """Which mount an open directory lies on; a bind mount has another than what it shows."""
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("mnt_id:"):
                return line.split()[1]
    return ""


def open_files(proc="/proc"):
    """(device, inode) of every file that a process has open, runs, or has mapped."""
    found, mapped = set(), set()
    for name in os.listdir(proc):
        if not name.isdigit():
            continue
        places = [f"{proc}/{name}/exe", f"{proc}/{name}/cwd"]
        try:
            places += [f"{proc}/{name}/fd/{each}" for each in os.listdir(f"{proc}/{name}/fd")]
            with open(f"{proc}/{name}/maps", encoding="utf-8", errors="surrogateescape") as lines:
                mapped.update(line.split(None, 5)[5].rstrip("\n") for line in lines if " /" in line)
        except OSError:
            pass  # it has just ended
        found.update(_identities(places))
    # Mapped files by name, each once: hundreds of processes map the same. A newline comes as backslash 012.
    found.update(_identities({path.replace("\\012", "\n") for path in mapped if path.startswith("/")}))
    return found


def _identities(places):
    for place in places:
        try:
            info = os.stat(place)
        except OSError:
            continue
        yield info.st_dev, info.st_ino


def open_root(path):
    """Descriptor of a directory that is reached without any link; None where there is none.

    Raises Refused where a part of the way is a symbolic link.
    """
    if not path.startswith("/") or os.path.normpath(path) != path:
        raise Refused(f"{path} is no plain absolute path")
    here = os.open("/", DIRECTORY)
    for part in path.strip("/").split("/"):
        try:
            deeper = os.open(part, DIRECTORY, dir_fd=here)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise Refused(f"{path} is reached over {part}, which is a link or no directory") from None
            raise
        finally:
            os.close(here)
        here = deeper
    return here


class Walk:
    """One walk below `root` for a rule.

    `patterns` match a name at any depth, or with a slash the path below the root. A file is old when it was
    neither changed, nor (with `by_access`) read, since `before` (seconds since 1970). `protected` are absolute
    paths that are never touched, nor what lies below. With `remove` what matches is removed, `directories` too
    once they are empty and old. `trees` takes each entry of the root as a whole: it goes only if all of it may.
    `keep_bytes`: so much may stay of what is not old, the newest first.
    """

    def __init__(self, root, patterns, before, **options):
        self.root = root
        self.before = before
        self.names = [re.compile(translate(each)) for each in patterns if "/" not in each]
        self.ways = [re.compile(translate(each)) for each in patterns if "/" in each]
        self.exclude = [re.compile(translate(each)) for each in options.get("exclude", ())]
        self.protected = tuple(options.get("protected", ()))
        self.remove = options.get("remove", False)
        self.directories = options.get("directories", False)
        self.trees = options.get("trees", False)
        self.by_access = options.get("by_access", False)
        self.keep_bytes = options.get("keep_bytes")
        self.open = options.get("open", frozenset())
        self.mounts = options.get("mounts", frozenset())
        self.tally = Tally()
        self.empty = False  # after a walk: whether nothing is left below the root
        self._counts_mounts = True

    def run(self):
        """Walk, and return the tally. Raises Refused."""
        if any(self.root == each or self.root.startswith(each.rstrip("/") + "/") for each in self.protected):
            return self.tally
        descriptor = open_root(self.root)
        if descriptor is None:
            return self.tally
        try:
            self.device = os.fstat(descriptor).st_dev
            self.mount = mount_id(descriptor)
            if self.trees:
                self._whole_trees(descriptor)
            elif self.keep_bytes is not None:
                self._beyond(descriptor)
            else:
                self.empty = self._directory(descriptor, "", 0)
        finally:
            os.close(descriptor)
        return self.tally

    def _path(self, below):
        return f"{self.root}/{below}"

    def _is_protected(self, below):
        path = self._path(below)
        return any(path == each or path.startswith(each.rstrip("/") + "/") for each in self.protected)

    def _matches(self, name, below):
        if any(each.match(name) or each.match(below) for each in self.exclude):
            return False
        return any(each.match(name) for each in self.names) or any(each.match(below) for each in self.ways)

    def _is_old(self, info):
        newest = max(info.st_mtime, info.st_ctime, info.st_atime if self.by_access else 0)
        return newest < self.before

    def _entries(self, descriptor, below):
        """(name, path below the root, its stat) of what lies in a directory."""
        try:
            names = sorted(os.listdir(descriptor))
        except OSError as error:
            self.tally.failed(self._path(below), error)
            return
        for name in names:
            deeper = f"{below}/{name}" if below else name
            try:
                info = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError as error:
                self.tally.failed(self._path(deeper), error)
                continue
            yield name, deeper, info

    def _enter(self, parent, name, below):
        """Descriptor of a directory below, or None where it is not to be entered."""
        try:
            descriptor = os.open(name, DIRECTORY, dir_fd=parent)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):  # else it was swapped just now
                self.tally.failed(self._path(below), error)
            return None
        if os.fstat(descriptor).st_dev != self.device or mount_id(descriptor) != self.mount:
            if self._counts_mounts:
                self.tally.skip("mount")
            os.close(descriptor)
            return None
        return descriptor

    def _directory(self, descriptor, below, depth):
        """Go through a directory; returns whether nothing is left in it (in a check: would be)."""
        left = 0
        for name, deeper, info in self._entries(descriptor, below):
            if self._is_protected(deeper):
                left += 1
            elif stat.S_ISDIR(info.st_mode):
                left += not self._subdirectory(descriptor, name, deeper, info, depth)
            else:
                left += not self._file(descriptor, name, deeper, info)
        return left == 0

    def _subdirectory(self, parent, name, below, info, depth):
        """Go through a directory below; returns whether it is gone."""
        if any(each.match(name) or each.match(below) for each in self.exclude):
            return False
        if depth >= DEEPEST:
            self.tally.skip("deep")
            return False
        descriptor = self._enter(parent, name, below)
        if descriptor is None:
            return False
        try:
            empty = self._directory(descriptor, below, depth + 1)
        finally:
            os.close(descriptor)
        if not (empty and self.directories and self._is_old(info)):
            return False
        self.tally.directories += 1
        return self._rmdir(parent, name, below)

    def _rmdir(self, parent, name, below):
        if not self.remove:
            return True
        try:
            os.rmdir(name, dir_fd=parent)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EBUSY, errno.ENOENT):
                self.tally.failed(self._path(below), error)
            return False
        return True

    def _trap(self, below, info):
        """Why a file is never removed, or an empty string."""
        if stat.S_ISLNK(info.st_mode):
            return "link"
        if not stat.S_ISREG(info.st_mode):
            return "odd"
        if self._path(below) in self.mounts or info.st_dev != self.device:
            return "mount"
        if info.st_nlink != 1:
            return "hard"
        if (info.st_dev, info.st_ino) in self.open:
            return "open"
        return ""

    def _file(self, parent, name, below, info):
        """Judge a file, and remove it; returns whether it is gone."""
        if not self._matches(name, below):
            return False
        why = self._trap(below, info) or ("" if self._is_old(info) else "fresh")
        if why:
            self.tally.skip(why)
            return False
        self.tally.matched(self._path(below), blocks(info))
        return self._unlink(parent, name, below, info)

    def _unlink(self, parent, name, below, info):
        if not self.remove:
            return True
        try:
            now = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if (now.st_dev, now.st_ino, now.st_ctime_ns, now.st_nlink) != (
                info.st_dev, info.st_ino, info.st_ctime_ns, 1
            ):  # fmt: skip
                self.tally.skip("fresh")
                return False
            os.unlink(name, dir_fd=parent)
        except OSError as error:
            if error.errno != errno.ENOENT:
                self.tally.failed(self._path(below), error)
            return False
        self.tally.freed(blocks(info))
        return True

    def _whole_trees(self, descriptor):
        """Each matching directory of the root goes as a whole, or stays as a whole."""
        for name, below, info in self._entries(descriptor, ""):
            if not stat.S_ISDIR(info.st_mode) or not self._matches(name, below) or self._is_protected(below):
                continue
            whole = Walk(self._path(below), ["*"], self.before, **self._options(remove=False))
            found = whole.run()
            if not whole.empty or not self._is_old(info):
                self.tally.skip("fresh")
                continue
            self.tally.directories += 1
            if self.remove:
                gone = Walk(self._path(below), ["*"], self.before, **self._options(remove=True))
                found = gone.run()
                self._rmdir(descriptor, name, below)
            self.tally.add(found)

    def _options(self, remove):
        return {"protected": self.protected, "remove": remove, "directories": True, "open": self.open,
                "mounts": self.mounts, "by_access": self.by_access}  # fmt: skip

    def _beyond(self, descriptor):
        """The oldest files go until those that stay take no more than `keep_bytes`; and all that are old."""
        found = []
        self._collect(descriptor, "", 0, found)
        room = self.keep_bytes
        stay, go = [], []
        for each in sorted(found, key=lambda one: one[1].st_mtime, reverse=True):
            room -= blocks(each[1])
            (go if room < 0 or self._is_old(each[1]) else stay).append(each)
        wanted = {(info.st_dev, info.st_ino) for _, info in go}
        for _ in stay:
            self.tally.skip("fresh")
        self._counts_mounts = False
        self._remove_wanted(descriptor, "", 0, wanted)

    def _collect(self, descriptor, below, depth, found):
        for name, deeper, info in self._entries(descriptor, below):
            if self._is_protected(deeper):
                continue
            if stat.S_ISDIR(info.st_mode):
                inside = self._enter(descriptor, name, deeper) if depth < DEEPEST else None
                if inside is not None:
                    try:
                        self._collect(inside, deeper, depth + 1, found)
                    finally:
                        os.close(inside)
            elif self._matches(name, deeper):
                why = self._trap(deeper, info)
                if why:
                    self.tally.skip(why)
                else:
                    found.append((deeper, info))

    def _remove_wanted(self, descriptor, below, depth, wanted):
        for name, deeper, info in self._entries(descriptor, below):
            if stat.S_ISDIR(info.st_mode):
                inside = self._enter(descriptor, name, deeper) if depth < DEEPEST else None
                if inside is not None:
                    try:
                        self._remove_wanted(inside, deeper, depth + 1, wanted)
                    finally:
                        os.close(inside)
            elif (info.st_dev, info.st_ino) in wanted and self._matches(name, deeper):
                if self._is_protected(deeper) or self._trap(deeper, info):
                    continue
                self.tally.matched(self._path(deeper), blocks(info))
                self._unlink(descriptor, name, deeper, info)
