# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Show the text of one file of an archive, or how it differs in another archive or on the host."""

from __future__ import annotations

import argparse
import base64
import os

from saveos_agent.answers import Answer, printable
from saveos_agent.difference import HOST, NONE, content, difference, send_difference
from saveos_agent.options import repository_option
from saveos_agent.settings import Settings


def run(settings: Settings, options: argparse.Namespace) -> Answer:
    repository = settings.repository(options.repository)
    ref = options.ref or base64.urlsafe_b64encode(os.fsencode(options.path)).decode()
    asked = (settings, repository, options.archive, options.other, ref)
    if options.transfer:
        sent = send_difference(*asked, options.transfer)
        return Answer({"sent": sent}, [f"{sent} bytes sent"])
    if options.other == NONE:
        text = content(settings, repository, options.archive, ref)
        return Answer({"text": text}, [printable(line) for line in text.splitlines()])
    text = difference(*asked)
    return Answer({"difference": text}, [printable(line) for line in text.splitlines()] or ["Nothing differs."])


def add_options(parser: argparse.ArgumentParser) -> None:
    repository_option(parser)
    parser.add_argument("--archive", required=True, help="name or id of the archive, or latest")
    parser.add_argument(
        "--other",
        default=HOST,
        help="another archive, host: as the file is now, or none: the text itself (%(default)s)",
    )
    parser.add_argument("--path", default="", help="the file")
    parser.add_argument("--ref", default="", help="the file, as URL-safe base64 of its bytes")
    parser.add_argument("--transfer", default="", help="send it to who reads this transfer of the controller")
