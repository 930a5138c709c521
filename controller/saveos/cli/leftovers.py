"""Marks that an installation leaves outside its home, and their removal.

All of them carry the home's path. An installation whose home was deleted without `saveos purge` is
found by them.
"""

import contextlib
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from saveos.cli import local_ssh, process
from saveos.cli.client import DEFAULT_HOME
from saveos.cli.installation import Installation, is_systemd
from saveos.runner.directory import private_root

CRON = Path("/etc/cron.d")
SHELL = "/opt/saveos/server/serve-borg"  # of the users that the role server makes
SYSTEM = 1000  # users below are no persons
OF_STORAGE = {".ssh", "repositories", "tenants"}  # what the role server makes in the storage's directory
IN_AGENT_FILE = re.compile(r"(/[A-Za-z0-9._/-]+)/agent/etc\b")
IN_UNIT = re.compile(r'^Environment="SAVEOS_HOME=(/[^"]+)"$', re.M)


def deleted() -> list[Installation]:
    """Return the installations that left marks on this machine and whose home was deleted."""
    homes = {*_from_processes(), *_from_units(), *_from_keys(), *_from_agents(), *_from_users()}
    found = [Installation(Path(home)) for home in sorted(homes)]
    return [installation for installation in found if not installation.marker.exists()]


def remove(installation: Installation) -> list[str]:
    """Remove an installation's marks outside its home; return what was removed, in words."""
    removed = []
    if _stop_processes(installation):
        removed.append("running processes")
    if _remove_units(installation):
        removed.append("systemd units")
    if local_ssh.remove_key(installation.key_mark):
        removed.append("line in root's authorized_keys")
    if _remove_cron(installation):
        removed.append("cron lines")
    if installation.instance and _remove_user(installation):
        removed.append(f"user {installation.named('saveos-borg')}")
    shutil.rmtree(private_root(installation.home), ignore_errors=True)
    return removed


def storage_users(installation: Installation) -> list[pwd.struct_passwd]:
    """Return the users that SaveOS made for the storage of this installation: its own, and its tenants'."""
    own = installation.named("saveos-borg")
    return [
        user
        for user in pwd.getpwall()
        if (user.pw_name == own or user.pw_name.startswith(f"{own}-"))
        and Path(user.pw_dir).is_relative_to(installation.storage)
        and user.pw_shell == SHELL
        and user.pw_uid < SYSTEM
    ]


def remove_storage(installation: Installation) -> list[str]:
    """Remove a storage directory without a repository, and its users once it is gone; return these.

    A directory that holds anything else stays, and so do its users: they own what is in it.
    """
    storage = installation.storage
    if storage.is_dir() and not storage.is_symlink():
        _remove_empty(storage)
    if os.path.lexists(storage):
        return []
    names = [user.pw_name for user in storage_users(installation)]
    return [name for name in names if _remove_storage_user(name)]


def _remove_empty(storage: Path) -> None:
    """Remove what the role made in a storage directory, where that is all it holds and no repository is."""
    keys = storage / ".ssh/authorized_keys"
    held = {path for name in OF_STORAGE for path in (storage / name).glob("*")} - {keys}
    if held or {path.name for path in storage.iterdir()} - OF_STORAGE:
        return
    keys.unlink(missing_ok=True)
    for path in (*(storage / name for name in OF_STORAGE), storage):
        with contextlib.suppress(OSError):  # it is not there, or a mount
            path.rmdir()


def _remove_storage_user(name: str) -> bool:
    """Remove a user; not one that a process runs as."""
    return subprocess.run(["userdel", name], check=False, capture_output=True).returncode == 0


def agent_files(installation: Installation) -> list[Path]:
    """Return the units and cron files of the agent and the guard on this machine, by their instance."""
    names = [installation.named(name) for name in ("saveos-backup", "saveos-heartbeat", "saveos-guard")]
    if installation.instance:  # and the guards of its tenants
        names.append(f"{installation.named('saveos-guard')}-*")
    units = [process.UNITS.glob(f"{name}.{kind}") for name in names for kind in ("timer", "service")]
    return [path for found in (*units, *(CRON.glob(name) for name in names)) for path in found]


