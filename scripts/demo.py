#!/usr/bin/env python3
"""A demonstration on this machine: four hosts in containers, looked after by a controller of their own.

`demo.py up` starts it and prints the address and the log-in; where it runs already it changes nothing and
prints the same. `demo.py down` ends all of it. `--directory DIR` keeps it elsewhere than in .build/demo.
Hosts are those of tests/lab. Needs root, podman and the virtual environment; scripts/setup.sh sees to them.
"""

import argparse
import contextlib
import fcntl
import ipaddress
import json
import os
import secrets
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/lab"))  # the lab's modules name each other without a package

import httpx  # noqa: E402
from lab import Host, Lab, LabError, remove, unfit  # noqa: E402
from saveos.runner.directory import private_root  # noqa: E402
from serving import Controller, free_port  # noqa: E402

VAULT = "vault"
# name → (what the container is made of, group, what it looks like it does)
HOSTS = {
    VAULT: ("bookworm", "", "storage server"),
    "web": ("bookworm", "web", "Debian 12"),
    "db": ("trixie", "data", "Debian 13"),
    "old": ("bookworm:nosystemd", "web", "Debian 12 without systemd: cron starts its backups"),
}
AGENTS = [name for name in HOSTS if name != VAULT]
PORT = 8443
LET_IN = 'umask 077; mkdir -p /root/.ssh && echo "$1" >> /root/.ssh/authorized_keys2'
FILL = (
    "mkdir -p /srv/data && cp -r /etc /srv/data/ && cp -r /usr/share/doc /srv/data/ && date > /srv/data/stamp"
)
POLICY = {
    "name": "demo",
    "is_default": True,
    "sources": ["/etc", "/srv/data"],
    "excludes": ["/srv/data/**/*.tmp"],
    "schedule": "0 * * * *",
    "jitter_minutes": 10,
    "grace_minutes": 60,
}


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, flush=True)


class Demo(Controller):
    """The demonstration's controller: its port and password outlive the process that started it."""

    def __init__(
        self, directory: Path, address: str, port: int = 0, password: str = "", token: str = ""
    ) -> None:
        super().__init__(directory / "home", address)
        self.url = f"https://{address}:{port or _port(address)}"
        self.environment["SAVEOS_LISTEN"] = self.url.removeprefix("https://")
        self.chosen, self.token = password or secrets.token_urlsafe(9), token

    def own_password(self) -> str:
        """Replace the one-time password by one that is printed whenever somebody asks."""
        once = (self.home / "admin-password").read_text().strip()
        address = f"{self.url}/api/v1"
        with httpx.Client(
            base_url=address, headers={"Origin": self.url}, trust_env=False, verify=self.trust
        ) as person:
            person.post("/auth/login", json={"name": "admin", "password": once}).raise_for_status()
            body = {"current": once, "new": self.chosen}
            person.post("/auth/password", json=body).raise_for_status()
        self.password = self.chosen
        return self.chosen

    def keep_settings(self) -> None:
        """Store where it listens in its home, where `saveos doctor` looks for it."""
        kept = self.home / "environment"
        kept.touch(mode=0o600)
        kept.write_text(f'SAVEOS_LISTEN="{self.environment["SAVEOS_LISTEN"]}"\n')

    def is_up(self) -> bool:
        """Whether it answers, whoever started it."""
        with contextlib.suppress(httpx.TransportError, OSError):
            return httpx.get(f"{self.url}/health", timeout=5, trust_env=False, verify=self.trust).is_success
        return False


def _port(address: str) -> int:
    """Return the usual port, or a free one where it is taken."""
    with contextlib.suppress(OSError), socket.create_server((address, PORT)):
        return PORT
    return free_port(address)


def up(directory: Path) -> None:
    """Start the demonstration, or look that it runs, and print how to reach it."""
    if reason := unfit():
        raise LabError(f"{reason}. `sh scripts/setup.sh demo` does it on Debian")
    if not (directory / "demo.json").exists():
        _down(directory)  # what an interrupted start has left
        try:
            _make(directory)
        except BaseException:
            _keep_log(directory)
            _down(directory)
            raise
    else:
        _wake(directory)
    _report(directory)


def _make(directory: Path) -> None:
    began = time.monotonic()
    say("Starting four hosts (the first time their images are built, which takes some minutes)")
    lab = Lab({name: facts[0] for name, facts in HOSTS.items()}, directory=directory)
    gateway = str(ipaddress.ip_interface(f"{lab.hosts[VAULT].ip}/24").network[1])
    demo = Demo(directory, gateway)
    say("Starting the controller")
    demo.start()
    demo.keep_settings()
    demo.post("/policies", POLICY, 201)
    for group in sorted({facts[1] for facts in HOSTS.values() if facts[1]}):
        demo.post("/groups", {"name": group}, 201)
    for name, host in lab.hosts.items():
        _prepare(host, demo.ssh_key())
        demo.post("/hosts", _host(name, host), 201)
    say(f"Provisioning {VAULT} as storage server, {', '.join(AGENTS)} as agents")
    demo.done("provision", *AGENTS, seconds=900)
    say("Backing them up")
    demo.done("backup", *AGENTS, seconds=600)
    facts = {
        "address": gateway,
        "port": int(demo.url.rpartition(":")[2]),
        "password": demo.chosen,
        "token": demo.token,
    }
    kept = directory / "demo.json"
    kept.touch(mode=0o600)
    kept.write_text(json.dumps(facts))
    say(f"Ready after {time.monotonic() - began:.0f} s.")


