"""Typed parameters of operations: one class each. A play gets a parameter as `maintenance_<parameter>`."""

import uuid
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from saveos.core.inputs import AbsolutePath, RequestModel
from saveos.hosts.schemas import Reference
from saveos.policies.schemas import Excludes
from saveos.restores.schemas import ArchiveReference, Selection

FINDING_REFERENCE = r"^[a-z0-9][a-z0-9-]{0,79}(:[^\x00-\x1f]{1,1000})?$"
# What a Fix button hands over: a finding's id, followed by ":" and its subject where it has one.
FindingReference = Annotated[str, Field(max_length=1100, pattern=FINDING_REFERENCE)]
Fixes = Annotated[list[FindingReference], Field(max_length=1000)]


class NoParameters(RequestModel):
    """An operation that needs to know nothing but its hosts."""


class RestoreParameters(Selection):
    """What to bring back, and to where on the host; an empty destination is a staging directory."""

    archive: ArchiveReference = "latest"


class TransferParameters(Selection):
    """What of an archive to bring from the host `source` to another, or to who downloads it."""

    archive: ArchiveReference = "latest"
    repository_id: uuid.UUID
    transfer: uuid.UUID
    source: str = Field(max_length=253)
    staged: bool = False


class BrowseParameters(RequestModel):
    """The directory of an archive to list."""

    archive: ArchiveReference = "latest"
    repository_id: uuid.UUID | None = None
    path: AbsolutePath = "/"


class MeasureParameters(RequestModel):
    """What to measure; without sources, what the host's policy says."""

    sources: Annotated[list[AbsolutePath], Field(max_length=1000)] = Field([])
    excludes: Excludes = Field([])


class DrillParameters(RequestModel):
    """How many files a drill restores; a seed draws the same files of an archive again, -1 others."""

    sample: int = Field(20, ge=1, le=1000)
    seed: int = Field(-1, ge=-1, lt=2**63)
    sandbox: Reference | Literal[""] = Field(
        "",
        description="Another host, to which what was restored must come whole; one host is drilled at a time",
    )


class SecretsParameters(RequestModel):
    """What to rotate (`none` only examines), and what is so old that it is a finding."""

    rotate: Literal["none", "passphrase", "ssh-key", "agent-token"] = "none"
    repository_id: uuid.UUID | None = Field(None, description="Only this repository's passphrase")
    older_than_days: int = Field(0, ge=0, le=36_500, description="Rotate only what was made so long ago")
    settle: bool = Field(False, description="Finish interrupted rotations")
    max_age_days: int = Field(365, ge=0, le=36_500, description="What is older is a finding; 0 is never")
    fixes: Fixes = Field([])


class RekeyParameters(RequestModel):
    """How old the controller's SSH key must be to get a successor; one that is being rotated is finished."""

    older_than_days: int = Field(0, ge=0, le=36_500, description="Rotate only what was made so long ago")


class GuardParameters(RequestModel):
    """Whether guards only report, which repositories they look at (none: all), and whether they may compact."""

    mode: Literal["run", "report"] = "run"
    repositories: Annotated[list[uuid.UUID], Field(max_length=1000)] = Field([])
    compact: bool = Field(True, description="Off: copy, check and judge, but free nothing")


class CheckParameters(RequestModel):
    """How repositories are checked: keyless on their server, or by their host, archives or all data."""

    kind: Literal["keyless", "archives", "data"] = "keyless"
    repository_ids: Annotated[list[uuid.UUID], Field(max_length=1000)] = Field([])


class UndoParameters(RequestModel):
    """Which repository goes back, and to which of the guard's copies: the latest good one, or one's time."""

    repository_id: uuid.UUID
    to: str = Field(
        "latest-good", max_length=40, pattern=r"^(latest-good|\d{4}-\d\d-\d\dT[0-9:.]{5,15}(Z|[+-]\d\d:\d\d)?)$"
    )


def _bounded_root(path: str) -> str:
    """Refuse a directory below which a search would never end."""
    parts = path.strip("/").split("/")
    if parts[0] in ("", "proc", "sys", "dev") or ".." in parts:
        raise ValueError("name a directory further down, such as /srv/stacks")
    return path


Root = Annotated[AbsolutePath, AfterValidator(_bounded_root)]
HostName = Annotated[str, Field(max_length=253, pattern=r"^[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?$")]


class ValidationParameters(RequestModel):
    """What to validate, and what to mend of what is found (`all`, an id, or an id and its subject)."""

    kinds: Annotated[list[Literal["config", "setup", "compose"]], Field(min_length=1, max_length=3)] = Field(
        ["config", "setup", "compose"]
    )
    fixes: Fixes = Field([])
    roots: Annotated[list[Root], Field(max_length=100)] = Field(
        ["/srv", "/var/www", "/opt"],
        description="Directories below which compose and environment files are checked",
    )
    names: Annotated[list[HostName], Field(max_length=100)] = Field(
        [], description="More names that the host must be able to resolve"
    )
    certificates: Annotated[list[AbsolutePath], Field(max_length=100)] = Field(
        ["/etc/letsencrypt/live"], description="Certificates that must not end soon: files, or directories"
    )


