# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Join a controller with an enrolment token."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from saveos_agent.answers import Answer
from saveos_agent.enrol import (
    TOKEN_VARIABLE,
    Controller,
    follow_registration,
    own_token,
    read_ticket,
    refuse_foreign,
    register_here,
)
from saveos_agent.errors import usage
from saveos_agent.files import read_json


def enrolment_token(options: argparse.Namespace) -> str:
    """The token's text: of the file, else of the environment; never of the command line, which others see."""
    if not options.token_file:
        return os.environ.get(TOKEN_VARIABLE, "")
    try:
        return Path(options.token_file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise usage(f"{options.token_file} cannot be read: {error}.") from None


def run(_: Any, options: argparse.Namespace) -> Answer:
    """Register, wait for approval, let the controller in, wait for provisioning. Again: go on or do nothing."""
    etc = Path(options.config).absolute()
    text = enrolment_token(options)
    if os.geteuid():
        etc.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Answer(
            {"state": "prepared", "config": str(etc)},
            [
                f"{etc} is prepared, for `saveos-agent` by hand with a repository of your own.",
                "The controller takes care of whole machines, as root: to enrol this one, run this as root.",
            ],
        )
    known = read_json(etc / "registration.json") or {}
    if text:
        ticket = read_ticket(text)
        refuse_foreign(etc, ticket, options)
        controller = Controller.pinned(ticket)
        said = register_here(controller, ticket, etc, options)
    elif known:
        controller = Controller(str(known["url"]), str(known["ca"]))
        said = controller.call("GET", f"/register/{known['registration_id']}", own_token(etc))
    else:
        raise usage(
            "There is no enrolment token.", f"Set {TOKEN_VARIABLE}, or name its file with --token-file FILE."
        )
    return follow_registration(controller, etc, said, options)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        f"The enrolment token comes from {TOKEN_VARIABLE} or --token-file, never from the command line.\n"
        "Run again, it goes on where it was, or changes nothing. An admin makes tokens with\n"
        "`saveos enrol tokens create` and lets hosts in with `saveos enrol approve NAME`."
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--token-file", default="", metavar="FILE", help="file with the enrolment token")
    parser.add_argument("--name", default="", help="name of this host there (default: its host name)")
    parser.add_argument("--address", default="", help="address the controller reaches it by (default: its own)")
    parser.add_argument("--port", type=int, default=0, help="its SSH port (default: sshd's)")
    parser.add_argument("--controller", default="", metavar="URL", help="refuse a token of another controller")
    parser.add_argument("--move", action="store_true", help="leave the controller that looks after it now")
    parser.add_argument("--no-wait", action="store_true", help="do what can be done now, and return")
    parser.add_argument(
        "--timeout", type=float, default=3600, metavar="SECONDS", help="wait so long (%(default).0f)"
    )
