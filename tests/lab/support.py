"""What lab tests share: commands on hosts, playbooks by hand, and judging trees without asking Borg."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import ENVIRONMENT, Host, Lab, recap

ODD_TREE = (Path(__file__).parent / "odd_tree.py").read_text()


def on(
    host: Host, script: str, *arguments: str, stdin: str = "", code: int | None = 0, seconds: float = 120
) -> str:
    """Run a shell script on a host (no network needed) and return what it says; `code` None takes any exit."""
    ran = subprocess.run(
        [*host.inside, "sh", "-c", script, "sh", *arguments],
        env=ENVIRONMENT,
        input=stdin,
        text=True,
        errors="surrogateescape",
        capture_output=True,
        timeout=seconds,
        check=False,
    )
    assert code is None or ran.returncode == code, (
        f"{host.name}: {script}: {ran.returncode}\n{ran.stdout}{ran.stderr}"
    )
    return ran.stdout.strip() if code == 0 else (ran.stdout + ran.stderr).strip()


def in_network(host: Host, *words: str) -> None:
    """Run a command of this machine in a host's network."""
    subprocess.run(["nsenter", "-t", host.pid, "-n", *words], check=True, text=True, capture_output=True)


def make_tree(host: Host, path: str) -> None:
    """Make the odd tree on a host."""
    on(host, 'python3 - make "$1"', path, stdin=ODD_TREE)


def tree(host: Host, path: str) -> dict[str, Any]:
    """Describe a tree on a host."""
    found: dict[str, Any] = json.loads(on(host, 'python3 - describe "$1"', path, stdin=ODD_TREE))
    return found


def agent(host: Host, *words: str, code: int | None = 0) -> Any:
    """Run `saveos-agent --json …` on a host and parse what it prints."""
    said = on(host, 'saveos-agent --json "$@"', *words, code=code)
    return json.loads(said) if code == 0 else said


def archives(host: Host) -> list[dict[str, Any]]:
    """Return a host's archives as its own repository tells them."""
    found: list[dict[str, Any]] = agent(host, "snapshots")["items"]
    return found


def records(host: Host) -> list[dict[str, Any]]:
    """Return the run records that a host keeps, oldest first."""
    script = (
        'for file in /var/lib/saveos-agent/runs/*.json; do [ -e "$file" ] && cat "$file" && echo; done; true'
    )
    found = [json.loads(line) for line in on(host, script).splitlines() if line.strip()]
    return sorted(found, key=lambda record: record["started_at"])


@dataclass(frozen=True)
class Play:
    """What a run of ansible-playbook said; `recap` is {host: {counter: number}}."""

    output: str
    recap: dict[str, dict[str, int]]

    def total(self, counter: str) -> int:
        """Sum of a counter over the hosts."""
        return sum(counts[counter] for counts in self.recap.values())


def play(lab: Lab, name: str, *words: str, code: int = 0, **environment: str) -> Play:
    """Run playbooks/NAME.yml by hand against the inventory written last."""
    ran = lab.play(f"{name}.yml", *words, check=False, environment=environment)
    assert ran.returncode == code, f"{name}: {ran.returncode}\n{ran.stdout[-8000:]}\n{ran.stderr[-2000:]}"
    return Play(ran.stdout + ran.stderr, recap(ran.stdout))
