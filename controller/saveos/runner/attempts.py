"""Start, watch, renew and end the play of a job attempt; find and end what a killed supervisor left.

The worker holds an `Attempt` per running play. What the play says is a spool, `SAVEOS_HOME/run/NAME.ndjson`;
how it ended is `NAME.json`, {"code", "reason"} with a reason of exited, canceled, stopped, timeout,
worker-lost or killed (the supervisor itself was).
"""

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saveos.runner import directory as directories
from saveos.runner import supervisor
from saveos.runner.directory import Spec
from saveos.runner.events import Line

MAX_LINES = 500


@dataclass(frozen=True)
class Result:
    """How a play ended; `code` is Ansible's exit code, where it came to that."""

    reason: str
    code: int | None


class Spool:
    """Reads a spool from its start; a line that is still being written waits for the next read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def read(self, limit: int = MAX_LINES) -> list[Line]:
        """Return up to `limit` new lines."""
        lines: list[Line] = []
        if not self.path.exists():
            return lines
        with self.path.open("rb") as file:
            file.seek(self._offset)
            for raw in file:
                if not raw.endswith(b"\n") or len(lines) == limit:
                    break
                self._offset += len(raw)
                try:
                    lines.append(json.loads(raw))
                except ValueError:
                    continue  # a torn write of a killed play, then another play's lines
        return lines


class Attempt:
    """A running play, seen from its worker."""

    def __init__(
        self, spec: Spec, home: Path, process: "subprocess.Popen[bytes]", line: int, directory: Path
    ) -> None:
        self.spec = spec
        self.spool = Spool(spool_path(home, spec.name))
        self._home = home
        self._process = process
        self._line = line
        self._saying = threading.Lock()
        self._directory = directory
        self._ended = os.pidfd_open(process.pid)

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds; return whether the play and all its processes have ended."""
        readable, _, _ = select.select([self._ended], [], [], timeout)
        return bool(readable)

    def renew(self) -> None:
        """Tell the supervisor that the lease was renewed."""
        self._say(b"renew\n")

    def cancel(self) -> None:
        """End the play because a person wants it; `wait` tells when it is done."""
        self._say(b"cancel\n")

    def stop(self) -> None:
        """End the play because the worker stops."""
        self._say(b"stop\n")

    def _say(self, line: bytes) -> None:
        with self._saying:  # the number of a closed descriptor is soon another play's
            if self._line < 0:
                return
            try:
                os.write(self._line, line)
            except BrokenPipeError:
                pass  # it has ended; wait() tells

    def finish(self) -> Result:
        """Reap the supervisor and return how the play ended. Ends what a killed supervisor left."""
        self._process.wait()
        os.close(self._ended)
        with self._saying:
            os.close(self._line)
            self._line = -1
        result = read_result(self._home, self.spec.name)
        if result is None or self._directory.exists():
            end_marked(self.spec.mark)
            directories.remove(self._directory)
        return result or Result("killed", None)


def spool_path(home: Path, name: str) -> Path:
    """Return the path of a play's spool."""
    return home / "run" / f"{name}.ndjson"


