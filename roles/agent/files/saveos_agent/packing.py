# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""A tree as one stream from host to host: a tar archive with what tar alone does not say.

Each entry carries its times in nanoseconds, its extended attributes (ACLs are some of them) and, if it is a
file, the SHA-256 of its content. The first says how much room all of them need. The last member says that the
stream is whole, and which files of the archive are not in it because their content was damaged. Owners travel
as names with their numbers; a name that the receiving host knows wins, as with Borg.
"""

from __future__ import annotations

import base64
import contextlib
import grp
import hashlib
import io
import json
import os
import pwd
import stat
import tarfile
from pathlib import Path
from typing import Any, Callable, Optional

from saveos_agent.directories import DIRECTORY, open_below, opened
from saveos_agent.errors import AgentError
from saveos_agent.mover import Failures

DATA, END = "data/", "end"
PIECE = 1 << 20  # bytes
END_SIZE = 16 << 20  # bytes: the list of what is missing is bounded at its source
KINDS = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
}


class _Out:
    def __init__(self, write: Callable[[bytes], Any]) -> None:
        self.write = write


def pack(
    tree: Path, write: Callable[[bytes], Any], verified: Optional[bool], failures: Failures
) -> dict[str, int]:
    """Write a tree that nobody changes to a stream; returns how many files and bytes it holds.

    `verified` and `failures` say whether the tree is what the archive holds, and what is not in it.
    """
    counts = {"files": 0, "bytes": 0}
    seen: dict[tuple[int, int], str] = {}
    needed = room_for(tree)
    out: Any = _Out(write)
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT, bufsize=PIECE) as tar:
        for directory, names, files in os.walk(tree):
            names.sort()
            for name in (*names, *sorted(files)):
                _pack_entry(tar, tree, os.path.join(directory, name), seen, counts, needed)
                tar.members.clear()  # type: ignore[attr-defined] # it would keep them all
                needed = 0
        end = tarfile.TarInfo(END)
        missing = {"failed_files": failures.listed(), "failed_total": failures.total}
        told = json.dumps({**counts, "verified": verified, **missing}).encode()
        end.size = len(told)
        tar.addfile(end, io.BytesIO(told))
    return counts


def room_for(tree: Path) -> int:
    """Bytes that a tree takes on its disk: holes take none, further names of a file neither."""
    known, size = set[tuple[int, int]](), 0
    for directory, _names, files in os.walk(tree):
        for name in files:
            status = os.lstat(os.path.join(directory, name))
            if status.st_nlink == 1 or (status.st_dev, status.st_ino) not in known:
                size += status.st_blocks * 512
            if status.st_nlink > 1:
                known.add((status.st_dev, status.st_ino))
    return size


def _pack_entry(  # noqa: PLR0917
    tar: tarfile.TarFile,
    tree: Path,
    path: str,
    seen: dict[tuple[int, int], str],
    counts: dict[str, int],
    needed: int,
) -> None:
    """Write one entry; the first one says what all `needed`."""
    status = os.lstat(path)
    kind = KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is None:  # a socket: no archive brings one back
        return
    info = tarfile.TarInfo(DATA + os.path.relpath(path, tree))
    info.type, info.mode = kind, stat.S_IMODE(status.st_mode)
    info.uid, info.gid = status.st_uid, status.st_gid
    with contextlib.suppress(KeyError):
        info.uname = pwd.getpwuid(status.st_uid).pw_name
    with contextlib.suppress(KeyError):
        info.gname = grp.getgrgid(status.st_gid).gr_name
    info.mtime = int(status.st_mtime)
    headers = {"SAVEOS.times": f"{status.st_atime_ns} {status.st_mtime_ns}"}
    if needed:
        headers["SAVEOS.room"] = str(needed)
    if attributes := _attributes(path):
        headers["SAVEOS.attributes"] = attributes
    info.pax_headers = headers
    if kind == tarfile.SYMTYPE:
        info.linkname = os.readlink(path)
    elif kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    if kind != tarfile.DIRTYPE:
        counts["files"] += 1
    if kind == tarfile.REGTYPE:
        key = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and key in seen:
            info.type, info.linkname = tarfile.LNKTYPE, seen[key]
        else:
            seen[key] = info.name
            counts["bytes"] += status.st_size
            _pack_file(tar, info, path, status)
            return
    tar.addfile(info)


def _pack_file(tar: tarfile.TarFile, info: tarfile.TarInfo, path: str, status: os.stat_result) -> None:
    info.size = status.st_size
    if status.st_size > status.st_blocks * 512:
        info.pax_headers = {**info.pax_headers, "SAVEOS.sparse": "1"}
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        digest = hashlib.sha256()
        while data := file.read(PIECE):
            digest.update(data)
        info.pax_headers = {**info.pax_headers, "SAVEOS.sha256": digest.hexdigest()}
        file.seek(0)
        tar.addfile(info, file)


def _attributes(path: str) -> str:
    found = {}
    with contextlib.suppress(OSError):
        for name in os.listxattr(path, follow_symlinks=False):
            value = os.getxattr(path, name, follow_symlinks=False)
            found[base64.b64encode(os.fsencode(name)).decode()] = base64.b64encode(value).decode()
    return json.dumps(found) if found else ""


class Unpacker:
    """Writes a stream into an empty directory of ours, from which it never gets out: no member's path is
    followed through a symbolic link, and links are made as they are, never looked through."""

    def __init__(self, root: Path, failures: Failures, check: Callable[[], None]) -> None:
        self.failures, self.check = failures, check
        self.root = os.open(root, DIRECTORY)
        self.directories: list[tuple[str, tarfile.TarInfo]] = []
        self.good = self.bad = 0

    def unpack(self, stream: Any) -> dict[str, Any]:
        """Write all of it; returns what `pack` counted. Raises AgentError where it broke off.

        What the other host could not bring is a failure here, too, and then not all is verified.
        """
        end: Optional[dict[str, Any]] = None
        try:
            with opened(self.root), tarfile.open(fileobj=stream, mode="r|", bufsize=PIECE) as tar:
                while (member := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined]
                    self.check()
                    if member.name == END:
                        file = tar.extractfile(member)
                        end = json.loads(file.read(END_SIZE)) if file else {}
                        break
                    self._member(tar, member)
                while stream.read(PIECE):  # to the very end: only then is nothing missing
                    pass
                for path, member in reversed(self.directories):
                    with opened(open_below(self.root, path)) as directory:
                        _dress(f"/proc/self/fd/{directory}", member, follow=True)
            verdict = self._verdict(end) if end is not None else None
        except (tarfile.TarError, ValueError, TypeError, KeyError) as error:
            raise AgentError("transfer", f"What came cannot be read: {error}.", "Ask for it anew.") from None
        if end is None:
            raise AgentError("transfer", "What came breaks off before its end.", "Ask for it anew.")
        return {**end, "verified": verdict, "verified_files": self.good}

    def _verdict(self, end: dict[str, Any]) -> Optional[bool]:
        """Whether all is here as the archive holds it; None where the other host did not compare."""
        told, listed = int(end["failed_total"]), end["failed_files"]
        for item in listed:
            self.failures.add(str(item["path"]), f"at the other host: {item['message']}")
        self.failures.total += max(0, told - len(listed))
        if self.bad or told or end["verified"] is False:
            return False
        return True if end["verified"] else None

    def _member(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = member.name[len(DATA) :]
        parts = path.split("/")
        self._check_room(int(member.pax_headers.get("SAVEOS.room") or 0))
        if not member.name.startswith(DATA) or not path or any(part in ("", ".", "..") for part in parts):
            raise AgentError("transfer", f"What came names a path outside: {member.name!r}.")
        try:
            with opened(open_below(self.root, "/".join(parts[:-1]))) as parent:
                self._make(tar, member, parent, parts[-1], path)
        except OSError as error:
            self.failures.add(path, error.strerror or str(error))

    def _check_room(self, needed: int) -> None:
        told = os.fstatvfs(self.root)
        free = told.f_bavail * told.f_frsize
        if needed > free:
            text = f"{needed} bytes are on their way, and the file system of the destination has {free} free."
            fix = "Free space, name a destination on another file system, or choose less."
            raise AgentError("disk_full", text, fix)

    def _make(self, tar: tarfile.TarFile, member: tarfile.TarInfo, parent: int, name: str, path: str) -> None:
        if member.isdir():
            os.mkdir(name, 0o700, dir_fd=parent)
            self.directories.append((path, member))
            return
        if member.islnk():
            above, _, last = member.linkname[len(DATA) :].rpartition("/")
            with opened(open_below(self.root, above)) as other:
                os.link(last, name, src_dir_fd=other, dst_dir_fd=parent, follow_symlinks=False)
            return
        if member.isreg():
            if not self._file(tar, member, parent, name):
                os.unlink(name, dir_fd=parent)
                self.failures.add(path, "did not arrive as it was sent")
                return
        elif member.issym():
            os.symlink(member.linkname, name, dir_fd=parent)
        elif member.isfifo() or member.isdev():
            kind = stat.S_IFIFO if member.isfifo() else stat.S_IFCHR if member.ischr() else stat.S_IFBLK
            device = 0 if member.isfifo() else os.makedev(member.devmajor, member.devminor)
            os.mknod(name, kind | 0o600, device, dir_fd=parent)
        else:
            raise AgentError("transfer", f"What came holds {member.name!r}, which is no kind of file.")
        _dress(f"/proc/self/fd/{parent}/{name}", member, follow=False)

    def _file(self, tar: tarfile.TarFile, member: tarfile.TarInfo, parent: int, name: str) -> bool:
        """Write a file, with holes where it had some; returns whether its hash is the one it was sent with."""
        sparse, digest = "SAVEOS.sparse" in member.pax_headers, hashlib.sha256()
        source = tar.extractfile(member)
        assert source is not None
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(name, flags, 0o600, dir_fd=parent), "wb") as file:
            block = 4096 if sparse else PIECE
            while data := source.read(PIECE):
                digest.update(data)
                for at in range(0, len(data), block):
                    part = data[at : at + block]
                    if sparse and not part.strip(b"\0"):
                        file.seek(len(part), os.SEEK_CUR)
                    else:
                        file.write(part)
            file.truncate(member.size)
        good = digest.hexdigest() == member.pax_headers.get("SAVEOS.sha256")
        self.good, self.bad = self.good + good, self.bad + (not good)
        return good


def _dress(path: str, member: tarfile.TarInfo, follow: bool) -> None:
    """Owner, mode, attributes and times. The owner's name counts where this host has it."""
    uid, gid = member.uid, member.gid
    with contextlib.suppress(KeyError):
        uid = pwd.getpwnam(member.uname).pw_uid if member.uname else uid
    with contextlib.suppress(KeyError):
        gid = grp.getgrnam(member.gname).gr_gid if member.gname else gid
    with contextlib.suppress(PermissionError):
        os.chown(path, uid, gid, follow_symlinks=follow)
    if not member.issym():
        os.chmod(path, member.mode)
    for name, value in json.loads(member.pax_headers.get("SAVEOS.attributes") or "{}").items():
        with contextlib.suppress(OSError):  # a file system, or a user, that cannot
            os.setxattr(path, base64.b64decode(name), base64.b64decode(value), follow_symlinks=follow)
    times = member.pax_headers.get("SAVEOS.times", "").split()
    if len(times) == 2:
        os.utime(path, ns=(int(times[0]), int(times[1])), follow_symlinks=follow)
