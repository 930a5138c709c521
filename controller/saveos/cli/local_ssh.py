"""What must exist on this machine before the controller's first SSH connection to it.

From then on this machine is a host as any other; only these steps need no SSH: sshd runs, root may
log in by key from 127.0.0.1, and the controller's key is in root's authorized_keys.
"""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from saveos.cli.errors import CommandError
from saveos.cli.installation import is_systemd

ADDRESS = "127.0.0.1"
SSHD = "/usr/sbin/sshd"


def authorized_keys() -> Path:
    """Return root's authorized_keys."""
    return Path.home() / ".ssh" / "authorized_keys"


def prepare(public_key: str, mark: str) -> tuple[int, list[str]]:
    """Make root on this machine reachable with `public_key`; return sshd's port and its host keys.

    Raises CommandError when sshd is missing, does not start, or is configured to refuse root.
    """
    if not Path(SSHD).exists():
        raise CommandError("There is no SSH server on this machine: apt-get install openssh-server")
    _make_host_keys()
    options = _sshd_options()
    _refuse_locked_root(options)
    number = int(options["port"][0])
    if not answers(number):
        _start(number)
    _authorize(public_key, mark)
    keys = [" ".join(Path(f"{name}.pub").read_text().split()[:2]) for name in options["hostkey"]]
    return number, sorted(keys)


def port() -> int:
    """Return the port that sshd is configured for."""
    return int(_sshd_options()["port"][0])


def answers(number: int) -> bool:
    """Whether an SSH server answers on this machine's port."""
    try:
        with socket.create_connection((ADDRESS, number), timeout=3) as connection:
            return connection.recv(8).startswith(b"SSH-2.0")
    except OSError:
        return False


def remove_key(mark: str) -> bool:
    """Remove the lines with this mark from root's authorized_keys; return whether there were any."""
    path = authorized_keys()
    lines = path.read_text().splitlines() if path.exists() else []
    kept = [line for line in lines if not line.endswith(f" {mark}")]
    if kept != lines:
        _replace(path, kept)
    return kept != lines


def _authorize(public_key: str, mark: str) -> None:
    path = authorized_keys()
    wanted = f'from="127.0.0.1,::1" {" ".join(public_key.split()[:2])} {mark}'
    lines = path.read_text().splitlines() if path.exists() else []
    if wanted in lines:
        return
    _replace(path, [*(line for line in lines if not line.endswith(f" {mark}")), wanted])


def _replace(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    partial = path.with_name(".authorized_keys.saveos")
    partial.write_text("".join(f"{line}\n" for line in lines))
    partial.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o600)
    partial.replace(path)


def _make_host_keys() -> None:
    if not list(Path("/etc/ssh").glob("ssh_host_*_key")):
        subprocess.run(["ssh-keygen", "-A"], check=True, capture_output=True)


def _sshd_options() -> dict[str, list[str]]:
    """Return sshd's settings for root from this machine, keywords in lower case."""
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd -T wants it, and only its service makes it
    command = [SSHD, "-T", "-C", f"user=root,host=localhost,addr={ADDRESS}"]
    answer = subprocess.run(command, check=False, capture_output=True, text=True)
    if answer.returncode:
        raise CommandError(f"The SSH server's configuration is broken: {answer.stderr.strip()}")
    options: dict[str, list[str]] = {}
    for line in answer.stdout.splitlines():
        keyword, _, value = line.partition(" ")
        options.setdefault(keyword, []).append(value)
    # Host keys that are configured and do not exist are only warned about by sshd.
    options["hostkey"] = [name for name in options.get("hostkey", []) if Path(f"{name}.pub").exists()]
    return options


def _refuse_locked_root(options: dict[str, list[str]]) -> None:
    problems = []
    if options["permitrootlogin"][0] in ("no", "forced-commands-only"):
        problems.append("PermitRootLogin must be prohibit-password")
    if options["pubkeyauthentication"][0] != "yes":
        problems.append("PubkeyAuthentication must be yes")
    if options.get("allowusers") and not any("root" in value.split() for value in options["allowusers"]):
        problems.append("AllowUsers must name root")
    if any("root" in value.split() for value in options.get("denyusers", [])):
        problems.append("DenyUsers must not name root")
    if problems:
        raise CommandError(
            f"sshd refuses root's key from {ADDRESS}: {'; '.join(problems)}. Add a block "
            f"`Match Address {ADDRESS}` to /etc/ssh/sshd_config and reload sshd."
        )


def _start(number: int) -> None:
    if is_systemd():
        command = ["systemctl", "enable", "--now", "ssh"]
    elif shutil.which("service") and Path("/etc/init.d/ssh").exists():
        command = ["service", "ssh", "start"]
    else:
        command = [SSHD]
    environment = os.environ | {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    answer = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    deadline = time.monotonic() + 10
    while not answers(number):
        if time.monotonic() > deadline:
            reason = (answer.stderr or answer.stdout).strip() or "it does not answer"
            raise CommandError(f"The SSH server did not start with `{' '.join(command)}`: {reason}")
        time.sleep(0.1)
