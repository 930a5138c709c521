# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Show facts and findings about this host."""

from __future__ import annotations

import argparse

from saveos_agent.answers import Answer
from saveos_agent.health import health
from saveos_agent.options import no_options
from saveos_agent.settings import Settings

add_options = no_options


def run(settings: Settings, _: argparse.Namespace) -> Answer:
    data = health(settings)
    lines = [f"{data['host']}: {data['state']}"]
    lines += [f"{item['severity']}: {item['message']} {item['fix']}" for item in data["findings"]]
    return Answer(data, lines)
