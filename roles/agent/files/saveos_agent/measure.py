# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""How much a backup of some paths would hold."""

from __future__ import annotations

import json
import os
import stat
import time
from typing import Any

from saveos_agent.errors import AgentError, usage
from saveos_agent.processes import run_child
from saveos_agent.settings import Settings

MEASURE_SECONDS = 1800
MEASURED_SOURCES = 1000


def measure(settings: Settings, sources: list[str], excludes: list[str]) -> dict[str, Any]:
    """How many files and bytes sources hold, by Borg's own matching; nothing is read and nothing stored.

    Bytes are of regular files, each once however many names it has. Raises AgentError.
    """
    if not sources or len(sources) > MEASURED_SOURCES or any(not path.startswith("/") for path in sources):
        raise usage("Sources are absolute paths, at least one.", "Name them: --source /etc --source /home.")
    began = time.monotonic()
    counts: dict[str, dict[str, Any]] = {path: {"path": path, "files": 0, "bytes": 0} for path in sources}
    told = {"excluded": 0, "unreadable": 0, "warnings": 0}
    seen: set[tuple[int, int]] = set()
    problems: list[str] = []
    roots = sorted(((path.rstrip("/") + "/", path) for path in sources), key=lambda each: -len(each[0]))

    def count(path: str) -> None:
        try:
            found = os.lstat(path)
        except OSError:
            told["unreadable"] += 1
            return
        name = next((source for root, source in roots if f"{path}/".startswith(root)), sources[0])
        if stat.S_ISDIR(found.st_mode):
            return
        counts[name]["files"] += 1
        if stat.S_ISREG(found.st_mode) and (found.st_dev, found.st_ino) not in seen:
            if found.st_nlink > 1:
                seen.add((found.st_dev, found.st_ino))
            counts[name]["bytes"] += found.st_size

    def on_line(_: str, text: str) -> None:
        try:
            data = json.loads(text)
        except ValueError:
            return
        if data.get("type") == "file_status":
            if data.get("status") == "-":
                count(data["path"])
            else:
                told["excluded" if data.get("status") == "x" else "unreadable"] += 1
        elif data.get("levelname") == "WARNING":  # a source that is not there has no status of its own
            told["warnings"] += 1
        elif data.get("levelname") in ("ERROR", "CRITICAL"):
            problems.append(str(data.get("message"))[:300])

    patterns = [f"--exclude={pattern}" for pattern in excludes]
    argv = [settings.borg, "create", "--dry-run", "--list", "--log-json", "--exclude-caches", *patterns]
    status = run_child([*argv, "/nowhere::measure", "--", *sources], "", on_line, seconds=MEASURE_SECONDS)
    if problems and status not in (0, 1):
        raise AgentError(
            "measure_failed", f"Borg cannot measure these sources: {problems[0]}", "Correct the excludes."
        )
    if status < 0 or time.monotonic() - began > MEASURE_SECONDS:
        raise AgentError("measure_failed", "Measuring took longer than half an hour.", "Measure fewer sources.")
    return {
        "sources": list(counts.values()),
        "files": sum(each["files"] for each in counts.values()),
        "bytes": sum(each["bytes"] for each in counts.values()),
        "excluded": told["excluded"],
        "unreadable": max(told["unreadable"], told["warnings"]),
        "seconds": round(time.monotonic() - began, 1),
    }
