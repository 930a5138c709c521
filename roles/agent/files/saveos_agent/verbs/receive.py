# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Be the sandbox of another host's drill."""

from __future__ import annotations

import argparse

from saveos_agent.answers import Answer
from saveos_agent.errors import EXIT_FAILED, EXIT_OK
from saveos_agent.options import turn_option
from saveos_agent.settings import Settings
from saveos_agent.times import check_run_id
from saveos_agent.trial import receive


def run(settings: Settings, options: argparse.Namespace) -> Answer:
    data = receive(settings, check_run_id(options.transfer), options.timeout)
    said = f"{data['files']} files of {data['bytes']} bytes arrived, {data['failed_total']} did not"
    return Answer(data, [said], EXIT_FAILED if data["failed_total"] else EXIT_OK)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Takes what another host's drill restored, tells its hashes, and removes it again."
    parser.add_argument("--transfer", required=True, metavar="UUID", help="the controller's transfer")
    turn_option(parser)
