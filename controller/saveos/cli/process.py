"""Start and stop the controller of an installation: a systemd unit, or a keeper in the background."""

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from saveos.cli.common import FLEET, PACKAGE
from saveos.cli.errors import CommandError
from saveos.cli.installation import Installation, is_systemd, write_private

UNITS = Path("/etc/systemd/system")
START_SECONDS = 60.0
STOP_SECONDS = 30.0
UNIT = """\
# Made by `saveos up` for {home}
[Unit]
Description=SaveOS controller ({home})
After=network-online.target
Wants=network-online.target

[Service]
Environment="SAVEOS_HOME={home}"
EnvironmentFile=-{environment}
ExecStart={program} serve
Restart=always
RestartSec=1
TimeoutStopSec={stop:.0f}
UMask=0077

[Install]
WantedBy=multi-user.target
"""


def program() -> str:
    """Return the path of the command `saveos` of this virtual environment."""
    return str(Path(sys.executable).with_name("saveos"))


def fingerprint(installation: Installation) -> str:
    """Return a hash of the code and settings, so that a change of either restarts the controller."""
    digest = hashlib.sha256(f"{program()}\n".encode())
    with contextlib.suppress(FileNotFoundError):
        digest.update(installation.environment.read_bytes())
    for root in (PACKAGE, FLEET / "templates"):
        for path in sorted(root.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and "cli" not in path.parts:
                status = path.stat()
                digest.update(f"{path} {status.st_mtime_ns} {status.st_size}\n".encode())
    return digest.hexdigest()


def start(installation: Installation, url: str) -> bool:
    """Start the controller, or restart it when its code or settings changed; wait until it answers.

    Returns whether it was (re)started. Raises CommandError when it does not come up.
    """
    wanted = fingerprint(installation)
    state = running(installation)
    if state and state.get("fingerprint") == wanted and healthy(url):
        return False
    if state:
        stop(installation)
    refuse_used_port(url)
    if is_systemd():
        _start_unit(installation)
        pid = _unit_pid(installation)
    else:
        pid = _start_keeper(installation)
    record = {"pid": pid, "started": start_time(pid), "fingerprint": wanted, "url": url}
    write_private(installation.process, json.dumps(record))
    _wait_healthy(installation, url, pid)
    return True


def stop(installation: Installation) -> bool:
    """Stop the controller and wait until it has ended; return whether it ran."""
    state = running(installation)
    if is_systemd() and (UNITS / installation.unit).exists():
        subprocess.run(["systemctl", "disable", "--quiet", "--now", installation.unit], check=False)
    elif state:
        end_process(state["pid"])
    installation.process.unlink(missing_ok=True)
    return state is not None


def running(installation: Installation) -> dict[str, object] | None:
    """Return what is known of the running controller, or None when it does not run."""
    try:
        state: dict[str, object] = json.loads(installation.process.read_text())
    except (OSError, ValueError):
        return None
    if is_systemd() and (UNITS / installation.unit).exists():
        return state if _unit_pid(installation) else None
    return state if start_time(int(str(state["pid"]))) == state["started"] else None


def healthy(url: str) -> bool:
    """Whether the controller answers its probe."""
    import httpx

    from saveos.cli.client import trust

    try:
        return httpx.get(f"{url}/health", timeout=2, trust_env=False, verify=trust(url)).status_code == 200
    except httpx.HTTPError:
        return False


def refuse_used_port(url: str) -> None:
    """Raise CommandError when another program has the port of `url`."""
    host, _, port = url.rpartition("//")[2].rpartition(":")
    address = (host.strip("[]"), int(port))
    try:
        with socket.create_server(address, family=socket.AF_INET6 if ":" in address[0] else socket.AF_INET):
            return
    except OSError as error:
        raise CommandError(port_sentence(address, error)) from error


def port_sentence(address: tuple[str, int], error: OSError) -> str:
    """Return what to do when an address cannot be listened on."""
    import errno

    host, port = address
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {port} on {host} is in use by another program. Stop it (see `ss -ltnp`), "
            f"or choose another: SAVEOS_LISTEN={host}:{port + 1} make up"
        )
    if error.errno == errno.EACCES:
        return f"Port {port} needs root: choose one above 1023 with SAVEOS_LISTEN={host}:8000."
    return f"Cannot listen on {host}:{port}: {error.strerror}. Set SAVEOS_LISTEN to an address of this machine."


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None when there is none (or a zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def end_process(pid: object, seconds: float = STOP_SECONDS) -> None:
    """Ask a process to end, and kill it when it does not in time."""
    number = int(str(pid))
    born = start_time(number)
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal_number)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if born is None or start_time(number) != born:
                return
            time.sleep(0.05)


def _start_unit(installation: Installation) -> None:
    text = UNIT.format(
        home=installation.home, environment=installation.environment, program=program(), stop=STOP_SECONDS
    )
    (UNITS / installation.unit).write_text(text)
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    subprocess.run(["systemctl", "enable", "--quiet", installation.unit], check=True)
    subprocess.run(["systemctl", "restart", installation.unit], check=True)


def _unit_pid(installation: Installation) -> int:
    command = ["systemctl", "show", "--value", "--property=MainPID", installation.unit]
    output = subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()
    return int(output or 0)


def _start_keeper(installation: Installation) -> int:
    keeper = Path(__file__).with_name("keeper.py")
    command = [sys.executable, "-I", "-S", str(keeper), str(installation.home), program(), "serve"]
    descriptor = os.open(installation.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "ab") as log:
        keeping = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
        )
    return keeping.pid


def _wait_healthy(installation: Installation, url: str, pid: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if healthy(url):
            return
        time.sleep(0.2)
    stop(installation)
    where = f"journalctl -u {installation.unit}" if is_systemd() else f"tail {installation.log}"
    raise CommandError(f"The controller did not start within {START_SECONDS:.0f} s: see `{where}`.")
