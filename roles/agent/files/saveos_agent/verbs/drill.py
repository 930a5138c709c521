# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Prove that the newest archives can be restored."""

from __future__ import annotations

import argparse
import secrets

from saveos_agent.answers import Answer
from saveos_agent.drill import DRILL_SAMPLE, drill, drill_lines
from saveos_agent.errors import EXIT_FAILED, EXIT_OK
from saveos_agent.options import turn_option
from saveos_agent.settings import Settings
from saveos_agent.times import check_run_id


def run(settings: Settings, options: argparse.Namespace) -> Answer:
    seed = secrets.randbits(32) if options.seed is None else options.seed
    transfer = check_run_id(options.transfer) if options.transfer else ""
    data = drill(settings, seed, options.sample, options.timeout, transfer)
    return Answer(data, list(drill_lines(data)), EXIT_FAILED if data["state"] == "failed" else EXIT_OK)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Restores a random sample of the newest archive and every database dump into a scratch directory,\n"
        "compares, loads and counts, and takes all of it away again. The same seed draws the same files."
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--sample", type=int, default=DRILL_SAMPLE, metavar="FILES", help="so many files (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=None, help="draw the files of an earlier drill again")
    turn_option(parser)
    parser.add_argument(
        "--transfer",
        default="",
        metavar="UUID",
        help="also send what was restored to the sandbox host that waits for this transfer of the controller",
    )
