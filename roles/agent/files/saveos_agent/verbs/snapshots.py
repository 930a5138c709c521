# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""List the archives."""

from __future__ import annotations

import argparse

from saveos_agent.answers import Answer, printable
from saveos_agent.browse import snapshots
from saveos_agent.options import repository_option
from saveos_agent.settings import Settings

add_options = repository_option


def run(settings: Settings, options: argparse.Namespace) -> Answer:
    data = snapshots(settings, options.repository)
    return Answer(
        data,
        [
            f"{item['started_at']}  {printable(item['name'])}  {item['nfiles'] or '?'} files"
            for item in data["items"]
        ],
    )
