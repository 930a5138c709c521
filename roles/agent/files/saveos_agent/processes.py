# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Children of a run: started so that all of them can be found and ended."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import selectors
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Optional

from saveos_agent.errors import EXIT_FAILED
from saveos_agent.settings import Settings

MARKER = "SAVEOS_RUN_ID"  # in the environment of every process of a run, so that all of them can be found
POLL_SECONDS = 0.1
EXEC_SECONDS = 5  # beside eight busy processes on two cores 0.03 were seen; a disk that stalls takes longer
TERM_SECONDS = 10

LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1

nameless: set[tuple[int, Optional[str]]] = set()  # programs that showed no words for all that time


def start_time(pid: int) -> Optional[str]:
    """Start of a process in clock ticks since boot: with the pid it names one process for ever."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return None


def processes_of(run_id: str) -> list[int]:
    """Every process of a run but this one, found by the marker in its environment.

    Who starts a program hears of it before its exec ends, and until then /proc shows no words and no
    environment of it (Linux, fs/proc/base.c, environ_read); so such a one is looked at again. One that goes
    on without words was started so, and is waited for once.
    """
    marker = f"{MARKER}={run_id}".encode()
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and int(entry) != os.getpid()]
    found = []
    deadline = time.monotonic() + EXEC_SECONDS
    while True:
        bare = []
        for pid in pids:
            with contextlib.suppress(OSError):  # it is gone; a zombie and a thread of the kernel have no exe
                words = Path(f"/proc/{pid}/cmdline").read_bytes()  # it is there a moment before the other
                if marker in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    found.append(pid)
                elif not words and os.readlink(f"/proc/{pid}/exe"):
                    bare.append(pid)
        pids = [pid for pid in bare if (pid, start_time(pid)) not in nameless]
        if not pids or time.monotonic() > deadline:
            nameless.update((pid, start_time(pid)) for pid in pids)
            return found
        time.sleep(0.01)


def end_processes(run_id: str, grace: float = TERM_SECONDS) -> None:
    """SIGTERM to every process of a run, SIGKILL to what is left after the grace time (seconds)."""
    deadline = time.monotonic() + grace
    asked: set[int] = set()
    while True:
        alive = processes_of(run_id)
        if not alive:
            return
        for pid in alive:
            number = signal.SIGKILL if time.monotonic() >= deadline else signal.SIGTERM
            if number == signal.SIGKILL or pid not in asked:
                asked.add(pid)
                with contextlib.suppress(OSError):
                    os.kill(pid, number)
        time.sleep(POLL_SECONDS)


class Cancel:
    """Turns SIGTERM, SIGINT and SIGHUP into one request to end the current child and finish in order."""

    def __init__(self) -> None:
        self.requested_at: Optional[float] = None
        self.child: Optional[int] = None

    def install(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._handle)

    def _handle(self, _number: int, _frame: object) -> None:
        if self.requested_at is None:
            self.requested_at = time.monotonic()
        if self.child is not None:
            with contextlib.suppress(OSError):
                os.killpg(self.child, signal.SIGTERM)

    @property
    def requested(self) -> bool:
        return self.requested_at is not None

    @property
    def overdue(self) -> bool:
        return self.requested_at is not None and time.monotonic() - self.requested_at > TERM_SECONDS


def die_with_parent(number: int = signal.SIGTERM) -> Callable[[], None]:
    """What a child does before its exec, so that it gets a signal when we die, even by SIGKILL."""
    parent = os.getpid()

    def ask_for_signal() -> None:
        LIBC.prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # we died before it asked
            os._exit(EXIT_FAILED)

    return ask_for_signal


def child_environment(run_id: str) -> dict[str, str]:
    """A clean environment: PATH, a UTF-8 locale, HOME and the marker; nothing of who called us."""
    language = os.environ.get("LC_ALL") or os.environ.get("LANG") or ""
    return {
        "PATH": os.environ.get("PATH") or "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": language if language.lower().replace("-", "").endswith("utf8") else "C.UTF-8",
        "HOME": os.environ.get("HOME") or "/root",
        MARKER: run_id,
    }


def run_child(  # noqa: PLR0917 - the optional ones are passed by name
    argv: list[str],
    run_id: str,
    on_line: Callable[[str, str], None],
    cancel: Optional[Cancel] = None,
    cwd: Optional[str] = None,
    seconds: Optional[float] = None,
    on_bytes: Optional[Callable[[bytes], Any]] = None,
    extra: Optional[dict[str, str]] = None,
) -> int:
    """Run a program in its own session; on_line(stream, text) sees each line of "out" and "err".

    Where standard output is data, `on_bytes` takes it as it comes. `extra` is added to its environment.

    The child gets SIGTERM when we die (even by SIGKILL); where it dies by a signal, so do its children.
    Returns the exit status, negative for a signal, as subprocess does.
    """
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**child_environment(run_id), **(extra or {})},
        cwd=cwd,
        start_new_session=True,
        preexec_fn=die_with_parent(),  # noqa: PLW1509 - the thread of Progress holds no lock that it needs
    )
    if cancel is not None:
        cancel.child = process.pid
        if cancel.requested:  # it came between the last check and now
            cancel._handle(signal.SIGTERM, None)
    try:
        _read_lines(process, run_id, on_line, cancel, seconds, on_bytes)
        status = process.wait()
        if status < 0:  # it could not end its own children
            end_processes(run_id, grace=5)
        return status
    finally:
        if process.poll() is None:
            end_processes(run_id, grace=2)
            process.wait()
        if cancel is not None:
            cancel.child = None


def _read_lines(
    process: subprocess.Popen[bytes],
    run_id: str,
    on_line: Callable[[str, str], None],
    cancel: Optional[Cancel],
    seconds: Optional[float],
    on_bytes: Optional[Callable[[bytes], Any]] = None,
) -> None:
    """Feed lines until both pipes end; never wait for ever for a stray process that holds them."""
    deadline = None if seconds is None else time.monotonic() + seconds
    ended_at: Optional[float] = None
    buffers = {"out": b"", "err": b""}
    with selectors.DefaultSelector() as selector:
        for name, pipe in (("out", process.stdout), ("err", process.stderr)):
            assert pipe is not None
            selector.register(pipe, selectors.EVENT_READ, name)
        while selector.get_map():
            for key, _ in selector.select(timeout=0.5):
                chunk = os.read(key.fd, 65536)
                if not chunk:
                    selector.unregister(key.fileobj)
                if key.data == "out" and on_bytes is not None:
                    on_bytes(chunk)
                    continue
                buffers[key.data] = _split_lines(key.data, buffers[key.data] + chunk, not chunk, on_line)
            if (deadline is not None and time.monotonic() > deadline) or (
                cancel is not None and cancel.overdue
            ):
                end_processes(run_id, grace=0)
            if process.poll() is not None:
                if process.returncode < 0:
                    end_processes(run_id, grace=5)
                if ended_at is None:  # what is left in the pipes is read first, however slow we are
                    ended_at = time.monotonic()
                elif time.monotonic() - ended_at > 2:
                    return


def _split_lines(stream: str, data: bytes, last: bool, on_line: Callable[[str, str], None]) -> bytes:
    """Call on_line for each whole line and return the rest, bounded."""
    *lines, rest = data.split(b"\n")
    if (last and rest) or len(rest) > 1024 * 1024:
        lines.append(rest)
        rest = b""
    for line in lines:
        on_line(stream, line.decode("utf-8", "replace"))
    return rest


def systemctl(*arguments: str, seconds: float = 90) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemctl", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def own_unit(settings: Settings) -> str:
    """The unit of ours that this process runs in, or ""."""
    try:
        groups = Path("/proc/self/cgroup").read_text()
    except OSError:
        return ""
    for name in re.findall(r"/([^/\n]+\.service)(?:\n|$)", groups):
        if name == settings.unit or name.startswith("saveos-restore-"):
            return str(name)
    return ""