def end_default_agent() -> None:
    """End what the agent of the usual places does now, such as a heartbeat that waits for its moment."""
    for pid, words in _command_lines():
        if "/etc/saveos" in words and any(word.endswith("/saveos-agent") for word in words):
            process.end_process(pid)


def _command_lines() -> Iterator[tuple[int, list[str]]]:
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit() and int(directory.name) != os.getpid():
            with contextlib.suppress(OSError):
                words = (directory / "cmdline").read_bytes().decode(errors="replace").split("\0")
                yield int(directory.name), words[:-1]


def _keeps(words: list[str]) -> str | None:
    """Return the home that a keeper's command line names."""
    for index, word in enumerate(words[:-2]):
        if word.endswith("/saveos/cli/keeper.py"):
            return words[index + 1]
    return None


def _from_processes() -> set[str]:
    return {home for _, words in _command_lines() if (home := _keeps(words))}


def _from_units() -> set[str]:
    found = set()
    for path in process.UNITS.glob("saveos-controller*.service"):
        found.update(IN_UNIT.findall(path.read_text()))
    return found


def _from_keys() -> set[str]:
    path = local_ssh.authorized_keys()
    text = path.read_text() if path.exists() else ""
    return set(re.findall(r" saveos-controller:(/\S+)$", text, re.M))


def _from_agents() -> set[str]:
    found = set()
    for path in (*CRON.glob("saveos-*"), *process.UNITS.glob("saveos-*")):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            found.update(IN_AGENT_FILE.findall(path.read_text()))
    return found


def _from_users() -> set[str]:
    users = (user for user in pwd.getpwall() if re.fullmatch(r"saveos-borg-[0-9a-f]{8}", user.pw_name))
    return {user.pw_dir.removesuffix("/storage") for user in users if user.pw_dir.endswith("/storage")}


def _stop_processes(installation: Installation) -> bool:
    """End the keeper, what it keeps, and agents that run from this home."""
    home, found = str(installation.home), False
    for pid, words in _command_lines():
        from_agent = any(word == f"{home}/agent/etc" or word.startswith(f"{home}/agent/") for word in words)
        if _keeps(words) == home or (installation.instance and from_agent):
            process.end_process(pid)
            found = True
    return found


def _remove_units(installation: Installation) -> bool:
    paths = [path for path in agent_files(installation) if path.parent == process.UNITS]
    if not installation.instance and Path("/etc/saveos/agent.json").exists():
        paths = []  # the default agent lives outside the home and goes on until it is purged
    unit = process.UNITS / installation.unit
    paths += [unit] if unit.exists() else []
    for path in paths:
        if is_systemd():
            subprocess.run(
                ["systemctl", "disable", "--quiet", "--now", path.name], check=False, capture_output=True
            )
        path.unlink(missing_ok=True)
    if paths and is_systemd():
        subprocess.run(["systemctl", "daemon-reload"], check=False)
    return bool(paths)


def _remove_cron(installation: Installation) -> bool:
    if not installation.instance and Path("/etc/saveos/agent.json").exists():
        return False
    paths = [path for path in agent_files(installation) if path.parent == CRON]
    for path in paths:
        path.unlink()
    return bool(paths)


def _remove_user(installation: Installation) -> bool:
    name = installation.named("saveos-borg")
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    if installation.storage.is_dir():  # repositories that are kept go to root
        for path in (installation.storage, *installation.storage.rglob("*")):
            shutil.chown(path, "root", "root")
    if shutil.which("setfacl"):
        for parent in filter(Path.exists, installation.home.parents):  # where the role let it pass through
            subprocess.run(["setfacl", "-x", f"u:{name}", parent], check=False, capture_output=True)
    tenants = [
        user.pw_name for user in pwd.getpwall() if user.pw_dir.startswith(f"{installation.storage}/tenants/")
    ]
    for each in (name, *tenants):
        subprocess.run(["userdel", "--force", each], check=False, capture_output=True)
    return True


def is_only_one(installation: Installation) -> bool:
    """Whether no other installation has marks on this machine."""
    homes = {*_from_processes(), *_from_units(), *_from_keys(), *_from_agents(), *_from_users()}
    if installation.instance and (Path(DEFAULT_HOME) / "installation.json").exists():
        return False
    return not homes - {str(installation.home)}
