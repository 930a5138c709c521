"""The private directory of one play: fresh, 0700, on tmpfs, removed by whoever sees the play end.

Every value is tagged unsafe, because Ansible evaluates templates wherever a string comes from;
secrets are vault-encrypted with a password that lives for this play only and goes through a pipe.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saveos.core.security import vault_encrypt

SHM = Path("/dev/shm")  # noqa: S108 - checked below: ours, 0700, no link
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Target:
    """One host as Ansible sees it. `variables` are plain, `secrets` are vault-encrypted leaf by leaf."""

    name: str
    id: uuid.UUID
    groups: tuple[str, ...]
    address: str = "127.0.0.1"
    port: int = 22
    user: str = "root"
    connection: str = "ssh"
    host_keys: tuple[str, ...] = ()
    variables: dict[str, Any] = field(default_factory=dict)
    secrets: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Spec:
    """One play of one job attempt.

    `timeout`, `lease` (longest silence of the worker) and `grace` (from SIGTERM to SIGKILL) are
    seconds. `phase` is "main", or "stop" for the play that ends units after a cancel. `first_event`
    is the number of the job's last stored event.
    """

    job_id: uuid.UUID
    attempt: int
    playbook: Path
    targets: tuple[Target, ...]
    fleet: Path
    phase: str = "main"
    check: bool = False
    timeout: float = 86400
    lease: float = 10
    grace: float = 3
    forks: int = 20
    first_event: int = 0
    verbosity: int = 0
    ssh_key: str = field(default="", repr=False)
    former_ssh_key: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        """Name of the play's directory and files."""
        return f"{self.job_id.hex}.{self.attempt}.{self.phase}"

    @property
    def mark(self) -> str:
        """Value of SAVEOS_ATTEMPT in the environment of every process of this attempt."""
        return f"{self.job_id}:{self.attempt}"


def private_root(home: Path) -> Path:
    """Return the directory that holds this installation's private directories, on tmpfs where possible."""
    digest = hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:12]
    if os.access(SHM, os.W_OK | os.X_OK):
        root = SHM / f"saveos-{digest}"
        try:
            root.mkdir(mode=0o700, exist_ok=True)
            found = root.lstat()
        except OSError:
            found = None
        # Everybody may write to /dev/shm: use only what is really ours.
        if found and stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077:
            return root
    root = home / "run" / "private"
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    return root


def build(spec: Spec, home: Path) -> tuple[Path, str]:
    """Write the play's directory; return it and the one-off vault password. Raises ValueError on a bad name."""
    directory = private_root(home) / spec.name
    shutil.rmtree(directory, ignore_errors=True)
    for each in (directory, directory / "env", directory / "home", directory / "cp", directory / "collections"):
        each.mkdir(mode=0o700)
    password = secrets.token_urlsafe(32)
    _write(directory / "hosts.json", json.dumps(_inventory(spec, directory, password)))
    _write(directory / "known_hosts", "".join(_known_hosts(spec.targets)))
    if spec.ssh_key:
        _write(directory / "ssh_key", spec.ssh_key.rstrip("\n") + "\n")
    if spec.former_ssh_key:
        _write(directory / "ssh_key_former", spec.former_ssh_key.rstrip("\n") + "\n")
    # Read from this file only: ansible-runner drops `settings=` when env files are suppressed.
    _write(
        directory / "env" / "settings",
        json.dumps({"pexpect_timeout": 1, "suppress_output_file": True, "suppress_ansible_output": True}),
    )
    _link_collection(directory / "collections", spec.fleet)
    return directory, password


def remove(directory: Path) -> None:
    """Remove a private directory; absent is fine."""
    shutil.rmtree(directory, ignore_errors=True)


def remove_root(home: Path) -> None:
    """Remove the installation's directory of private directories, unless a play is there."""
    try:
        private_root(home).rmdir()
    except OSError:
        pass


