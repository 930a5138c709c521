# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Protect, rename, delete or export an archive."""

from __future__ import annotations

import argparse

from saveos_agent.answers import Answer
from saveos_agent.care import ACTIONS, care, care_lines
from saveos_agent.options import repository_option, turn_option
from saveos_agent.runs import turn
from saveos_agent.settings import Settings


def run(settings: Settings, options: argparse.Namespace) -> Answer:
    repository = settings.repository(options.repository)
    with turn(settings, options.timeout, options.action):
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
    turn_option(parser)
