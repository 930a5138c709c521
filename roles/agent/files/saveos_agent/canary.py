# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""The canary: a file that every backup includes, and what it was at each."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from pathlib import Path
from typing import Any

from saveos_agent.settings import Settings
from saveos_agent.state import load, store
from saveos_agent.times import utc

CANARIES_KEEP = 100


def canary_file(settings: Settings) -> Path:
    """The file that every archive holds; its directory is a source of its own in borgmatic's configuration."""
    return settings.state / "canary" / "canary"


def write_canary(settings: Settings) -> str:
    """Give the canary a new content before a backup; returns its SHA-256, "" where it cannot be written."""
    text = f"{utc()} {secrets.token_hex(32)}\n".encode()
    path = canary_file(settings)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.tmp")
        fresh.write_bytes(text)
        os.replace(fresh, path)
    except OSError:
        return ""
    return hashlib.sha256(text).hexdigest()


def remember_canary(settings: Settings, result: dict[str, Any], digest: str) -> None:
    """Keep what the canary was in an archive: a drill compares with this, not with the archive's word."""
    if not digest or not result["archive"]:
        return
    known = load(settings, "canaries.json")
    kept = list((known if isinstance(known, dict) else {}).items())[-CANARIES_KEEP:]
    with contextlib.suppress(OSError):
        store(settings, "canaries.json", {**dict(kept), result["archive"]["id"]: digest})


def file_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1024 * 1024):
            digest.update(chunk)
    return digest.hexdigest()
