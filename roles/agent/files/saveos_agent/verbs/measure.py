# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Show how much a backup of some paths would hold."""

from __future__ import annotations

import argparse

from saveos_agent.answers import Answer, printable
from saveos_agent.measure import measure
from saveos_agent.settings import Settings


def run(settings: Settings, options: argparse.Namespace) -> Answer:
    data = measure(settings, options.source, options.exclude)
    lines = [
        f"{each['files']:>10} files {each['bytes']:>15} bytes  {printable(each['path'])}"
        for each in data["sources"]
    ]
    return Answer(data, [*lines, f"excluded {data['excluded']}, unreadable {data['unreadable']}"])


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source", action="append", default=[], metavar="PATH", help="path to measure; repeat it"
    )
    parser.add_argument(
        "--exclude", action="append", default=[], metavar="PATTERN", help="pattern as in a policy; repeat it"
    )
