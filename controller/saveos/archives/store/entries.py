"""What a store tells of: a path as an archive's listing has it, a version of it, and the parts of paths."""

import stat
from dataclasses import dataclass
from typing import NamedTuple

ROOT = b"/"


class Item(NamedTuple):
    """One path of an archive: absolute, without a slash at its end. `mtime` in seconds, `mode` as st_mode."""

    path: bytes
    size: int
    mtime: int
    mode: int


@dataclass(frozen=True)
class Entry:
    """One version of a path. `files` and `bytes` are a listed directory's, with all below it."""

    path: bytes
    size: int
    mtime: int
    mode: int
    first: int
    last: int | None
    files: int | None = None
    bytes: int = 0
    changed: str = ""  # new | changed, against the archive before

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)


def parent(path: bytes) -> bytes:
    """Return the directory of an absolute path."""
    return path.rpartition(b"/")[0] or ROOT


def base(path: bytes) -> bytes:
    """Return the last part of a path."""
    return path.rpartition(b"/")[2]


def join(directory: bytes, name: bytes) -> bytes:
    """Return the path of a name in a directory."""
    return directory.rstrip(b"/") + b"/" + name
