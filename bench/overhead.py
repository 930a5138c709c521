"""What the controller adds to a play: the same play by ansible-playbook and as a job, on many local hosts."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import saveos.app  # noqa: F401 - all tables
from saveos.accounts.models import Tenant
from saveos.core.database import Database
from saveos.core.security import load_kek
from saveos.hosts.models import Host
from serving import BIN, Controller
from sqlalchemy import select

from bench.common import ROOT, Table, more, ratio, seconds, timed

PLAY = """
- name: Benchmark
  hosts: agents
  gather_facts: false
  tasks:
"""
TASK = """    - name: Task {number}
      ansible.builtin.command: "true"
      changed_when: false
"""


def flags(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's flags."""
    parser.add_argument("--local-hosts", type=int, default=40, help="hosts of the play, all this machine")
    parser.add_argument("--tasks", type=int, default=15, help="tasks of the play")
    parser.add_argument("--plays", type=int, default=3, help="runs of each, in turn")


def run(options: argparse.Namespace) -> Table:
    """Run the play both ways in turn."""
    title = (
        f"A play of {options.tasks} tasks on {options.local_hosts} local hosts: job against ansible-playbook"
    )
    table = Table(title, ("play", "ansible-playbook", "job", "ratio", "more"), "Aim: at most 1.10 times.")
    with tempfile.TemporaryDirectory(prefix="saveos-bench-") as folder:
        place = Path(folder)
        playbook = place / "play.yml"
        playbook.write_text(PLAY + "".join(TASK.format(number=number) for number in range(options.tasks)))
        names = [f"local{number}" for number in range(options.local_hosts)]
        host = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
        inventory = {"agents": {"hosts": dict.fromkeys(names, host)}}
        (place / "hosts.json").write_text(json.dumps(inventory))
        controller = BenchController(place / "home", playbook)
        controller.start()
        try:
            add_hosts(controller, names)
            plain, job = [], []
            for _ in range(options.plays):
                plain.append(timed(lambda: by_hand(place)))
                job.append(timed(lambda: as_job(controller, names)))
        finally:
            controller.stop()
    table.add("the same", seconds(plain), seconds(job), ratio(job, plain), more(job, plain))
    return table


class BenchController(Controller):
    """A controller whose table of operations has one more, which runs the benchmark's play."""

    def __init__(self, home: Path, playbook: Path) -> None:
        super().__init__(home, "127.0.0.1")
        program = (
            "from saveos.cli.main import main; "
            "from saveos.maintenance.operations import OPERATIONS, Operation; "
            f"OPERATIONS['bench'] = Operation('bench', {str(playbook)!r}, 'Benchmark', needs='both'); "
            "main(['serve'])"
        )
        self.program = [sys.executable, "-c", program]


def add_hosts(controller: Controller, names: list[str]) -> None:
    """Write hosts of connection local straight into the database; no route makes such hosts."""
    database = Database(f"sqlite:///{controller.home / 'saveos.db'}", load_kek(controller.home))
    with database.session() as session:
        tenant_id = session.scalars(select(Tenant.id)).one()
        for name in names:
            host = Host(tenant_id=tenant_id, name=name, address="127.0.0.1", state="enrolled")
            host.connection = "local"
            session.add(host)
    database.close()


def by_hand(place: Path) -> None:
    """Run the play by ansible-playbook with the checkout's settings."""
    subprocess.run(
        [BIN / "ansible-playbook", "-i", place / "hosts.json", "--forks", "20", place / "play.yml"],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        stdout=subprocess.DEVNULL,
        check=True,
    )


def as_job(controller: Controller, names: list[str]) -> None:
    """Run the play as a job, from the POST to the final frame of its event stream."""
    job = controller.ask("bench", *names)
    state = ""
    for _, event, data in controller.events(job["id"], 300):
        state = data["state"] if event == "state" else state
    assert state == "succeeded", controller.story(controller.ended(job))
