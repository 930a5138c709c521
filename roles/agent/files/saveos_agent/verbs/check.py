# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Check repositories with the host's keys."""

from __future__ import annotations

import argparse

from saveos_agent.answers import Answer
from saveos_agent.check import KINDS, check, check_lines
from saveos_agent.errors import EXIT_FAILED, EXIT_OK
from saveos_agent.options import turn_option
from saveos_agent.settings import Settings


def run(settings: Settings, options: argparse.Namespace) -> Answer:
    data = check(settings, options.kind, options.repository, options.timeout)
    sound = all(each["state"] == "ok" for each in data["repositories"])
    return Answer(data, list(check_lines(data)), EXIT_OK if sound else EXIT_FAILED)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "archives: the lists of files of every archive are whole, and every chunk that they name is there.\n"
        "data: also reads, decrypts and verifies every chunk; that takes as long as reading all the backups."
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--kind", choices=tuple(KINDS), default="archives", help="how much (%(default)s)")
    parser.add_argument(
        "--repository", action="append", default=[], metavar="ID", help="only this one; may be repeated"
    )
    turn_option(parser)
