# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""etc/agent.json as the role writes it, and where things are."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saveos_agent.errors import AgentError, usage
from saveos_agent.files import read_json

PROGRAM = os.path.realpath(Path(__file__).parents[1])  # the one file that this package is packed into

VERSION = "0.1.0"
ROOT_CONFIG, USER_CONFIG = "/etc/saveos", "~/.config/saveos"


@dataclass(frozen=True)
class Repository:
    id: str
    kind: str
    url: str
    config: Path
    label: str


@dataclass(frozen=True)
class Settings:
    """etc/agent.json, as the role writes it. Paths are absolute."""

    etc: Path
    state: Path
    run: Path
    host: str
    host_id: str
    systemd: bool
    unit: str
    borg: str
    borgmatic: str
    jitter_seconds: int
    controller_url: str
    controller_ca: str
    repositories: tuple[Repository, ...]
    window_seconds: int = 0
    schedule: dict[str, Any] = field(default_factory=dict)
    catalogue: bool = True

    def repository(self, repository_id: str) -> Repository:
        """The repository with this id; the only one where no id is given. Raises AgentError."""
        if not repository_id and len(self.repositories) == 1:
            return self.repositories[0]
        for repository in self.repositories:
            if repository_id in (repository.id, repository.label):
                return repository
        known = ", ".join(repository.id for repository in self.repositories) or "none"
        raise usage(f"There is no repository {repository_id!r} on this host.", f"Name one of: {known}.")


def default_config() -> str:
    """Where agent.json is: root's configuration is the host's, a plain user has one of their own."""
    return str(Path(USER_CONFIG).expanduser()) if os.geteuid() else ROOT_CONFIG


def default_places() -> tuple[str, str]:
    """State and run directory where agent.json names none."""
    if not os.geteuid():
        return "/var/lib/saveos-agent", "/run/saveos-agent"
    state = os.environ.get("XDG_STATE_HOME") or str(Path("~/.local/state").expanduser())
    run = os.environ.get("XDG_RUNTIME_DIR") or f"{state}/saveos-agent/run"
    return f"{state}/saveos-agent", f"{run}/saveos-agent"


def load_settings(directory: Path) -> Settings:
    data = read_json(directory / "agent.json")
    if not isinstance(data, dict):
        raise AgentError(
            "not_configured",
            f"{directory / 'agent.json'} is missing or not valid JSON: this host is not provisioned.",
            "Enrol it (saveos-agent register), provision it (ansible-playbook playbooks/site.yml), run this as "
            "root, or name its directory with --config.",
        )
    controller = data.get("controller") or {}
    state_dir, run_dir = default_places()
    return Settings(
        etc=directory,
        state=Path(data.get("state_dir") or state_dir),
        run=Path(data.get("run_dir") or run_dir),
        host=data.get("host") or platform.node(),
        host_id=data.get("host_id") or "",
        systemd=data.get("init") == "systemd",
        unit=data.get("unit") or "saveos-backup.service",
        borg=data.get("borg") or "borg",
        borgmatic=data.get("borgmatic") or "borgmatic",
        jitter_seconds=int(data.get("jitter_seconds") or 0),
        window_seconds=int(data.get("window_seconds") or 0),
        schedule=data.get("schedule") or {},
        catalogue=data.get("catalogue") != "off",
        controller_url=(controller.get("url") or "").rstrip("/"),
        controller_ca=controller.get("ca") or "",
        repositories=tuple(_repository(directory, item) for item in data.get("repositories") or ()),
    )


def _repository(directory: Path, item: dict[str, Any]) -> Repository:
    config = Path(item.get("config") or directory / "borgmatic" / f"{item['id']}.yaml")
    if not config.is_absolute():
        parent = directory.parent if config.parts[:1] == ("etc",) else directory
        config = parent / config
    return Repository(item["id"], item.get("kind", ""), item.get("url", ""), config, item.get("label") or "")


def load_token(settings: Settings) -> str:
    try:
        return (settings.etc / "token").read_text().strip()
    except OSError:
        return ""
