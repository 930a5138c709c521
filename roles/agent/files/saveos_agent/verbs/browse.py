# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""List one directory of an archive."""

from __future__ import annotations

import argparse

from saveos_agent.answers import Answer, printable
from saveos_agent.browse import browse
from saveos_agent.options import repository_option
from saveos_agent.settings import Settings


def run(settings: Settings, options: argparse.Namespace) -> Answer:
    data = browse(settings, settings.repository(options.repository), options.archive, options.path)
    lines = [
        f"{item['type']} {item.get('size') or 0:>12} {printable(item['path'])}" for item in data["entries"]
    ]
    return Answer(data, lines + (["… and more"] if data["truncated"] else []))


def add_options(parser: argparse.ArgumentParser) -> None:
    repository_option(parser)
    parser.add_argument("--archive", required=True, help="name or id of the archive, or latest")
    parser.add_argument("--path", default="/", help="directory to list (%(default)s)")
