"""A lab of real hosts: podman containers with systemd (or without) and sshd, on a network and with keys of
their own.

`with Lab({"vault1": "bookworm", "bare1": "trixie"}) as lab:`: every lab has its own name, network, key folder
and
known_hosts, so labs of several runs live side by side. Faults are methods of a host; each returns its own undo.
`python lab.py up DIR NAME=SUITE[:nosystemd] …` starts one by hand and `python lab.py down DIR` ends it.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import ipaddress
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ENVIRONMENT = {**os.environ, "CONTAINERS_CONF": str(HERE / "image" / "containers.conf")}
# without SYS_ADMIN systemd silently skips the sandbox, and tests of hardened units would pass falsely
CAPABILITIES = "--cap-add=SYS_ADMIN,NET_ADMIN,NET_RAW,AUDIT_WRITE"
PROGRAMS = ("podman", "runc", "mmdebstrap", "iptables", "ssh-keygen")
BOOT_SECONDS = 30
Undo = Callable[[], object]


class LabError(Exception):
    """A lab that cannot be made; the sentence says what to install."""


def unfit() -> str:
    """Why no lab can be had on this machine, or an empty string."""
    if os.geteuid() != 0:
        return "lab hosts need root"
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing:
        return (
            f"lab hosts need {', '.join(missing)}: apt-get install --no-install-recommends podman runc "
            "netavark iptables mmdebstrap"
        )
    return ""


def podman(*arguments: str, check: bool = True) -> str:
    """Standard output of a podman command; LabError with its words when it fails."""
    return _output("podman", *arguments, check=check)


def _output(*command: str, check: bool) -> str:
    done = subprocess.run(command, env=ENVIRONMENT, text=True, capture_output=True, check=False)
    if check and done.returncode:
        raise LabError(f"{' '.join(command[:2])}: {done.stderr.strip()}")
    return done.stdout.strip()


def image(suite: str) -> str:
    """Name of the image of a suite, built when it is not there."""
    done = subprocess.run(
        [str(HERE / "image" / "build.sh"), suite], env=ENVIRONMENT, text=True, capture_output=True, check=False
    )
    if done.returncode:
        raise LabError(f"the lab image {suite} cannot be built: {done.stderr.strip()[-500:]}")
    return done.stdout.split()[-1]


def make_room_for_watches() -> None:
    """Let more than the usual 18 systemd hosts run at once: each watches files, and all count as one root."""
    limit = Path("/proc/sys/fs/inotify/max_user_instances")
    with contextlib.suppress(OSError):  # not ours to set: then fewer hosts fit
        if int(limit.read_text()) < 1024:
            limit.write_text("1024")


class Host:
    """One lab host. `suite` may end in `:nosystemd`: then PID 1 is plain sleep and sshd was started by hand."""

    def __init__(self, lab: Lab, name: str, ip: str, suite: str) -> None:
        self.lab, self.name, self.ip = lab, name, ip
        self.suite, _, flag = suite.partition(":")
        self.systemd = flag != "nosystemd"
        self.container = f"{lab.id}-{name}"
        # fixed, so that a restarted host keeps its entry in others' ARP tables
        self.mac = "02:00:" + ":".join(f"{int(octet):02x}" for octet in ip.split("."))

    def start(self, extra: tuple[str, ...] = (), *, keyless: bool = False) -> None:
        """Create the container and its first boot. With `keyless` it lets nobody in, not even the lab."""
        key = () if keyless else ("-v", f"{self.lab.key}.pub:/root/.ssh/authorized_keys:ro")
        boot = ["--systemd=always"] if self.systemd else ["--systemd=false", "--stop-signal=SIGKILL"]
        command = [] if self.systemd else ["sleep", "infinity"]
        network = f"{self.lab.id}:ip={self.ip},mac={self.mac}"
        podman(
            "run", "-d", "--name", self.container, "--hostname", self.name, "--network", network, (
                ""
                "--cgroupns=private"
            ),
            CAPABILITIES, "--label", f"saveos.lab={self.lab.id}", *boot, *extra,
            *key, image(self.suite), *command,
        )  # fmt: skip
        self.settle()

    def settle(self) -> None:
        """After a start without systemd: what init would have started."""
        if not self.systemd:
            self.exec("sh", "-c", "ssh-keygen -qA; mkdir -p /run/sshd; service ssh start")

    @property
    def is_running(self) -> bool:
        """Whether the container is there and runs."""
        state = podman("inspect", "-f", "{{.State.Status}}", self.container, check=False)
        return state.splitlines()[-1:] == ["running"]

    @property
    def pid(self) -> str:
        """PID of the host's init, seen from outside."""
        return podman("inspect", "-f", "{{.State.Pid}}", self.container)

    @functools.cached_property
    def inside(self) -> tuple[str, ...]:
        """The words before a command that runs on the host.

        What podman would run itself: it takes a third of podman's CPU, and tests do it thousands of times.
        """
        return ("runc", "exec", podman("inspect", "-f", "{{.Id}}", self.container))

    def exec(self, *command: str, check: bool = True) -> str:
        """Run a command on the host; needs no network there."""
        return _output(*self.inside, *command, check=check)

    def sh(self, script: str, check: bool = True) -> str:
        """Run a shell script on the host."""
        return self.exec("sh", "-ec", script, check=check)

    def host_key(self) -> str:
        """The host's SSH host key, type and base64."""
        return " ".join(self.exec("cat", "/etc/ssh/ssh_host_ed25519_key.pub").split()[:2])

    def wait_ssh(self) -> None:
        """Until sshd answers."""
        end = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < end:
            try:
                with socket.create_connection((self.ip, 22), 1) as connection:
                    connection.settimeout(2)
                    if connection.recv(4).startswith(b"SSH"):
                        return
            except OSError:
                pass
            time.sleep(0.1)
        raise LabError(f"{self.name} does not answer on SSH after {BOOT_SECONDS} s")

    def _in_network(self, *command: str) -> None:
        subprocess.run(["nsenter", "-t", self.pid, "-n", *command], check=True, text=True, capture_output=True)

    def _filter(self, rule: str) -> Undo:
        chain = (
            "add table inet lab; add chain inet lab in { type filter hook input priority 0; }; add rule "
            "inet lab in "
        )
        self._in_network("nft", chain + rule)
        return lambda: self._in_network("nft", "delete", "table", "inet", "lab")

    def freeze(self) -> Undo:
        """Stop every process, as a hung hypervisor does."""
        for attempt in range(10):  # runc gives up too early on a busy machine
            try:
                podman("pause", self.container)
                break
            except LabError:
                if attempt == 9:
                    raise
                time.sleep(0.3)
        return lambda: podman("unpause", self.container)

    def crash(self) -> Undo:
        """Cut the power; undo boots it again."""
        podman("kill", "-s", "KILL", self.container)
        return self.boot

    def boot(self) -> None:
        """Start a host that was crashed, and wait for its sshd."""
        podman("start", self.container)
        self.settle()
        self.wait_ssh()

    def unplug(self) -> Undo:
        """Pull the network cable."""
        podman("network", "disconnect", self.lab.id, self.container)
        return lambda: podman(
            "network", "connect", "--ip", self.ip, "--mac-address", self.mac, self.lab.id, self.container
        )

    def block(self, other: Host) -> Undo:
        """Drop everything that comes from one other host."""
        return self._filter(f"ip saddr {other.ip} drop")

    def lossy(self, percent: int) -> Undo:
        """Lose so many of 100 packets that come in."""
        return self._filter(f"numgen random mod 100 < {percent} drop")

    def slow(self, rate: str = "1mbit") -> Undo:
        """Narrow the link (netem is not in every kernel, tbf is)."""
        shape = ("tbf", "rate", rate, "burst", "16kb", "latency", "400ms")
        self._in_network("tc", "qdisc", "add", "dev", "eth0", "root", *shape)
        return lambda: self._in_network("tc", "qdisc", "del", "dev", "eth0", "root")

    def fill(self, path: str) -> Undo:
        """Fill the file system of a directory; meant for one on a small tmpfs (see Lab's `tmpfs`)."""
        self.sh(f"cat /dev/zero > {path}/.filler 2>/dev/null || true")
        return lambda: self.exec("rm", "-f", f"{path}/.filler")


