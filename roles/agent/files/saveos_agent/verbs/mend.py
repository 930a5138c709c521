# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Take a repository that was put back on its server, and prove that it opens."""

from __future__ import annotations

import argparse

from saveos_agent.answers import Answer
from saveos_agent.mend import Mend
from saveos_agent.options import repository_option, turn_option
from saveos_agent.runs import held
from saveos_agent.settings import Settings


def run(settings: Settings, options: argparse.Namespace) -> Answer:
    repository = settings.repository(options.repository)
    with held(settings, options.timeout):
        data = Mend(settings, repository, options.key_export).conduct(options.check)
    if options.check:
        return Answer(data, [f"would forget: {path}" for path in data["forgets"]] or ["nothing to forget"])
    key = ", its key was imported" if data["key_imported"] else ""
    return Answer(data, [f"repository {repository.id} opens: {len(data['archives'])} archives{key}"])


def add_options(parser: argparse.ArgumentParser) -> None:
    repository_option(parser)
    parser.add_argument("--key-export", default="", metavar="FILE", help="key export of the recovery kit")
    parser.add_argument("--check", action="store_true", help="change nothing, say what would be forgotten")
    turn_option(parser)
