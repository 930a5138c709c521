# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Directories opened step by step, so that no symbolic link leads elsewhere."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Iterator, Optional

from saveos_agent.errors import refused

LINKS_FOLLOWED = 40
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_directory(path: str, create: bool = False) -> int:
    """Open a directory by its absolute path, missing ones made with `create`. The caller closes it.

    A symbolic link on the way is followed only where none but root (or we) could have put it there.
    Raises AgentError for another, OSError for what cannot be opened.
    """
    handle = os.open("/", DIRECTORY)
    parts, links = [part for part in reversed(path.split("/")) if part not in ("", ".")], 0
    try:
        while parts:
            part = parts.pop()
            flags = DIRECTORY
            try:
                child = os.open(part, flags, dir_fd=handle)
            except FileNotFoundError:
                if not create:
                    raise
                os.mkdir(part, 0o755, dir_fd=handle)
                parts.append(part)
                continue
            except OSError:
                links += 1
                to = trusted_link(handle, part, path)
                if to is None or links > LINKS_FOLLOWED:
                    raise
                parts.extend(piece for piece in reversed(to.split("/")) if piece not in ("", "."))
                child = os.open("/" if to.startswith("/") else ".", DIRECTORY, dir_fd=handle)
            os.close(handle)
            handle = child
    except BaseException:
        os.close(handle)
        raise
    return handle


def trusted_link(directory: int, name: str, path: str) -> Optional[str]:
    """Where a symbolic link points, if nobody but root (or we) could have made it; None where it is no link."""
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        return None
    if status.st_uid not in (0, os.geteuid()) or not only_ours(os.fstat(directory)):
        raise refused(
            f"{path} leads through a symbolic link ({name}) that a user of this host made.",
            "Name the path that it points to.",
        )
    return os.readlink(name, dir_fd=directory)


def only_ours(status: os.stat_result) -> bool:
    """Whether nobody but root (or we) can replace what is in a directory of ours."""
    ours = status.st_uid in (0, os.geteuid())
    return ours and (not status.st_mode & 0o022 or bool(status.st_mode & stat.S_ISVTX))


def open_below(root: int, path: str) -> int:
    """Open a directory below an open one through no symbolic link. The caller closes it. Raises OSError."""
    handle = os.dup(root)
    for part in path.split("/"):
        if part:
            try:
                child = os.open(part, DIRECTORY, dir_fd=handle)
            finally:
                os.close(handle)
            handle = child
    return handle


@contextlib.contextmanager
def opened(handle: int) -> Iterator[int]:
    try:
        yield handle
    finally:
        os.close(handle)
