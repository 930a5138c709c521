"""Keeps `saveos serve` running where there is no systemd. Standard library only, so it stays small.

    python -I -S keeper.py HOME COMMAND…

Restarts the command when it ends by itself with an error; SIGTERM ends both. A command that ends
at once, again and again, is tried less and less often. The home is in the arguments, so that a
keeper whose home was deleted can be told.
"""

import os
import signal
import subprocess
import sys
import time
from types import FrameType

SOON = 10.0  # seconds; a command that lives shorter failed at its start
LONGEST = 60.0  # seconds between two tries


class Stopped(Exception):
    """SIGTERM or SIGINT came."""


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise Stopped


def keep(home: str, command: list[str]) -> int:
    """Run `command` until it ends well, its home is gone, or a signal comes; return the exit code."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    pause, child = 1.0, None
    try:
        while True:
            started = time.monotonic()
            child = subprocess.Popen(command)
            code = child.wait()
            if code == 0 or not os.path.isdir(home):  # noqa: PTH112 - keep the import small
                return code
            pause = 1.0 if time.monotonic() - started > SOON else min(pause * 2, LONGEST)
            print(f"keeper: ended with {code}, starts again in {pause:.0f} s", flush=True)
            time.sleep(pause)
    except Stopped:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        if child and child.poll() is None:
            child.terminate()
            try:
                child.wait(timeout=20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        return 0


if __name__ == "__main__":
    sys.exit(keep(sys.argv[1], sys.argv[2:]))
