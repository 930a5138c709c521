# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Bring a database back from its dump in an archive."""

from __future__ import annotations

import argparse

from saveos_agent.answers import Answer, printable
from saveos_agent.databases import KINDS, bring_back
from saveos_agent.errors import usage
from saveos_agent.options import repository_option, turn_option
from saveos_agent.runs import turn
from saveos_agent.settings import Settings


def run(settings: Settings, options: argparse.Namespace) -> Answer:
    if not options.name and not options.undo:
        raise usage("Say which database.", "Name it with --name.")
    repository = settings.repository(options.repository)
    with turn(settings, options.timeout, "load"):
        data = bring_back(settings, repository, options)
    verb = "would be loaded into" if options.check else "is loaded into"
    lines = [f"{data['kind']} {printable(data['name'])} of {data['archive']} {verb} {printable(data['into'])}"]
    lines += [f"{data['rows']} rows in {data['tables']} tables"] if not options.check else []
    lines += [f"What it replaced: saveos-agent database --undo {data['safety']}"] if data["safety"] else []
    return Answer(data, lines)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "A copy gets the name --copy-name (of SQLite a new file), else its own with the time. With --as\n"
        "replace the present database is dumped into a file first; --undo with that file puts it back."
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    repository_option(parser)
    parser.add_argument("--archive", default="latest", help="name or id of the archive, or latest")
    parser.add_argument("--name", default="", help="database; of SQLite its name in the configuration")
    parser.add_argument("--kind", default="", choices=("", *KINDS), help="where several fit")
    parser.add_argument("--as", default="copy", choices=("copy", "replace"), help="(%(default)s)")
    parser.add_argument("--copy-name", default="", metavar="NAME", help="name of the copy")
    parser.add_argument("--undo", default="", metavar="FILE", help="put back what was replaced")
    parser.add_argument("--check", action="store_true", help="change nothing, say what would be done")
    turn_option(parser)