Unit = Annotated[str, Field(max_length=255, pattern=r"^[A-Za-z0-9][A-Za-z0-9:_.@\\-]*$")]
HttpAddress = Annotated[str, Field(max_length=2000, pattern=r"^(https?://[^\s]+)?$")]


class DependenciesParameters(RequestModel):
    """What to install (`none` only reports), how many hosts at a time, and how to tell that one is well."""

    apply: Literal["none", "security", "all", "repair"] = "none"
    fixes: Fixes = Field([])
    batch: int = Field(5, ge=1, le=1000, description="Hosts at a time, after the first one")
    refresh: bool = Field(
        True, description="Fetch package lists first; while nothing is installed, into a copy"
    )
    online: bool = Field(
        True, description="Ask advisory sources about libraries; they learn names and versions"
    )
    roots: Annotated[list[AbsolutePath], Field(max_length=100)] = Field(
        ["/srv", "/var/www", "/opt"], description="Directories below which language projects are looked for"
    )
    health_units: Annotated[list[Unit], Field(max_length=100)] = Field(
        [], description="Units of systemd that must be active after an update"
    )
    health_url: HttpAddress = Field(
        "", description="Address that must answer after an update, asked from the host"
    )


class CleanupRule(RequestModel):
    """A cleanup rule of one's own. The host judges it: one outside what may be cleaned is a finding there."""

    name: Annotated[str, Field(max_length=40)]
    root: Annotated[str, Field(max_length=1000)]
    patterns: Annotated[list[Annotated[str, Field(max_length=500)]], Field(min_length=1, max_length=100)]
    kind: Literal["cache", "logs", "temp"] = "cache"
    min_age_days: float = Field(30, ge=0, le=36_500)
    directories: bool = False


CleanupKind = Literal["cache", "logs", "temp", "containers"]


class CleanupParameters(RequestModel):
    """What to remove; without anything said, what every rule names."""

    rule_kinds: Annotated[list[CleanupKind], Field(min_length=1, max_length=4)] = Field(
        ["cache", "logs", "temp", "containers"], description="Kinds of rules"
    )
    rules: Fixes = Field([], description="Only these rules, whatever their kind")
    older_than: float = Field(-1, ge=-1, le=3650, description="Days, instead of the rules' own; -1 is theirs")
    journal_mb: int = Field(500, ge=0, le=1_000_000, description="So much of the archived journal stays, in MB")
    custom: Annotated[list[CleanupRule], Field(max_length=100)] = Field([], description="Rules of your own")


CareAction = Literal["protect", "unprotect", "rename", "delete", "export"]
# How the agent lets archives be called: see NAME in saveos_agent/care.py
ArchiveName = Annotated[str, Field(max_length=200, pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.:@=,-]*)?$")]
DatabaseName = Annotated[str, Field(max_length=1000, pattern=r"^[^\x00-\x1f]*$")]


class CareParameters(RequestModel):
    """What to do to one archive: `new_name` is for rename, `destination` (a file on the host) for export."""

    action: CareAction
    archive: ArchiveReference = Field(description="Name of the archive, or Borg's id of it")
    repository_id: uuid.UUID | None = None
    new_name: ArchiveName = ""
    destination: AbsolutePath | Literal[""] = Field("", description="Ends in .tar, .tar.gz or .tar.zst")

    @model_validator(mode="after")
    def _fits(self) -> "CareParameters":
        if self.archive == "latest":
            raise ValueError("name the archive: the latest is another one soon")
        if (self.action == "rename") != bool(self.new_name):
            raise ValueError("new_name is what a rename needs, and nothing else")
        if (self.action == "export") != bool(self.destination):
            raise ValueError("destination is what an export needs, and nothing else")
        if self.destination and not self.destination.endswith((".tar", ".tar.gz", ".tgz", ".tar.zst")):
            raise ValueError("the destination must end in .tar, .tar.gz or .tar.zst")
        return self


class CompareParameters(RequestModel):
    """The archive that is compared with the host as it is, and the directory below which."""

    archive: ArchiveReference = "latest"
    repository_id: uuid.UUID | None = None
    path: AbsolutePath = "/"


class DatabaseParameters(RequestModel):
    """The database whose dump is loaded: as a copy, or in place of the present one, which is dumped before."""

    database: Annotated[DatabaseName, Field(min_length=1)]
    database_kind: Literal["", "postgresql", "mariadb", "mysql", "sqlite"] = Field(
        "", description="Where the archive has several of this name"
    )
    database_as: Literal["copy", "replace"] = "copy"
    copy_name: DatabaseName = Field("", description="Of SQLite the path of a new file")
    archive: ArchiveReference = "latest"
    repository_id: uuid.UUID | None = None

    @model_validator(mode="after")
    def _fits(self) -> "DatabaseParameters":
        if self.copy_name and self.database_as == "replace":
            raise ValueError("copy_name is for a copy: leave it out to replace the database")
        return self


class DiffParameters(RequestModel):
    """The file whose text is compared (`other` none: shown), and the transfer whose reader gets it."""

    archive: ArchiveReference
    other: ArchiveReference = "host"
    repository_id: uuid.UUID
    ref: str = Field(max_length=8192)
    transfer: uuid.UUID
