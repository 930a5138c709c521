"""Settings of one installation, read from SAVEOS_* environment variables; env.example names them all."""

import socket
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from saveos.core.inputs import is_loopback
from saveos.core.outgoing import parse_networks

PACKAGE = Path(__file__).resolve().parents[1]
CHECKOUT = PACKAGE.parents[1]


def _serves_tls(tls: str, listen: str) -> bool:
    return tls == "on" or (tls == "auto" and not is_loopback(listen.rpartition(":")[0]))


def _is_reached_by_https(data: dict[str, Any]) -> bool:
    """Return the default of `secure_cookies` from the settings read before it."""
    url = str(data.get("url", ""))
    if url:
        return url.startswith("https:")
    return _serves_tls(data.get("tls", "auto"), data.get("listen", ""))


class Settings(BaseSettings):
    """One installation's settings; frozen, so that no feature changes them while running."""

    model_config = SettingsConfigDict(env_prefix="SAVEOS_", frozen=True, env_ignore_empty=True)

    home: Path = Path("/var/lib/saveos")
    listen: str = "127.0.0.1:8000"
    database_url: str = ""
    url: str = ""
    tls: Literal["auto", "on", "off"] = Field("auto", description="Whether the listener speaks HTTPS itself")
    max_jobs: int = Field(4, ge=1, le=64, description="Jobs that this worker runs at once")
    forks: int = Field(20, ge=1, le=200, description="Hosts that one job works on at once")
    lease_seconds: int = Field(15, ge=3, le=600, description="A job whose worker is silent so long is lost")
    verbosity: int = Field(0, ge=0, le=4, description="Ansible's -v in jobs; its extra lines are not stored")
    secure_cookies: bool = Field(
        default_factory=_is_reached_by_https,
        description="Session cookies only over HTTPS; by default when people reach it so",
    )
    outgoing_allow: str = Field("", description="Networks beside public ones that alerts may be sent to")
    log_level: str = "info"
    export_hours: int = Field(24, ge=0, le=8760, description="Hours between own exports; 0 is none")
    keep_job_logs_days: int = Field(90, ge=0, description="Days that logs of jobs are kept; 0 is ever")
    keep_jobs_days: int = Field(400, ge=0, description="Days that jobs and what schedules did are kept")
    keep_run_logs_days: int = Field(90, ge=0, description="Days that logs of runs are kept; the runs stay")
    keep_alerts_days: int = Field(400, ge=0, description="Days that resolved alerts and notifications are kept")
    keep_audit_days: int = Field(1100, ge=0, description="Days that the audit trail is kept")

    @field_validator("listen")
    @classmethod
    def _listen_is_host_and_port(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or not 0 <= int(port) <= 65535:
            raise ValueError(f"SAVEOS_LISTEN must look like 127.0.0.1:8000, not {value!r}")
        return value

    @field_validator("outgoing_allow")
    @classmethod
    def _outgoing_allow_is_networks(cls, value: str) -> str:
        parse_networks(value)
        return value

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen on."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def public_url(self) -> str:
        """Base URL that agents and people use, without a trailing slash."""
        if self.url:
            return self.url.rstrip("/")
        scheme = "https" if self.serves_tls else "http"
        host, port = self.address
        if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound: to whoever reads it, it means itself
            return f"{scheme}://{socket.gethostname()}:{port}"
        return f"{scheme}://{self.listen}"

    @property
    def serves_tls(self) -> bool:
        """Whether the listener itself speaks HTTPS, with a certificate of our own CA."""
        return _serves_tls(self.tls, self.listen)

    @property
    def tls_names(self) -> tuple[str, ...]:
        """Names and addresses that the listener's certificate is good for."""
        host = urlsplit(self.public_url).hostname or ""
        return (host, self.address[0], socket.gethostname(), "localhost", "127.0.0.1", "::1")

    @property
    def sqlalchemy_url(self) -> str:
        """The database's URL; SQLite under `home` unless SAVEOS_DATABASE_URL says otherwise."""
        return self.database_url or f"sqlite:///{self.home / 'saveos.db'}"

    @property
    def fleet_dir(self) -> Path:
        """Directory with ansible.cfg, playbooks/, roles/ and plugins/: the checkout, else the wheel's copy."""
        return CHECKOUT if (CHECKOUT / "playbooks").is_dir() else PACKAGE / "_fleet"

    @property
    def templates_dir(self) -> Path:
        """Directory of the dashboard's Jinja templates: the checkout's, else the wheel's copy."""
        return CHECKOUT / "templates" if (CHECKOUT / "templates").is_dir() else PACKAGE / "_templates"


@lru_cache
def get_settings() -> Settings:
    """Return the process's settings. Raises pydantic.ValidationError on a bad variable."""
    return Settings()
