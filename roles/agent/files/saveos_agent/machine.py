# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Facts about this machine and its programs."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Optional

from saveos_agent.processes import LIBC
from saveos_agent.settings import VERSION, Settings
from saveos_agent.state import load, store


def versions(settings: Settings) -> dict[str, str]:
    """Versions of what runs here; asked once per binary, because asking costs half a second."""
    cache = load(settings, "versions.json")
    cache = cache if isinstance(cache, dict) else {}
    found, changed = {"agent": VERSION}, False
    for name, path in (("borg", settings.borg), ("borgmatic", settings.borgmatic)):
        key = _binary_key(path)
        known = cache.get(name, {})
        found[name] = known.get("version", "unknown")
        if known.get("key") != key or not found[name][:1].isdigit():  # what gave no answer is asked again
            found[name], changed = _ask_version(path), True
            cache[name] = {"key": key, "version": found[name]}
    if changed:
        with contextlib.suppress(OSError):
            store(settings, "versions.json", cache)
    return found


def _binary_key(path: str) -> str:
    real = os.path.realpath(shutil.which(path) or path)
    try:
        status = os.stat(real)
    except OSError:
        return f"{real}:missing"
    return f"{real}:{status.st_size}:{status.st_mtime_ns}"


def _ask_version(path: str) -> str:
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return "missing"
    except subprocess.TimeoutExpired:
        return "unknown"  # it is there; the machine is busy
    match = re.search(r"\d+(\.\w+)+", done.stdout)
    return match[0] if match else "unknown"


def clock_synchronised() -> Optional[bool]:
    """The kernel's word (adjtimex): None where it cannot be asked. Works without systemd, too."""
    buffer = ctypes.create_string_buffer(512)
    state = LIBC.adjtimex(buffer)
    return None if state < 0 else state != 5  # TIME_ERROR


def disks(settings: Settings) -> list[dict[str, Any]]:
    seen, found = set(), []
    for path in ("/", str(settings.state), str(settings.run)):
        try:
            device, usage_ = os.stat(path).st_dev, shutil.disk_usage(path)
        except OSError:
            continue
        if device not in seen:
            seen.add(device)
            found.append({"path": path, "total_bytes": usage_.total, "free_bytes": usage_.free})
    return found


def memory(name: str) -> Optional[int]:
    """A size of /proc/meminfo in bytes."""
    with contextlib.suppress(OSError):
        match = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
        return int(match[1]) * 1024 if match else None
    return None


def os_name() -> str:
    with contextlib.suppress(OSError):
        match = re.search(r'^PRETTY_NAME="?([^"\n]*)', Path("/etc/os-release").read_text(), re.MULTILINE)
        return match[1] if match else ""
    return ""
