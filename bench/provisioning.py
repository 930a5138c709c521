"""Provisioning over SSH by hand: a storage server and N hosts, first run and second."""

import argparse

from lab import Lab
from support import Play, play

from bench.common import Table, timed


def flags(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's flags."""
    parser.add_argument("--hosts", type=int, nargs="+", default=[3, 10], help="numbers of hosts to try")


def run(options: argparse.Namespace) -> Table:
    """Converge fresh hosts, then again, for each number of hosts."""
    aim = "Aim: 3 hosts first at most 25 s and second at most 8 s; each further host at most 1 s more."
    columns = (
        "hosts and a server",
        "first",
        "second",
        "changed in the second",
        "each further host: first",
        "second",
    )
    table = Table("Provisioning with initialised repositories", columns, aim)
    seen: list[tuple[int, float, float]] = []
    for number in options.hosts:
        with Lab({"vault1": "bookworm"} | {f"host{each}": "bookworm" for each in range(number)}) as lab:
            lab.inventory(variables={"agent_sources": ["/etc"]})
            first = timed(lambda lab=lab: play(lab, "site"))
            again: list[Play] = []
            second = timed(lambda lab=lab, again=again: again.append(play(lab, "site")))
        further = ["-", "-"]
        if seen:
            fewer = number - seen[0][0]
            further = [
                f"{(now - then) / fewer:.2f} s" for now, then in zip((first, second), seen[0][1:], strict=True)
            ]
        seen.append((number, first, second))
        table.add(number, f"{first:.1f} s", f"{second:.1f} s", again[0].total("changed"), *further)
    return table
