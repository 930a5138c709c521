"""`python -m bench [NAME …]`: run benchmarks and print their tables."""

import argparse
import os
import sys
from datetime import UTC, datetime
from importlib import import_module

from lab import unfit

NAMES = (
    "backup",
    "provisioning",
    "overhead",
    "latency",
    "idle",
    "sweep",
    "checkins",
    "hosts_page",
    "catalogue",
    "guard",
)


def main() -> int:
    """Run what was named, or all; one table each as soon as it is there."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (default: all)")
    modules = {name: import_module(f"bench.{name}") for name in NAMES}
    for module in modules.values():
        module.flags(parser)
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}: there are {', '.join(NAMES)}")
    if reason := unfit():
        print(f"bench: {reason}", file=sys.stderr)
        return 1
    load = os.getloadavg()[0]
    print(
        f"# {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, load before the start {load:.1f}\n",
        flush=True,
    )
    for name in options.names or NAMES:
        print(modules[name].run(options), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
