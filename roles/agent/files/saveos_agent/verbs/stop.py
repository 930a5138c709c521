# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""End a run."""

from __future__ import annotations

import argparse

from saveos_agent.answers import Answer, stop_answer
from saveos_agent.control import stop_run
from saveos_agent.settings import Settings
from saveos_agent.times import check_run_id


def run(settings: Settings, options: argparse.Namespace) -> Answer:
    return stop_answer(stop_run(settings, check_run_id(options.run_id)))


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run-id", required=True, metavar="UUID", help="the run to end")
