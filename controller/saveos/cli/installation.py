"""One installation of the controller on this machine: where its files, process and marks are.

An installation is known by its home. With the default home everything has plain names; another
home gives every unit, user and cron file a suffix, so that two installations share a machine.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from saveos.cli.client import DEFAULT_HOME
from saveos.cli.errors import CommandError

STORED = (
    "SAVEOS_LISTEN",
    "SAVEOS_URL",
    "SAVEOS_TLS",
    "SAVEOS_DATABASE_URL",
    "SAVEOS_MAX_JOBS",
    "SAVEOS_FORKS",
    "SAVEOS_LEASE_SECONDS",
    "SAVEOS_SECURE_COOKIES",
    "SAVEOS_LOG_LEVEL",
    "SAVEOS_OUTGOING_ALLOW",
    "SAVEOS_EXPORT_HOURS",
    "SAVEOS_KEEP_JOB_LOGS_DAYS",
    "SAVEOS_KEEP_JOBS_DAYS",
    "SAVEOS_KEEP_RUN_LOGS_DAYS",
    "SAVEOS_KEEP_ALERTS_DAYS",
    "SAVEOS_KEEP_AUDIT_DAYS",
    "SAVEOS_BUNDLE",
)


@dataclass(frozen=True)
class Installation:
    """Paths and names that follow from `home`."""

    home: Path

    @cached_property
    def instance(self) -> str:
        """Suffix of names outside the home: "" for the default home, else eight hex digits."""
        if self.home == Path(DEFAULT_HOME):
            return ""
        return hashlib.sha256(str(self.home).encode()).hexdigest()[:8]

    def named(self, name: str) -> str:
        """Return `name` with the instance as suffix."""
        return f"{name}-{self.instance}" if self.instance else name

    @property
    def marker(self) -> Path:
        """File that says this home holds an installation."""
        return self.home / "installation.json"

    @property
    def environment(self) -> Path:
        """File with the settings that the controller was set up with; may hold a database password."""
        return self.home / "environment"

    @property
    def log(self) -> Path:
        """The controller's log where no systemd keeps it."""
        return self.home / "controller.log"

    @property
    def process(self) -> Path:
        """File about the running controller: pid, start time and fingerprint."""
        return self.home / "controller.json"

    @property
    def unit(self) -> str:
        """Name of the controller's systemd unit."""
        return f"{self.named('saveos-controller')}.service"

    @property
    def key_mark(self) -> str:
        """Comment of this installation's line in root's authorized_keys."""
        return f"saveos-controller:{self.home}"

    @property
    def storage(self) -> Path:
        """The storage server's directory on this machine."""
        return self.home / "storage" if self.instance else Path("/srv/saveos")

    @property
    def host_variables(self) -> dict[str, Any]:
        """Role variables of this machine: the controller's export is backed up; another home has it all."""
        own = {"agent_own_sources": [str(self.home / "export")]}
        if not self.instance:
            return own
        return own | {
            "server_root": str(self.storage),
            "server_open_parents": True,
            "server_user": self.named("saveos-borg"),
            "server_instance": self.instance,
            "agent_home": str(self.home / "agent"),
            "agent_instance": self.instance,
        }

    def read_environment(self) -> dict[str, str]:
        """Return the stored settings; what the environment says now wins."""
        try:
            lines = self.environment.read_text().splitlines()
        except OSError:
            return {}
        stored = dict(line.strip().split("=", 1) for line in lines if "=" in line)
        return {key: _unquoted(value) for key, value in stored.items() if key in STORED}

    def write_environment(self) -> None:
        """Store the settings in force, readable by root only, in systemd's EnvironmentFile form."""
        values = {key: os.environ[key] for key in STORED if os.environ.get(key)}
        text = "".join(f"{key}={json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())
        write_private(self.environment, text)


def _unquoted(value: str) -> str:
    """Return a stored value; a person may have written it without quotes, or with single ones."""
    try:
        return str(json.loads(value)) if value.startswith('"') else value.strip("'")
    except ValueError:
        return value.strip('"')


def current() -> Installation:
    """Return the installation that SAVEOS_HOME names, and take over the settings stored in it."""
    home = Path(os.environ.get("SAVEOS_HOME") or DEFAULT_HOME)
    if not home.is_absolute():
        raise CommandError(f"SAVEOS_HOME must be an absolute path, not {home}.", 2)
    installation = Installation(Path(os.path.normpath(home)))
    os.environ["SAVEOS_HOME"] = str(installation.home)
    for key, value in installation.read_environment().items():
        os.environ.setdefault(key, value)
    return installation


def is_systemd() -> bool:
    """Whether systemd is PID 1 here."""
    return Path("/run/systemd/system").is_dir()


def write_private(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file that only root reads, in one step."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
    partial.replace(path)
