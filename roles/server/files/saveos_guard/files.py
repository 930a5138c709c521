# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files of the guard's own, written so that either the old or the new one is there."""

from __future__ import annotations

import json
import os
import shutil
from typing import Any


def read_json(path: str, default: Any = None) -> Any:
    """A JSON file; the default when it is missing or broken."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return default


def sync_dir(path: str) -> None:
    """Make renames in a directory durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write(path: str, content: bytes) -> None:
    """Write a file so that either the old or the new one is there, whatever happens."""
    temporary = f"{path}.new"
    with open(temporary, "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, path)
    sync_dir(os.path.dirname(path))


def write_json(path: str, value: Any) -> None:
    """Write a JSON file so that either the old or the new one is there."""
    write(path, json.dumps(value, sort_keys=True).encode())


def drop(path: str) -> None:
    """Remove a directory of ours; in two steps, so that a half-removed one is never taken for a whole one."""
    gone = os.path.join(os.path.dirname(path), f".drop-{os.path.basename(path)}")
    if os.path.isdir(gone):
        shutil.rmtree(gone)
    os.rename(path, gone)
    shutil.rmtree(gone)