def _host(name: str, host: Host) -> dict[str, Any]:
    """Return a host as the API takes it; its SSH host key is read from inside, not trusted at first sight."""
    group = HOSTS[name][1]
    roles = {"is_agent": name != VAULT, "is_storage_server": name == VAULT}
    known = {"address": host.ip, "ssh_host_keys": [host.host_key()]}
    return {"name": name, "groups": [group] if group else [], "tags": ["demo"]} | known | roles


def _prepare(host: Host, key: str) -> None:
    """Let the controller in, as an administrator would, and put something there to back up."""
    host.exec("sh", "-c", LET_IN, "sh", key)
    if host.name != VAULT:
        host.sh(FILL)
    _start_cron(host)


def _start_cron(host: Host) -> None:
    if not host.systemd:
        host.sh("service cron start >/dev/null", check=False)


def _wake(directory: Path) -> None:
    """Start again what a reboot has ended; nothing where all of it runs."""
    lab = Lab.attach(directory)
    asleep = [host for host in lab.hosts.values() if not host.is_running]
    for host in asleep:
        say(f"Starting {host.name} again")
        host.boot()
        _start_cron(host)
    demo = Demo(directory, **json.loads((directory / "demo.json").read_text()))
    if not demo.is_up():
        say("Starting the controller again")
        demo.start()


def _report(directory: Path) -> None:
    facts = json.loads((directory / "demo.json").read_text())
    home = directory / "home"
    print()
    print(f"Dashboard  https://{facts['address']}:{facts['port']}")
    print(f"Log in as  admin, password {facts['password']}")
    print(f"           The certificate is the demo's own: accept it, or trust {home / 'tls/ca.pem'}")
    for name, (_, group, what) in HOSTS.items():
        print(f"Host       {name}: {what}{f' (group {group})' if group else ''}")
    print(f"Command    SAVEOS_HOME={home} {Path(sys.executable).with_name('saveos')} hosts list")
    print("End it     make demo-down", flush=True)


def down(directory: Path) -> None:
    """End the controller and the hosts, and remove what they have kept."""
    say("The demo has ended; nothing of it is left." if _down(directory) else "There is no demo to end.")


def _down(directory: Path) -> bool:
    home, shm = directory / "home", None
    if home.is_dir():
        shm = private_root(home)
        _end(_processes(home, shm))
    there = directory.exists()
    with contextlib.suppress(OSError, ValueError, KeyError):
        remove(json.loads((directory / "lab.json").read_text())["id"])
    for each in (shm, directory):
        if each:
            shutil.rmtree(each, ignore_errors=True)
    return there


def _processes(home: Path, private: Path) -> list[int]:
    """Return the controller and what its jobs run; a shell that only names the home is somebody's own."""
    return [
        process
        for process, words, known in _every_process()
        if (b"SAVEOS_HOME=" + bytes(home) in known.split(b"\0") and b"serve" in words.split(b"\0"))
        or bytes(private) + b"/" in words + known
    ]


def _every_process() -> Iterator[tuple[int, bytes, bytes]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                yield int(entry.name), (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()


def _end(processes: list[int], seconds: float = 20) -> None:
    """Ask processes to end, wait, and kill those that have not."""
    for number, limit in ((signal.SIGTERM, seconds), (signal.SIGKILL, 2)):
        end = time.monotonic() + limit
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)
        while processes and time.monotonic() < end:
            time.sleep(0.1)
            processes = [process for process in processes if _lives(process)]


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _keep_log(directory: Path) -> None:
    """Save the controller's log of a start that failed."""
    with contextlib.suppress(OSError):
        shutil.copy(directory / "home.log", directory.with_name(f"{directory.name}.log"))


def main() -> int:
    """Do what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(description="A fleet in containers to look at.")
    parser.add_argument("command", choices=("up", "down"))
    parser.add_argument("--directory", type=Path, default=ROOT / ".build/demo", help="where it lives")
    arguments = parser.parse_args()
    directory = arguments.directory.resolve()
    directory.parent.mkdir(parents=True, exist_ok=True)
    with directory.with_name(f"{directory.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("demo: another `make demo` or `make demo-down` is at work: wait for it.", file=sys.stderr)
            return 1
        try:
            (up if arguments.command == "up" else down)(directory)
        except (LabError, AssertionError, OSError, httpx.HTTPError) as error:
            print(f"demo: {error or type(error).__name__}.", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
