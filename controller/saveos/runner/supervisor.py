"""Supervisor of one play: `python -I -S supervisor.py DIRECTORY LOCK`, a process of its own.

Standard library only and no `site`, so that it starts in 10 ms. Its standard input is the worker's
life line: first a line that is handed to the play, then any line renews, `cancel` and `stop` end.
End of file or silence longer than the lease: the worker is gone. However the play ends, the whole
process tree is ended too, the result file is written and the private directory removed. LOCK is the
number of an inherited descriptor with a lock that lives exactly as long as this process.
"""

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any  # not at run time: it would double the start

PR_SET_CHILD_SUBREAPER = 36


def _children() -> dict[int, list[int]]:
    """Return living (not zombie) processes by parent."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208 - no pathlib here: import time
        try:
            with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if not fields:
            continue
        if fields[0] != b"Z":
            children.setdefault(int(fields[1]), []).append(int(name))
    return children


def descendants(roots: set[int]) -> set[int]:
    """Return every living process below `roots`, without them."""
    children, found, todo = _children(), set[int](), list(roots)
    while todo:
        for child in children.get(todo.pop(), []):
            if child not in found and child not in roots:
                found.add(child)
                todo.append(child)
    return found


def send(processes: set[int], number: int) -> None:
    """Signal processes; those that have just ended or are not ours to signal are passed over."""
    for process in processes:
        try:
            os.kill(process, number)
        except (ProcessLookupError, PermissionError):
            pass


def end_tree(grace: float) -> None:
    """End all descendants: SIGTERM, after `grace` seconds SIGKILL, until none is left (at most a minute)."""
    started = time.monotonic()
    told: set[int] = set()
    pause = 0.005
    while found := descendants({os.getpid()}):
        waited = time.monotonic() - started
        if waited > grace:
            send(found, signal.SIGKILL)
        else:
            send(found - told, signal.SIGTERM)  # once: Ansible takes a second one for impatience
            told |= found
        if waited > grace + 60:
            return  # in an uninterruptible wait, or of another user: nothing more can be done
        time.sleep(pause)
        pause = min(pause * 2, 0.1)
        _reap()


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


class LifeLine:
    """What the worker says on standard input."""

    def __init__(self, lease: float) -> None:
        self.lease = lease
        self.heard = time.monotonic()
        self._rest = b""

    def first_line(self) -> bytes:
        """Return the line for the play; empty when the worker is gone already."""
        while b"\n" not in self._rest:
            data = os.read(0, 65536)
            if not data:
                return b""
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line + b"\n"

    def verdict(self, *, readable: bool) -> str:
        """Return why the play must end now, or nothing."""
        if readable:
            data = os.read(0, 65536)
            if not data:
                return "worker-lost"
            self.heard = time.monotonic()
            self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            if line in (b"cancel", b"stop"):
                return {b"cancel": "canceled", b"stop": "stopped"}[line]
        return "worker-lost" if time.monotonic() - self.heard > self.lease else ""


def _watch(play: "subprocess.Popen[bytes]", line: LifeLine, timeout: float) -> str:
    """Wait for the play's end or a reason to end it; return the reason."""
    end = time.monotonic() + timeout
    ended = os.pidfd_open(play.pid)
    readable: list[int] = []
    while not (reason := line.verdict(readable=0 in readable)):  # first of what came with the first line
        if time.monotonic() > end:
            return "timeout"
        left = min(end, line.heard + line.lease) - time.monotonic()
        readable, _, _ = select.select([0, ended], [], [], max(0.0, left) + 0.01)
        if ended in readable:
            return "exited"
    return reason


def _remove_tree(directory: str) -> None:
    for path, folders, files in os.walk(directory, topdown=False):
        for name in files:
            os.unlink(os.path.join(path, name))  # noqa: PTH108, PTH118
        for name in folders:
            whole = os.path.join(path, name)  # noqa: PTH118
            (os.unlink if os.path.islink(whole) else os.rmdir)(whole)  # noqa: PTH114
    os.rmdir(directory)  # noqa: PTH106


def _ignore(_number: int, _frame: object) -> None:
    """Handle a signal by doing nothing."""


def _start(spec: "dict[str, Any]", directory: str, first: bytes) -> "subprocess.Popen[bytes]":
    """Start the play with `first` as its whole standard input."""
    reading, writing = os.pipe()
    os.write(writing, first)
    os.close(writing)
    play = subprocess.Popen(
        spec["command"],
        stdin=reading,
        stdout=subprocess.DEVNULL,
        cwd=directory,
        env=spec["environment"],
        start_new_session=True,
    )
    os.close(reading)
    return play


def main() -> None:
    """Run one play to its end."""
    directory = sys.argv[1]
    os.set_inheritable(int(sys.argv[2]), False)  # the lock is ours alone
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, _ignore)  # the life line decides; unlike SIG_IGN this is not inherited
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with open(f"{directory}/play.json") as file:  # noqa: PTH123
        spec = json.load(file)
    line = LifeLine(spec["lease"])
    code, reason = None, "worker-lost"
    if first := line.first_line():
        play = _start(spec, directory, first)
        reason = _watch(play, line, spec["timeout"])
        if reason == "exited":
            code = play.wait()
        end_tree(spec["grace"])
    with open(spec["result"] + ".tmp", "w") as file:  # noqa: PTH123
        json.dump({"code": code, "reason": reason}, file)
    os.replace(spec["result"] + ".tmp", spec["result"])  # noqa: PTH105
    _remove_tree(directory)


if __name__ == "__main__":
    main()