def environment(spec: Spec, directory: Path) -> dict[str, str]:
    """Return the whole environment of the play's processes: only where the bundle lies is inherited."""
    inherited = {name: os.environ[name] for name in ("SAVEOS_BUNDLE",) if name in os.environ}
    return inherited | {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(directory / "home"),
        "TMPDIR": str(directory / "home"),
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "SAVEOS_ATTEMPT": spec.mark,
        "SAVEOS_JOB_ID": str(spec.job_id),
        "ANSIBLE_CONFIG": str(spec.fleet / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(directory / "collections"),
        "ANSIBLE_ROLES_PATH": str(spec.fleet / "roles"),
        "ANSIBLE_HOME": str(directory / "home"),
        "ANSIBLE_LOCAL_TEMP": str(directory / "home"),
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(directory / "cp"),
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        "ANSIBLE_INJECT_FACT_VARS": "False",
        "ANSIBLE_PIPELINING": "True",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_SSH_ARGS": (
            "-F none -o ControlMaster=auto -o ControlPersist=60s -o BatchMode=yes -o IdentitiesOnly=yes "
            "-o ServerAliveInterval=2 -o ServerAliveCountMax=4"
        ),
    }


def command(spec: Spec) -> list[str]:
    """Return Ansible's arguments, without inventory and playbook."""
    arguments = ["--forks", str(max(1, min(spec.forks, len(spec.targets))))]
    if any(target.secrets for target in spec.targets):
        arguments.append("--ask-vault-pass")
    if spec.check:
        arguments += ["--check", "--diff"]
    return arguments


def _inventory(spec: Spec, directory: Path, password: str) -> dict[str, Any]:
    groups: dict[str, Any] = {}
    for target in spec.targets:
        for name in (target.name, *target.groups):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name for an inventory")
        for group in target.groups:
            groups.setdefault(group, {"hosts": {}})["hosts"][target.name] = {}
    former = directory / "ssh_key_former" if spec.former_ssh_key else None
    hosts = {target.name: _host(target, directory, password, former) for target in spec.targets}
    return {"all": {"hosts": hosts, "children": groups}}


def _host(target: Target, directory: Path, password: str, former: Path | None) -> dict[str, Any]:
    own: dict[str, Any] = {
        "ansible_host": target.address,
        "ansible_connection": target.connection,
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    if target.connection == "ssh":
        known = f'-o UserKnownHostsFile="{directory}/known_hosts" -o GlobalKnownHostsFile=/dev/null'
        own |= {
            "ansible_port": target.port,
            "ansible_user": target.user,
            "ansible_ssh_private_key_file": str(directory / "ssh_key"),
            "ansible_ssh_common_args": f"-o HostKeyAlias={target.id} -o StrictHostKeyChecking=yes {known}",
        }
    if target.connection == "ssh" and former:  # tried second: a host may not know the new one yet
        second = {f"ansible_{program}_extra_args" for program in ("ssh", "scp", "sftp")}
        own |= dict.fromkeys(second, f'-o IdentityFile="{former}"')
    plain = {key: _unsafe(value) for key, value in (target.variables | own).items()}
    return plain | {key: _sealed(value, password) for key, value in target.secrets.items()}


def _unsafe(value: Any) -> Any:
    if isinstance(value, str):
        return {"__ansible_unsafe": value}
    if isinstance(value, dict):
        return {key: _unsafe(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_unsafe(each) for each in value]
    return value


def _sealed(value: Any, password: str) -> Any:
    if isinstance(value, str):
        return {"__ansible_vault": vault_encrypt(value, password)}
    if isinstance(value, dict):
        return {key: _sealed(each, password) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_sealed(each, password) for each in value]
    return value


def _known_hosts(targets: tuple[Target, ...]) -> list[str]:
    return [f"{target.id} {' '.join(key.split()[:2])}\n" for target in targets for key in target.host_keys]


def _link_collection(collections: Path, fleet: Path) -> None:
    """Make `saveos.fleet.*` resolve to this very tree, in a checkout and in an installed wheel alike."""
    namespace = collections / "ansible_collections" / "saveos"
    namespace.mkdir(parents=True)
    (namespace / "fleet").symlink_to(fleet)


def _write(path: Path, content: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
