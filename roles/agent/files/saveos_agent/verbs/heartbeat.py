# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Post waiting run records, then tell the controller how this host is."""

from __future__ import annotations

import argparse
import time

from saveos_agent.answers import Answer
from saveos_agent.delivery import heartbeat
from saveos_agent.options import jitter_option
from saveos_agent.restore import resume_restore
from saveos_agent.rotation import settle_when_free
from saveos_agent.schedule import jitter
from saveos_agent.settings import Settings

add_options = jitter_option


def run(settings: Settings, options: argparse.Namespace) -> Answer:
    if options.jitter:
        time.sleep(jitter(settings, options.jitter))
    resume_restore(settings)
    settle_when_free(settings)
    told = heartbeat(settings)
    if not settings.controller_url:
        return Answer(told, ["this host has no controller to tell"])
    free = min((disk["free"] / disk["total"] for disk in told["disks"] if disk["total"]), default=0)
    lines = [f"delivered {told['delivered']}, waiting {told['spool']}"]
    return Answer(told, [*lines, f"next run {told['next_run_at'] or 'unknown'}, {free:.0%} of the disk free"])
