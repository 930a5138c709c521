"""How soon a person sees something: from a job's acceptance to the first event of its stream."""

import argparse
import statistics
import time

from fleet import Fleet, start_fleet

from bench.common import Table, seconds


def flags(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's flags."""
    parser.add_argument("--jobs", type=int, default=5, help="jobs to start")


def run(options: argparse.Namespace) -> Table:
    """Start health jobs one after the other, each with a stream open from the moment it is accepted."""
    table = Table("Job accepted to its stream's events", ("event", "after"), "Aim: the first under 2.5 s.")
    with start_fleet({"vault": "bookworm", "web": "bookworm"}) as fleet:
        firsts = [first_events(fleet) for _ in range(options.jobs)]
    for name in ("accepted", "running", "first log line", "end"):
        table.add(name, seconds([first[name] for first in firsts]))
    assert statistics.median(first["end"] for first in firsts) > 0
    return table


def first_events(fleet: Fleet) -> dict[str, float]:
    """Return when, in seconds after the 202, the stream told what."""
    began = time.monotonic()
    job = fleet.controller.ask("health", "web")
    accepted = time.monotonic()
    seen = {"accepted": accepted - began}
    for moment, event, data in fleet.controller.events(job["id"], 60):
        name = {"state": data and data.get("state"), "log": "first log line"}.get(event, event)
        seen.setdefault(str(name), moment - accepted)
    seen.setdefault("running", seen["first log line"])
    return seen