def read_result(home: Path, name: str) -> Result | None:
    """Return how a play ended, or None when nobody could write it down."""
    try:
        found = json.loads((home / "run" / f"{name}.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return Result(found["reason"], found["code"])


def read_errors(home: Path, name: str) -> str:
    """Return what a play's supervisor and process said on standard error: nothing, but when one is broken."""
    path = home / "run" / f"{name}.err"
    return path.read_text(errors="replace")[-4000:] if path.exists() else ""


def forget(home: Path, name: str) -> None:
    """Remove a play's spool, result and errors, once they are stored."""
    for suffix in ("ndjson", "json", "err"):
        (home / "run" / f"{name}.{suffix}").unlink(missing_ok=True)


def start(spec: Spec, home: Path) -> Attempt:
    """Start a play and return at once. Raises ValueError on a name that no inventory may carry, OSError."""
    (home / "run").mkdir(mode=0o700, exist_ok=True)
    forget(home, spec.name)
    directory, password = directories.build(spec, home)
    (directory / "play.json").write_text(json.dumps(_play(spec, home, directory)))
    lock = os.open(directory / "lock.new", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    (directory / "lock.new").rename(directory / "lock")  # seen only when held, else it looks like an orphan's
    errors = os.open(home / "run" / f"{spec.name}.err", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    reading, writing = os.pipe()
    os.write(writing, f"{password}\n".encode())
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", supervisor.__file__, str(directory), str(lock)],
            stdin=reading,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            pass_fds=(lock,),
            env={"SAVEOS_ATTEMPT": spec.mark, "PATH": os.defpath},
            cwd="/",
            start_new_session=True,
        )
    except OSError:
        os.close(writing)
        directories.remove(directory)  # it holds keys
        raise
    finally:
        for descriptor in (lock, reading, errors):
            os.close(descriptor)
    return Attempt(spec, home, process, writing, directory)


def _play(spec: Spec, home: Path, directory: Path) -> dict[str, Any]:
    return {
        "command": [sys.executable, "-I", "-m", "saveos.runner.play", str(directory)],
        "environment": directories.environment(spec, directory),
        "arguments": directories.command(spec),
        "playbook": str(spec.playbook),
        "first_event": spec.first_event,
        "verbosity": spec.verbosity,
        "spool": str(spool_path(home, spec.name)),
        "result": str(home / "run" / f"{spec.name}.json"),
        "timeout": spec.timeout,
        "lease": spec.lease,
        "grace": spec.grace,
    }


def orphans(home: Path) -> Iterator[str]:
    """Yield the names of plays that have a private directory but no living supervisor any more."""
    for directory in sorted(directories.private_root(home).iterdir()):
        try:
            lock = os.open(directory / "lock", os.O_RDWR)
        except (FileNotFoundError, NotADirectoryError):
            if _age(directory) > 60:
                yield directory.name  # killed while it was being written
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_nlink:  # else it ended by itself just now
                yield directory.name
        except BlockingIOError:
            pass
        finally:
            os.close(lock)


def _age(path: Path) -> float:
    """Return seconds since a directory was changed; 0 when it is gone."""
    try:
        return time.time() - path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0


def end_orphan(home: Path, name: str) -> None:
    """End every process of a play that lost its supervisor, and remove its private directory."""
    job, attempt, _ = name.split(".")
    end_marked(f"{uuid.UUID(job)}:{attempt}")
    directories.remove(directories.private_root(home) / name)


def end_marked(mark: str) -> int:
    """Kill every process of the attempt `mark`, and what descends from one; return how many.

    Only for a supervisor that was killed: everything it had is then the kernel's or init's child. A
    process is known by its environment; ssh's shared connections overwrite theirs with a title, which
    names the private directory. While a process is in exec, /proc shows neither: then it is looked at again.
    """
    job, _, attempt = mark.partition(":")
    wanted = f"SAVEOS_ATTEMPT={mark}".encode()
    place = f"/{uuid.UUID(job).hex}.{attempt}.".encode()
    killed: set[int] = set()
    for _ in range(50):  # what forks between two looks is found by the next one
        found, in_exec = set(), False
        for process in _processes():
            title = _read(process, "cmdline")
            if place in title or wanted in _read(process, "environ").split(b"\0"):
                found.add(process)
            in_exec = in_exec or (not title and _is_program(process))
        found |= supervisor.descendants(found)
        found.discard(os.getpid())
        if not found and not in_exec:
            break
        supervisor.send(found, signal.SIGKILL)
        killed |= found
        time.sleep(0.02)
    return len(killed)


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208


def _is_program(process: int) -> bool:
    """Whether it is neither a zombie nor a thread of the kernel."""
    try:
        return bool(os.readlink(f"/proc/{process}/exe"))  # noqa: PTH115
    except OSError:
        return False


def _read(process: int, what: str) -> bytes:
    try:
        return Path(f"/proc/{process}/{what}").read_bytes()
    except OSError:
        return b""
