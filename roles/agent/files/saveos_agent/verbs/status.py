# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Show what runs and how the last runs ended."""

from __future__ import annotations

import argparse

from saveos_agent.answers import Answer
from saveos_agent.health import status
from saveos_agent.options import no_options
from saveos_agent.settings import Settings

add_options = no_options


def run(settings: Settings, _: argparse.Namespace) -> Answer:
    data = status(settings)
    active = data["active"]
    lines = [
        f"running: {active['kind']} {active['run_id']} since {active['started_at']}"
        if active
        else "nothing is running"
    ]
    lines += [
        f"{item['finished_at']}  {item['kind']}  {item['state']}  {item['run_id']}"
        for item in data["last_runs"]
    ]
    return Answer(data, lines)
