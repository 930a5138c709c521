# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Protect, rename, delete or export an archive."""

from __future__ import annotations

import argparse
import signal

from saveos_agent.answers import Answer
from saveos_agent.care import ACTIONS, care, care_lines
from saveos_agent.errors import AgentError, refused
from saveos_agent.options import repository_option
from saveos_agent.runs import heal
from saveos_agent.settings import Settings
from saveos_agent.state import Lock


def run(settings: Settings, options: argparse.Namespace) -> Answer:
    def interrupted(_number: int, _frame: object) -> None:
        raise AgentError("canceled", "It was canceled.", "Start it again when it suits.")

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, interrupted)
    repository = settings.repository(options.repository)
    with Lock(settings) as lock:
        if not lock.acquire(options.timeout):
            raise refused(f"A run has held the lock for {options.timeout:.0f} seconds.", "Try again after it.")
        heal(settings)
        data = care(settings, repository, options)
    return Answer(data, care_lines(data, options.check))


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "protect     retention never prunes it: its name gets a + in front, and so a new id\n"
        "unprotect   retention looks at it again\n"
        "rename      another name (--name); a protected archive stays so\n"
        "delete      marks it (never a protected one); the space stays until the server's gate opens\n"
        "export      writes it as .tar, .tar.gz or .tar.zst (--destination), for root only; never overwrites"
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    repository_option(parser)
    parser.add_argument("--archive", required=True, help="name or id of the archive")
    parser.add_argument("--name", default="", help="new name")
    parser.add_argument("--destination", default="", metavar="FILE", help="file to export to")
    parser.add_argument("--check", action="store_true", help="change nothing, say what would be done")
    parser.add_argument(
        "--timeout",
        type=float,
        default=7200,
        metavar="SECONDS",
        help="wait so long for a running run (%(default).0f)",
    )
