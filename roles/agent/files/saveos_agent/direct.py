# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Borg without borgmatic around it, as borgmatic would run it: for all but backups and their retention.

borgmatic takes a second of CPU to start and asks Borg for its version each time. Once for each configuration it
is asked how it would run Borg (flags and environment, no secret among them); that is kept beside the
configuration's state, and from then on Borg is started with it. Where that cannot be, borgmatic runs Borg.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from typing import Any, Callable, Optional, Sequence

from saveos_agent.files import read_json, remove, write_json
from saveos_agent.machine import versions
from saveos_agent.output import Output
from saveos_agent.processes import Cancel, child_environment, run_child
from saveos_agent.settings import Repository, Settings

ASKED = "saveos-asks"  # stands where Borg's command would
ASK_SECONDS = 300
ASKING = """#!/bin/sh
# Made by saveos-agent: run by borgmatic in Borg's place, it tells how Borg would be run.
if [ "$1" = --version ]; then echo "borg {version}"; exit; fi
printf '%s\\0' "$@"; printf '\\0'; exec env -0
"""
CREDENTIAL = re.compile(
    r"""^encryption_passphrase:\s*["']?\{credential file (?P<path>/[^}\s]+)\}["']?\s*$""", re.MULTILINE
)
# What of Borg's environment holds no secret and may be kept.
KEPT = re.compile(r"BORG_(?!.*PASS)(?!NEW_)[A-Z0-9_]+")


def run_borg(
    settings: Settings,
    repository: Repository,
    run_id: str,
    output: Output,
    *arguments: str,
    directory: str = "",
    cancel: Optional[Cancel] = None,
    seconds: Optional[float] = None,
    on_line: Optional[Callable[[str, str], None]] = None,
    on_bytes: Optional[Callable[[bytes], Any]] = None,
    under: Sequence[str] = (),
) -> int:
    """Run a borg command with the backup's passphrase and connection; returns its status or borgmatic's.

    Borg's own status is in `output.statuses`. What it says goes to `on_line`, or else to the output; `under` is
    a program that starts it, such as nice. Raises OSError where it cannot be started.
    """
    how, heard = how_borg_runs(settings, repository), on_line or output.line
    if how is None:
        argv = [*under, *_borgmatic_argv(settings, repository, directory, *arguments)]
        return run_child(argv, run_id, heard, cancel, directory or None, seconds, on_bytes)
    command, *rest = arguments
    argv = [*under, settings.borg, command, *how["flags"], *rest]

    def wrapped(stream: str, text: str) -> None:
        if text.startswith('{"') and '"type": "progress_' in text:  # borgmatic would have wrapped it
            text = '{"type": "log_message", "message": ' + json.dumps(text) + "}"
        heard(stream, text)

    status = run_child(
        argv, run_id, wrapped, cancel, directory or None, seconds, on_bytes, extra=how["environment"]
    )
    if status not in (0, 1):  # 1 is a warning without a number of its own
        output.statuses.append(status)
    return status


def _borgmatic_argv(settings: Settings, repository: Repository, directory: str, *arguments: str) -> list[str]:
    where = ["--working-directory", directory] if directory else []
    configured = [settings.borgmatic, "--config", str(repository.config), "--verbosity", "-1"]
    return [*configured, *where, "borg", "--", *arguments]


def how_borg_runs(settings: Settings, repository: Repository) -> Optional[dict[str, Any]]:
    """Flags and environment with which borgmatic would run Borg; None where only borgmatic can say."""
    try:
        config = repository.config.read_text()
        stat = repository.config.stat()
        mark = [stat.st_mtime_ns, stat.st_size, settings.borg, settings.borgmatic]
        place = settings.state / "borg-runs" / f"{repository.id}.json"
        known = read_json(place)
        if not isinstance(known, dict) or known.get("mark") != mark:
            remove(place)
            known = {"mark": mark, **(_ask(settings, repository) or {"flags": None})}
            write_json(place, known)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    credential = CREDENTIAL.search(config)
    if known["flags"] is None or credential is None:
        return None
    environment = {**known["environment"], "BORG_PASSCOMMAND": shlex.join(["cat", credential["path"]])}
    return {"flags": known["flags"], "environment": environment}


def _ask(settings: Settings, repository: Repository) -> Optional[dict[str, Any]]:
    """Let borgmatic run a script of ours in Borg's place, and read what it was run with."""
    version = re.search(r"\d+\.\d+[\d.]*", versions(settings).get("borg") or "")
    if version is None:
        return None
    script = settings.state / "borg-runs" / f"{repository.id}.sh"
    script.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = script.with_suffix(".new")
    fresh.write_text(ASKING.format(version=version[0]))
    fresh.chmod(0o700)
    os.replace(fresh, script)
    try:
        argv = [settings.borgmatic, "--config", str(repository.config), "--verbosity", "-1"]
        argv += ["--override", f"local_path={script}", "borg", "--", ASKED, "end"]
        told = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=child_environment(""),
            timeout=ASK_SECONDS,
            check=False,
        )
    finally:
        remove(script)
    words, _, environment = told.stdout.decode("utf-8", "surrogateescape").partition("\0\0")
    flags = words.split("\0")
    if told.returncode or flags[0] != ASKED or flags[-1] != "end" or "BORG_REPO=" not in environment:
        return None
    pairs = (item.partition("=") for item in environment.split("\0") if "=" in item)
    found = {name: value for name, _, value in pairs if KEPT.fullmatch(name)}
    return {"flags": flags[1:-1], "environment": found}
