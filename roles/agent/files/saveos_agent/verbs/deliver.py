# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Post waiting run records to the controller."""

from __future__ import annotations

import argparse
import time

from saveos_agent.answers import Answer
from saveos_agent.delivery import deliver
from saveos_agent.options import jitter_option
from saveos_agent.schedule import jitter
from saveos_agent.settings import Settings
from saveos_agent.state import stored

add_options = jitter_option


def run(settings: Settings, options: argparse.Namespace) -> Answer:
    if options.jitter and stored(settings, "spool"):
        time.sleep(jitter(settings, options.jitter))
    counts = deliver(settings)
    return Answer(counts, [f"delivered {counts['delivered']}, waiting {counts['waiting']}"])
