# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Send the controller the listings it lacks."""

from __future__ import annotations

import argparse

from saveos_agent.answers import Answer
from saveos_agent.catalogue import send_listings
from saveos_agent.errors import EXIT_FAILED, EXIT_OK, refused
from saveos_agent.options import no_options
from saveos_agent.settings import Settings

add_options = no_options


def run(settings: Settings, _: argparse.Namespace) -> Answer:
    if not settings.controller_url:
        raise refused("This host has no controller.", "Provision it from one.")
    sent = send_listings(settings)
    lines = [
        each["error"]["message"]
        if each["error"]
        else f"Sent the listing of {each['archive']}."
        if each["archive"]
        else f"The catalogue has the newest archive of {each['repository_id']}."
        for each in sent
    ]
    failed = any(each["error"] for each in sent)
    return Answer({"listings": sent}, lines, EXIT_FAILED if failed else EXIT_OK)
