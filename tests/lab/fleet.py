"""The fleet of the lab: real hosts that a real controller looks after."""

import contextlib
import ipaddress
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab import Host, Lab, recap
from saveos.runner.directory import private_root
from serving import ROOT, Controller, until
from support import Play, on

HOSTS = {"vault": "bookworm", "web": "bookworm", "bare": "trixie", "cron": "bookworm:nosystemd"}


class Fleet:
    """Hosts `vault` (storage server), `web` and `bare` (agents) and `cron` (one without systemd)."""

    def __init__(self, lab: Lab, controller: Controller) -> None:
        self.lab = lab
        self.controller = controller

    def __getattr__(self, name: str) -> Host:
        """Return a host of the lab by its name."""
        try:
            return self.lab.hosts[name]
        except KeyError:
            raise AttributeError(name) from None

    def provision(self) -> None:
        """Make a storage server and agents of bare hosts, with a policy that no timer starts during a test."""
        agents = [name for name in self.lab.hosts if name != "vault"]
        self.trust(*self.lab.hosts)
        self.fill(*agents)
        policy = {"name": "lab", "is_default": True, "sources": ["/srv/data"], "schedule": "0 3 1 1 *"}
        self.controller.post("/policies", policy, 201)
        self.add("vault", "--storage-server", "--no-agent")
        for name in agents:
            self.add(name)
        self.controller.done("provision", *agents)

    def trust(self, *names: str) -> None:
        """Let the controller's SSH key in on hosts, as an administrator would before adding them."""
        key = self.controller.ssh_key()
        for name in names:
            on(
                self.lab.hosts[name],
                'mkdir -p -m 700 /root/.ssh && echo "$1" >> /root/.ssh/authorized_keys2',
                key,
            )

    def fill(self, *names: str) -> None:
        """Put a little data into the sources of hosts."""
        for name in names:
            on(self.lab.hosts[name], "mkdir -p /srv/data && cp -r /etc /srv/data/ && date > /srv/data/stamp")

    def add(self, name: str, *words: str, host: str = "") -> Any:
        """`saveos hosts add`, with the host's key scanned; `name` may differ from the lab's."""
        address = self.lab.hosts[host or name].ip
        return self.controller.command("hosts", "add", name, "--address", address, "--scan", "--yes", *words)

    def by_hand(self, playbook: str, *words: str, code: int = 0, **extra: Any) -> Play:
        """Run a playbook with the controller as inventory, a token and an SSH key; `extra` are variables."""
        source = self.lab.dir / "fleet.controller.yml"
        source.write_text("plugin: saveos.fleet.controller\n")
        controller = self.controller
        bare = {
            name: value for name, value in os.environ.items() if not name.startswith(("SAVEOS_", "ANSIBLE_"))
        }
        here = {"SAVEOS_URL": controller.url, "SAVEOS_TOKEN": controller.token, "ANSIBLE_NOCOLOR": "1"}
        here["SAVEOS_CA"] = str(controller.home / "tls" / "ca.pem")
        here["ANSIBLE_SSH_ARGS"] = "-o ControlMaster=no"  # a connection that is kept open asks for no key again
        program = [Path(sys.executable).with_name("ansible-playbook"), "-i", source]
        program += ["--private-key", self.lab.key, "-e", json.dumps(extra)]
        ran = subprocess.run(
            [*program, ROOT / "playbooks" / f"{playbook}.yml", *words],
            env=bare | here,
            cwd=ROOT,
            text=True,
            capture_output=True,
            timeout=300,
            check=False,
        )
        assert ran.returncode == code, f"{ran.stdout[-6000:]}\n{ran.stderr[-2000:]}"
        return Play(ran.stdout + ran.stderr, recap(ran.stdout))

    def error(self, job: dict[str, Any], name: str) -> str:
        """Return what a job says went wrong on a host."""
        return str(job["by_host"][name]["error"])


@contextlib.contextmanager
def start_fleet(
    suites: Mapping[str, str] = HOSTS, program: Sequence[str | Path] | None = None
) -> Iterator[Fleet]:
    """Start hosts and a controller that they can reach; add and provision them as a person would.

    `program` is what runs in place of `saveos serve`.
    """
    with Lab(suites) as lab:
        gateway = str(ipaddress.ip_interface(f"{lab.hosts['vault'].ip}/24").network[1])
        controller = Controller(lab.dir / "home", gateway, SAVEOS_OUTGOING_ALLOW="127.0.0.1")
        controller.program = list(program or controller.program)
        try:
            controller.start()
            fleet = Fleet(lab, controller)
            fleet.provision()
            yield fleet
        finally:
            controller.stop()
            end_leftovers(controller)


def processes_of(controller: Controller) -> dict[int, str]:
    """Return what the controller started and what that started, {pid: command line}; not itself."""
    own = controller.process.pid if controller.process else -1
    places = [str(controller.home).encode(), str(private_root(controller.home)).encode()]
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in (own, os.getpid()):
            continue
        try:
            words = (entry / "cmdline").read_bytes()
            known = words + (entry / "environ").read_bytes()
        except OSError:
            continue
        if words and any(place in known for place in places):
            found[int(entry.name)] = words.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


def end_leftovers(controller: Controller) -> None:
    """Kill what a failed test left, so that the next one starts clean."""
    for process in processes_of(controller):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def host_processes(host: Host) -> list[str]:
    """Return command lines of a host's processes that belong to a run; a heartbeat is none."""
    lines = on(host, "ps -eo pid,args --no-headers").splitlines()
    ours = [line for line in lines if any(word in line for word in ("/borg", "borgmatic", "saveos-agent"))]
    return [line for line in ours if "heartbeat" not in line]


# On the host, because each command that goes there costs more than many looks.
AT_REST = """
for n in $(seq 200); do
    busy=$(ps -eo args --no-headers | grep -E '[/]borg|[b]orgmatic|[s]aveos-agent' | grep -v heartbeat)
    [ -n "$busy" ] || exit 0
    sleep 0.3
done
echo "$busy"
"""


def at_rest(host: Host) -> None:
    """Wait until a host's run has ended, its pruning too: until then a start of its unit starts nothing new."""
    said = on(host, AT_REST, code=None)
    assert not said, f"{host.name} is not at rest: {said}"


class Census:
    """Counts borg clients on a host while a test runs: `most` is how many wrote at once."""

    SCRIPT = (
        "rm -f /run/census; while [ ! -e /run/census-end ]; do "
        "ps -eo ppid,args --no-headers | grep -c '[/]borg .*create' >> /run/census; sleep 0.2; done; "
        "rm -f /run/census-end"
    )

    def __init__(self, host: Host) -> None:
        self.host = host

    def __enter__(self) -> "Census":
        on(self.host, f"setsid sh -c '{self.SCRIPT.replace(chr(39), chr(34))}' </dev/null >/dev/null 2>&1 &")
        return self

    def __exit__(self, *_: object) -> None:
        on(self.host, "touch /run/census-end")

    @property
    def most(self) -> int:
        """Most borg clients seen at once."""
        return max((int(line) for line in on(self.host, "cat /run/census").split()), default=0)


def wait_for_borg(host: Host, seconds: float = 120) -> None:
    """Wait until a host's borg is writing an archive."""
    until(lambda: on(host, "pgrep -f '[/]borg .*create' || true"), seconds, f"a running borg on {host.name}")
    time.sleep(0.5)
