# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""borg itself, with a passphrase and SSH key of choice: to try what is new before it is in force."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

from saveos_agent.output import json_object
from saveos_agent.processes import child_environment, die_with_parent
from saveos_agent.settings import Settings

RESULT_SECONDS = 120  # for one borg command


def borg_words(said: str) -> str:
    """The messages of borg's JSON log, short."""
    words = []
    for line in said.splitlines():
        entry = json_object(line)
        words.append(str(entry.get("message", "")) if entry else line)
    return "\n".join(word for word in words if word.strip()).strip()[-400:] or "borg said nothing"


def direct_borg(
    settings: Settings, passphrase: Path, key: Path, run_id: str, *arguments: str, new: str = ""
) -> tuple[int, str, str]:
    """Run borg itself, as the backup would but with this passphrase and SSH key; it dies with us."""
    ssh = ["ssh", "-F", "none", "-i", str(key)]
    for option in (
        "IdentitiesOnly=yes",
        "BatchMode=yes",
        f"UserKnownHostsFile={settings.etc / 'ssh' / 'known_hosts'}",
        "GlobalKnownHostsFile=none",
        "StrictHostKeyChecking=yes",
        "ConnectTimeout=15",
        "ServerAliveInterval=15",
        "ServerAliveCountMax=4",
    ):
        ssh += ["-o", option]
    environment = {
        **child_environment(run_id),
        "BORG_PASSCOMMAND": shlex.join(["cat", str(passphrase)]),
        "BORG_BASE_DIR": str(settings.state / "borg"),
        "BORG_RSH": shlex.join(ssh),
        "BORG_EXIT_CODES": "modern",
        "BORG_DISPLAY_PASSPHRASE": "no",
    }
    if new:
        environment["BORG_NEW_PASSPHRASE"] = new
    argv = [settings.borg, "--log-json", "--lock-wait", "60", *arguments]
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment,
            timeout=RESULT_SECONDS,
            check=False,
            start_new_session=True,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - single-threaded here
        )
    except subprocess.TimeoutExpired:
        return -1, "", f"borg did not finish in {RESULT_SECONDS} s"
    except OSError as error:
        return -1, "", f"{settings.borg} cannot be run: {error}"
    return (
        done.returncode,
        done.stdout.decode("utf-8", "surrogateescape"),
        done.stderr.decode("utf-8", "replace"),
    )
