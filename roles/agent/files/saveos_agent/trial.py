# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""A sandbox's part of another host's drill: what it restored arrives here, is hashed, and goes away again."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from pathlib import Path
from typing import Any

from saveos_agent.canary import file_hash
from saveos_agent.errors import AgentError
from saveos_agent.mover import Failures
from saveos_agent.packing import Unpacker
from saveos_agent.redaction import Redactor
from saveos_agent.runs import turn
from saveos_agent.scratch import DRILL_ROOM, roomy, scratch_directory
from saveos_agent.settings import Settings
from saveos_agent.times import new_run_id
from saveos_agent.transfer import Download

BEGIN_SECONDS = 4 * 3600  # longer than the other host waits for its turn, and drills


def tree_digest(tree: Path) -> dict[str, Any]:
    """Files, bytes, and one hash over each file's path and content: equal where two trees hold the same."""
    files, size, lines = 0, 0, []
    for directory, _names, names in os.walk(tree):
        for name in names:
            path = Path(directory, name)
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                files, size = files + 1, size + status.st_size
                lines.append(f"{file_hash(path)} ".encode() + os.fsencode(path.relative_to(tree)))
    return {"files": files, "bytes": size, "digest": hashlib.sha256(b"\0".join(sorted(lines))).hexdigest()}


def receive(settings: Settings, transfer: str, seconds: float) -> dict[str, Any]:
    """Wait for the turn, take what another host's drill sends, hash it, take it away. Raises AgentError."""

    with turn(settings, seconds, "drill"):
        return _receive(settings, transfer)


def _receive(settings: Settings, transfer: str) -> dict[str, Any]:
    base = roomy()

    def check() -> None:
        if shutil.disk_usage(base).free < DRILL_ROOM:
            text = f"A drill of another host leaves less than {DRILL_ROOM} bytes free below {base}."
            raise AgentError("disk_full", text, "Free some space there, or name another sandbox.")

    failures = Failures(Redactor.for_host(settings))
    with scratch_directory(settings, base, "drill", new_run_id()) as scratch:
        check()
        stream = Download(settings, transfer, BEGIN_SECONDS)
        try:
            Unpacker(scratch, failures, check).unpack(stream)
        finally:
            stream.close()
        return {**tree_digest(scratch), "failed_total": failures.total, "failed": failures.listed()}
