"""What an idle controller costs: CPU and memory with hosts in the table and one dashboard open."""

import argparse
import contextlib
import os
import tempfile
import threading
import time
from pathlib import Path

import httpx
from serving import Controller

from bench.common import Table
from bench.overhead import add_hosts


def flags(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's flags."""
    parser.add_argument("--idle-seconds", type=int, default=60, help="how long to look")
    parser.add_argument("--idle-hosts", type=int, default=10, help="hosts in the table")


def run(options: argparse.Namespace) -> Table:
    """Open the dashboard once, keep its event stream open, and look at the process."""
    table = Table(
        f"Idle controller for {options.idle_seconds} s with {options.idle_hosts} hosts and one dashboard open",
        ("of one core", "PSS"),
        "Aim: under 1 % CPU and under 150 MB.",
    )
    with tempfile.TemporaryDirectory(prefix="saveos-bench-") as folder:
        controller = Controller(Path(folder) / "home", "127.0.0.1")
        controller.start()
        try:
            add_hosts(controller, [f"idle{number}" for number in range(options.idle_hosts)])
            stream = threading.Thread(target=keep_open, args=(controller,), daemon=True)
            stream.start()
            time.sleep(5)
            before = cpu(controller)
            time.sleep(options.idle_seconds)
            share = (cpu(controller) - before) / options.idle_seconds
            assert stream.is_alive(), "the dashboard's stream ended"
            table.add(f"{share:.2%}", f"{pss(controller) / 1e6:.0f} MB")
        finally:
            controller.stop()
    return table


def keep_open(controller: Controller) -> None:
    """Read a page as a browser would, then follow the change feed."""
    headers = {"Authorization": f"Bearer {controller.token}"}
    with httpx.Client(
        base_url=controller.url, headers=headers, trust_env=False, timeout=None, verify=controller.trust
    ) as browser:
        for page in ("/", "/hosts", "/jobs"):
            browser.get(page).raise_for_status()
        with browser.stream("GET", "/events") as answer:
            answer.raise_for_status()
            with contextlib.suppress(httpx.RemoteProtocolError):  # the controller was stopped
                for _ in answer.iter_lines():
                    pass


def family(controller: Controller) -> list[int]:
    """Return the controller's process and its children."""
    own = controller.process.pid if controller.process else 0
    children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
    return [own, *map(int, children)]


def cpu(controller: Controller) -> float:
    """Return the seconds of CPU used so far."""
    ticks = 0
    for process in family(controller):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def pss(controller: Controller) -> int:
    """Return the proportional set size in bytes."""
    total = 0
    for process in family(controller):
        rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024
    return total
