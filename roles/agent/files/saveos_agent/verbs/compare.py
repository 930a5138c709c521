# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Compare an archive with the host as it is."""

from __future__ import annotations

import argparse

from saveos_agent.answers import Answer, printable
from saveos_agent.compare import compare
from saveos_agent.options import repository_option
from saveos_agent.settings import Settings


def run(settings: Settings, options: argparse.Namespace) -> Answer:
    data = compare(settings, settings.repository(options.repository), options.archive, options.path)
    lines = [f"{each['kind']:8} {printable(each['path'])}" for each in data["differences"]]
    lines += [f"… and {data['more']} more"] if data["more"] else []
    counts = ", ".join(f"{data[kind]['files']} {kind}" for kind in ("added", "removed", "modified"))
    return Answer(data, [*lines, f"{data['compared']} paths compared with {data['archive']}: {counts}"])


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Looks at names, types, modes, sizes and times only; no file is opened."
    repository_option(parser)
    parser.add_argument("--archive", default="latest", help="name or id of the archive, or latest")
    parser.add_argument("--path", default="/", help="only what is below this directory (%(default)s)")
