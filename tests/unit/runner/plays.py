"""Small plays on local connections, for tests of the engine; no role is needed."""

import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from saveos.runner import attempts
from saveos.runner.directory import Spec, Target
from saveos.runner.events import Line

FLEET = Path(__file__).resolve().parents[3]


def play(path: Path, *tasks: str, hosts: str = "agents") -> Path:
    """Write a playbook of tasks, each a YAML block."""
    body = "\n".join("    - " + task.strip().replace("\n", "\n      ") for task in tasks)
    path.write_text(f"- name: Test\n  hosts: {hosts}\n  gather_facts: false\n  tasks:\n{body}\n")
    return path


def target(name: str, **changes: Any) -> Target:
    """Return a local target in group agents."""
    return Target(
        **({"name": name, "id": uuid.uuid4(), "groups": ("agents",), "connection": "local"} | changes)
    )


def spec(playbook: Path, *targets: Target, **changes: Any) -> Spec:
    """Return a play of a fresh job's first attempt."""
    return Spec(
        **(
            {
                "job_id": uuid.uuid4(),
                "attempt": 1,
                "playbook": playbook,
                "targets": targets or (target("web1"),),
                "fleet": FLEET,
                "lease": 60,  # nobody renews it here, and the machine may be busy
            }
            | changes
        )
    )


def finish(attempt: attempts.Attempt, timeout: float = 60) -> tuple[list[Line], attempts.Result]:
    """Wait for the end and return all lines and the result."""
    assert attempt.wait(timeout), "the play did not end"
    lines: list[Line] = []
    while found := attempt.spool.read():
        lines += found
    return lines, attempt.finish()


def eventually(condition: Any, timeout: float = 60) -> None:
    """Wait until `condition()` is true."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"not within {timeout} s"
        time.sleep(0.05)


def running(token: str) -> list[int]:
    """Return processes whose command line holds `token`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if token.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def kinds(lines: Iterable[Line]) -> list[str]:
    """Return the kinds of the log events, in order."""
    return [line["k"] for line in lines if "n" in line]
