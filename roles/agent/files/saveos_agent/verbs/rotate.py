# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Give this host new secrets: passphrases, SSH key, token."""

from __future__ import annotations

import argparse
import signal
from typing import Any

from saveos_agent.answers import Answer
from saveos_agent.errors import AgentError, refused
from saveos_agent.rotation import held_secrets, rotate
from saveos_agent.settings import Settings
from saveos_agent.state import Lock

KINDS = ("list", "settle", "passphrase", "ssh-key", "agent-token")


def run(settings: Settings, options: argparse.Namespace) -> Answer:
    if options.kind == "list" or options.check:
        held = held_secrets(settings)
        return Answer({"secrets": held}, [line(each) for each in held])

    def interrupted(_number: int, _frame: object) -> None:
        raise AgentError("canceled", "The rotation was interrupted.", "It is finished by the next run.")

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, interrupted)
    with Lock(settings) as lock:
        if not lock.acquire(options.timeout):
            raise refused(f"A run has held the lock for {options.timeout:.0f} seconds.", "Try again after it.")
        done = rotate(settings, options)
    done["secrets"] = held_secrets(settings)
    return Answer(done, [f"{options.kind}: {len(done['rotated'])} rotated"])


def line(told: dict[str, Any]) -> str:
    faults = ("" if told["private"] else ", not private") + (", rotation open" if told["open"] else "")
    return f"{told['kind']} {told['subject']}: made {told['made_at'] or 'never'}{faults}"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Old and new stay beside each other until the new one is proven; what was interrupted is finished by\n"
        "the next rotation, backup or heartbeat. `list` shows kinds and ages, never a value. An SSH key is\n"
        "rotated by playbooks/secrets.yml, which lets the new one in at the storage servers between phases."
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("kind", choices=KINDS, help="what to rotate; list shows, settle finishes what is open")
    parser.add_argument("--repository", default="", metavar="ID", help="one repository (default: all)")
    parser.add_argument("--recovery-key", default="", metavar="PUBLIC", help="seal the new passphrase to it")
    parser.add_argument(
        "--seal", default="/opt/saveos/bin/saveos-seal", metavar="FILE", help="the sealing tool"
    )
    parser.add_argument("--phase", choices=("offer", "prove", "drop"), default="offer", help="of an SSH key")
    parser.add_argument("--check", action="store_true", help="change nothing")
    parser.add_argument(
        "--timeout", type=float, default=3600, metavar="SECONDS", help="wait so long for a run (%(default).0f)"
    )
