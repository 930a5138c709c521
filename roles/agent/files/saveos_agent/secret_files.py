# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Files that hold secrets: replaced durably, the one before kept until nobody needs it; their age, no value."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from saveos_agent.files import remove, sync_directory
from saveos_agent.times import utc


def put_in_force(fresh: Path, current: Path, former: Path) -> None:
    """Make `fresh` the current file; the one before is `former` until nobody needs it any more."""
    remove(former)
    os.link(current, former)
    sync_directory(current.parent)
    os.replace(fresh, current)
    sync_directory(current.parent)


def read_text(path: Path) -> str:
    """A file's text as the role reads it; empty where there is none."""
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError:
        return ""


def about(kind: str, subject: str, path: Path, is_open: bool) -> dict[str, Any]:
    """One secret's facts."""
    try:
        status = path.stat()
    except OSError:
        return {"kind": kind, "subject": subject, "made_at": None, "private": False, "open": is_open}
    private = not stat.S_IMODE(status.st_mode) & 0o077 and status.st_uid == os.geteuid()
    return {
        "kind": kind,
        "subject": subject,
        "made_at": utc(status.st_mtime),
        "private": private,
        "open": is_open,
    }
