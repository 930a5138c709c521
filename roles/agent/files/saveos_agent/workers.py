# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Workers that outlive whoever started them; a restore whose worker was killed goes on."""

from __future__ import annotations

import contextlib
import subprocess
import sys

from saveos_agent.errors import AgentError
from saveos_agent.processes import MARKER, child_environment
from saveos_agent.settings import PROGRAM, Settings
from saveos_agent.state import load, store


def spawn(settings: Settings, run_id: str, *arguments: str) -> None:
    """Run ourselves detached from whoever called."""
    environment = child_environment(run_id)
    if not run_id:
        del environment[MARKER]
    subprocess.Popen(
        [sys.executable, PROGRAM, "--config", str(settings.etc), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
        env=environment,
    )


RESTORE_TRIES = 3  # a restore whose process was killed goes on by itself, so many times in all
RESTORE_STARTS = 6  # so many where processes end before they count as a try


def start_restore(settings: Settings, run_id: str, again: int = 0) -> None:
    """Start the worker of a restore whose request is saved."""
    arguments = ["restore", "--resume", "--run-id", run_id]
    if not settings.systemd:
        spawn(settings, run_id, *arguments)
        return
    unit = f"saveos-restore-{run_id}" + (f"-{again}" if again else "")
    command = [sys.executable, PROGRAM, "--config", str(settings.etc), *arguments]
    done = subprocess.run(
        [
            "systemd-run",
            "--quiet",
            "--collect",
            f"--unit={unit}",
            "--property=Type=exec",  # it returns when the worker runs, so that nobody misses it
            f"--setenv={MARKER}={run_id}",
            "--",
            *command,
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode != 0:
        raise AgentError("unit_failed", f"{unit} cannot start: {done.stderr.strip()[-300:]}", "Try again.")


def go_on(settings: Settings, run_id: str) -> bool:
    """Start a restore again whose process is gone; returns whether it goes on. What is moved stays moved."""
    saved = load(settings, f"restoring/{run_id}.json")
    if not isinstance(saved, dict) or saved["tries"] >= RESTORE_TRIES:
        return False
    starts = saved.get("starts", 0) + 1  # each has a unit of its own: systemd may still know the dead one
    if starts > RESTORE_STARTS:
        return False
    with contextlib.suppress(AgentError, OSError):
        store(settings, f"restoring/{run_id}.json", {**saved, "starts": starts})
        start_restore(settings, run_id, starts)
        return True
    return False