class Lab:
    """Several hosts on one network.

    suites: name → `bookworm`, `trixie`, each also as `…:nosystemd`. tmpfs: name → (path, size such as 64m).
    options: more options of `podman run`, for every host.
    """

    def __init__(
        self,
        suites: Mapping[str, str],
        tmpfs: Mapping[str, tuple[str, str]] | None = None,
        directory: Path | None = None,
        options: tuple[str, ...] = (),
    ) -> None:
        if reason := unfit():
            raise LabError(reason)
        self.id = f"saveos{uuid.uuid4().hex[:6]}"
        self.dir = directory or Path(tempfile.mkdtemp(prefix=f"{self.id}-"))
        self.dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.key = self.dir / "id_ed25519"
        self.known_hosts = self.dir / "known_hosts"
        self.hosts: dict[str, Host] = {}
        self._note()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True)
        make_room_for_watches()
        for suite in {suite.partition(":")[0] for suite in suites.values()}:
            image(suite)
        try:
            network = self._make_network()
            for number, (name, suite) in enumerate(suites.items()):
                host = self.hosts[name] = Host(self, name, str(network[10 + number]), suite)
                place = (tmpfs or {}).get(name)
                small = ("--tmpfs", f"{place[0]}:rw,size={place[1]},mode=0755") if place else ()
                host.start((*small, *options))
            self._note()
            for host in self.hosts.values():
                host.wait_ssh()
            self.pin()
        except BaseException:
            self.close()
            raise

    @classmethod
    def attach(cls, directory: Path) -> Self:
        """Return the lab that another process started in a directory. Raises OSError, ValueError, KeyError."""
        told = json.loads((directory / "lab.json").read_text())
        lab = cls.__new__(cls)
        lab.id, lab.dir = told["id"], directory
        lab.key, lab.known_hosts = directory / "id_ed25519", directory / "known_hosts"
        lab.hosts = {name: Host(lab, name, **facts) for name, facts in told["hosts"].items()}
        return lab

    def _note(self) -> None:
        """Write down what `attach` and `lab.py down` need."""
        hosts = {
            name: {"ip": host.ip, "suite": host.suite + ("" if host.systemd else ":nosystemd")}
            for name, host in self.hosts.items()
        }
        (self.dir / "lab.json").write_text(json.dumps({"id": self.id, "hosts": hosts}))

    def _make_network(self) -> ipaddress.IPv4Network:
        with Path("/tmp/.saveos-lab.lock").open("w") as lock:  # two runs must not be given one subnet
            fcntl.flock(lock, fcntl.LOCK_EX)
            podman("network", "create", "--label", f"saveos.lab={self.id}", self.id)
        return ipaddress.IPv4Network(
            podman("network", "inspect", self.id, "--format", "{{(index .Subnets 0).Subnet}}")
        )

    def add(self, name: str, suite: str) -> Host:
        """Start one more host, on which nobody prepared anything: it lets nobody in."""
        last = max(ipaddress.IPv4Address(host.ip) for host in self.hosts.values())
        host = self.hosts[name] = Host(self, name, str(last + 1), suite)
        host.start(keyless=True)
        host.wait_ssh()
        self.pin()
        return host

    def drop(self, name: str) -> None:
        """End one host for good."""
        podman("rm", "-f", "-t", "0", self.hosts.pop(name).container, check=False)

    def pin(self) -> None:
        """Write known_hosts with each host's key, read from inside: nothing is trusted at first sight."""
        self.known_hosts.write_text("".join(f"{host.ip} {host.host_key()}\n" for host in self.hosts.values()))

    def host_variables(self, name: str) -> dict[str, str]:
        """Connection variables of a host for an inventory."""
        return {
            "ansible_host": self.hosts[name].ip,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self.key),
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={self.known_hosts} -o GlobalKnownHostsFile=none "
            f"-o ControlPath={self.dir}/cp-%C",
        }

    def inventory(
        self,
        storage_servers: tuple[str, ...] = ("vault1",),
        agents: tuple[str, ...] | None = None,
        variables: Mapping[str, object] | None = None,
    ) -> Path:
        """Write an inventory file: agents default to every host that is no storage server."""
        names = (
            agents if agents is not None else tuple(name for name in self.hosts if name not in storage_servers)
        )
        content = {
            "storage_servers": {"hosts": {name: self.host_variables(name) for name in storage_servers}},
            "agents": {"hosts": {name: self.host_variables(name) for name in names}},
            "all": {"vars": dict(variables or {})},
        }
        file = self.dir / "hosts.json"
        file.write_text(json.dumps(content, indent=1))
        return file

    def play(
        self, playbook: str, *arguments: str, check: bool = True, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run one of our playbooks against the inventory written last; AssertionError with its output when it
        fails."""
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(self.dir / "hosts.json")]
        done = subprocess.run(
            [*command, str(ROOT / "playbooks" / playbook), *arguments],
            cwd=ROOT,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_NOCOLOR": "1",
                **(environment or {}),
            },
            text=True,
            capture_output=True,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{playbook} ended {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def close(self) -> None:
        """End hosts and network, and remove the folder."""
        remove(self.id)
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def remove(lab_id: str) -> None:
    """End every host and the network of a lab, whoever started it."""
    containers = podman("ps", "-aq", "--filter", f"label=saveos.lab={lab_id}", check=False).split()
    if containers:
        podman("rm", "-f", "-t", "0", *containers, check=False)
    podman("network", "rm", "-f", lab_id, check=False)


def recap(output: str) -> dict[str, dict[str, int]]:
    """Ansible's recap: host → {ok, changed, unreachable, failed, …}."""
    hosts: dict[str, dict[str, int]] = {}
    for line in output.partition("PLAY RECAP")[2].splitlines()[1:]:
        name, found, counts = line.partition(":")
        if found and "ok=" in counts:
            hosts[name.strip()] = {
                key: int(value) for key, value in (pair.split("=") for pair in counts.split())
            }
    return hosts


def main(arguments: list[str]) -> int:
    match arguments:
        case ["up", directory, *hosts] if hosts:
            lab = Lab(dict(host.split("=", 1) for host in hosts), directory=Path(directory).resolve())
            print(lab.inventory())
        case ["down", directory] if (Path(directory) / "lab.json").is_file():
            remove(json.loads((Path(directory) / "lab.json").read_text())["id"])
            shutil.rmtree(directory)
        case ["down", directory]:
            print(f"there is no lab in {directory}", file=sys.stderr)
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except LabError as error:
        print(f"lab.py: {error}", file=sys.stderr)
        sys.exit(1)
