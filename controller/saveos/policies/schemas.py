"""What travels about policies."""

import json
import re
import uuid
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from saveos.core import cron
from saveos.core.inputs import AbsolutePath, Name, OptionalPath, RequestModel, refuse_secrets
from saveos.hosts.schemas import Reference
from saveos.policies.retention import Rules

COMPRESSION = re.compile(r"(auto,)?(none|lz4|zstd(,\d{1,2})?|zlib(,\d)?|lzma(,\d)?)")
OWN_OPTIONS = (
    "commands",
    "encryption_passphrase",
    "encryption_passcommand",
    "repositories",
    "list_details",  # would make the log grow by a line per file
)
MAX_OVERRIDES = 64 * 1024  # bytes of JSON


def _schedule(value: str) -> str:
    return cron.normal(value)


def _compression(value: str) -> str:
    if not COMPRESSION.fullmatch(value):
        raise ValueError("the compression is one that Borg knows, such as zstd,3 or lz4")
    return value


def _pattern(value: str) -> str:
    if not value.strip() or "\n" in value or "\r" in value:
        raise ValueError("an exclude is one pattern on one line, such as /home/*/.cache")
    return value


def _overrides(value: dict[str, Any]) -> dict[str, Any]:
    if len(json.dumps(value)) > MAX_OVERRIDES:
        raise ValueError(f"the overrides are larger than {MAX_OVERRIDES // 1024} KB")
    for key in OWN_OPTIONS:
        if key in value:
            raise ValueError(f"{key} cannot be overridden: it is SaveOS's own; commands go into hooks")
    for key in value:
        if key.endswith("_databases"):
            raise ValueError(
                f"{key} cannot be overridden: databases have a field of their own, which seals passwords"
            )
    refuse_secrets(value, "write {credential file PATH}, a file that root on the hosts can read")
    return value


def _one_line(value: str) -> str:
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise ValueError("the text must be one line without control characters")
    if value.startswith("-"):
        raise ValueError("the text must not begin with a dash: a program would take it for an option")
    return value


Sources = Annotated[list[AbsolutePath], Field(min_length=1, max_length=1000)]
Excludes = Annotated[
    list[Annotated[str, Field(max_length=4096), AfterValidator(_pattern)]], Field(max_length=1000)
]
Zone = Annotated[str, Field(max_length=60), AfterValidator(cron.check_zone)]
Line = Annotated[str, Field(max_length=253), AfterValidator(_one_line)]
Schedule = Annotated[str, Field(max_length=100), AfterValidator(_schedule)]
Catalogue = Literal["full", "off"]
Compression = Annotated[str, Field(max_length=40), AfterValidator(_compression)]
Overrides = Annotated[dict[str, Any], AfterValidator(_overrides)]
Keep = Annotated[int, Field(ge=0, le=10_000)]
Command = Annotated[str, Field(min_length=1, max_length=8192)]
Commands = Annotated[list[Command], Field(max_length=100)]


class Retention(RequestModel):
    """How long archives are kept; both `keep_within` and a count, because clocks can be wrong."""

    keep_within: str | None = Field(None, pattern=r"^0*[1-9]\d{0,4}[A-Za-z]$", max_length=10, examples=["7d"])
    keep_hourly: Keep | None = None
    keep_daily: Keep | None = None
    keep_weekly: Keep | None = None
    keep_monthly: Keep | None = None
    keep_yearly: Keep | None = None

    @model_validator(mode="after")
    def _keeps_something(self) -> "Retention":
        if not any(self.model_dump().values()):
            raise ValueError("the retention would keep nothing: name keep_within or a count")
        self.keep_within = self.keep_within or "7d"  # counts alone are wrong as soon as a clock is
        Rules({"keep_within": self.keep_within})  # Borg knows its unit
        return self


class Hooks(RequestModel):
    """Commands around a backup. They may hold secrets: sealed, and never shown again."""

    before: Commands = Field([])
    after: Commands = Field([])
    on_error: Commands = Field([])


DatabaseKind = Literal["postgresql", "mariadb", "mysql", "sqlite", "mongodb"]


class DatabaseIn(RequestModel):
    """A database that is dumped into the archive. Without a host, the local server as its own user.

    `name` is `all` for every database of the server. `password` is sealed and never shown; absent, the one
    that this database had stays.
    """

    kind: DatabaseKind
    name: Line = ""
    path: OptionalPath = ""
    hostname: Line = ""
    port: int | None = Field(None, ge=1, le=65535)
    username: Line = ""
    password: Annotated[str, Field(max_length=1000)] | None = None

    @model_validator(mode="after")
    def _complete(self) -> "DatabaseIn":
        if self.kind == "sqlite":
            if not self.path:
                raise ValueError("an SQLite database needs the path of its file")
            if self.hostname or self.port or self.username or self.password:
                raise ValueError("an SQLite database is a file: it has no host, user or password")
            self.name = self.name or self.path.rsplit("/", 1)[-1]
        elif self.path:
            raise ValueError("only an SQLite database has a path: name the database")
        self.name = self.name or "all"
        if self.password and ("\n" in self.password or "\r" in self.password):
            raise ValueError("the password must be one line")
        return self


class DatabaseOut(BaseModel):
    """A database that is dumped; of its password only whether there is one."""

    kind: DatabaseKind
    name: str
    path: str
    hostname: str
    port: int | None
    username: str
    has_password: bool


Databases = Annotated[list[DatabaseIn], Field(max_length=100)]
Servers = Annotated[list[Reference], Field(max_length=20)]
Minutes = Annotated[int, Field(ge=0, le=1440)]
Note = Annotated[Line, Field(max_length=500)]

DEFAULT_RETENTION = {"keep_within": "7d", "keep_daily": 7, "keep_weekly": 4, "keep_monthly": 6}


class PolicyIn(RequestModel):
    """What is backed up, when, and how long it is kept."""

    name: Name
    sources: Sources
    excludes: Excludes = Field([])
    schedule: Schedule = Field(
        "0 2 * * *", description="Five cron fields, or a systemd calendar that means the same"
    )
    zone: Zone = "UTC"
    jitter_minutes: int = Field(30, ge=0, le=720, description="The fleet's starts are spread over so many")
    window_minutes: Minutes = Field(
        0, description="A timer that fires later than this leaves the run out; 0: never"
    )
    grace_minutes: int = Field(360, ge=1, le=43_200)
    retention: Retention = Retention(**DEFAULT_RETENTION)
    compression: Compression = "zstd,3"
    upload_rate_limit: int = Field(0, ge=0, le=100_000_000, description="KiB/s; 0 is none")
    drill_every_days: int = Field(
        0, ge=0, le=365, description="Days after a host's last drill; 0: only schedules and people start any"
    )
    drill_sample: int = Field(20, ge=1, le=1000, description="Files of a drill")
    drill_sandbox: Reference | Literal[""] = Field("", description="Another host that drills are proven on")
    catalogue: Catalogue = Field("full", description="off: names stay on hosts, stored ones go")
    hooks: Hooks = Hooks()
    databases: Databases = Field([])
    servers: Servers = Field([], description="Storage servers to have a repository on; empty: the only one")
    overrides: Overrides = Field({})
    is_default: bool = False
    note: Note = ""

    @model_validator(mode="after")
    def _unique(self) -> "PolicyIn":
        _check_databases(self.databases)
        return self


class PolicyPatch(RequestModel):
    """What may change of a policy; a field that is absent stays as it is."""

    name: Name | None = None
    sources: Sources | None = None
    excludes: Excludes | None = None
    schedule: Schedule | None = None
    zone: Zone | None = None
    jitter_minutes: int | None = Field(None, ge=0, le=720)
    window_minutes: Minutes | None = None
    grace_minutes: int | None = Field(None, ge=1, le=43_200)
    retention: Retention | None = None
    compression: Compression | None = None
    upload_rate_limit: int | None = Field(None, ge=0, le=100_000_000)
    drill_every_days: int | None = Field(None, ge=0, le=365)
    drill_sample: int | None = Field(None, ge=1, le=1000)
    drill_sandbox: Reference | Literal[""] | None = None
    catalogue: Catalogue | None = None
    hooks: Hooks | None = None
    databases: Databases | None = None
    servers: Servers | None = None
    overrides: Overrides | None = None
    is_default: bool | None = None
    note: Note = ""

    @model_validator(mode="after")
    def _unique(self) -> "PolicyPatch":
        _check_databases(self.databases or [])
        return self


def _check_databases(databases: list[DatabaseIn]) -> None:
    seen = [database_key(each.model_dump()) for each in databases]
    if len(set(seen)) < len(seen):
        raise ValueError("a database is named twice: name each once")


def database_key(database: dict[str, Any]) -> tuple[Any, ...]:
    """Return what makes a database of a policy the same one, whatever its password."""
    return tuple(database[name] for name in ("kind", "name", "path", "hostname", "port", "username"))


class PolicyOut(BaseModel):
    """A policy; of its hooks only how many there are. `unreadable` says why its hooks cannot be counted."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    name: str
    is_default: bool
    sources: list[str]
    excludes: list[str]
    schedule: str
    zone: str
    jitter_minutes: int
    window_minutes: int
    grace_minutes: int
    retention: dict[str, Any]
    compression: str
    upload_rate_limit: int
    drill_every_days: int
    drill_sample: int
    drill_sandbox: str
    catalogue: str
    hooks: dict[str, int]
    unreadable: str = ""
    databases: list[DatabaseOut]
    servers: list[str]
    overrides: dict[str, Any]
    version: int
    hosts: int
    next_run_at: datetime
    created_at: datetime
    updated_at: datetime


class VersionOut(BaseModel):
    """A version of a policy; `document` holds no secret."""

    id: uuid.UUID
    number: int
    created_at: datetime
    created_by: str
    note: str
    document: dict[str, Any]


class Change(BaseModel):
    """A field that differs; secrets are told only by number and as changed."""

    field: str
    before: Any
    after: Any


class DiffOut(BaseModel):
    """What differs between two versions: by field, and as a unified diff of their YAML."""

    before: int
    after: int
    changes: list[Change]
    diff: str


class RollbackIn(RequestModel):
    """The version to go back to; that makes a new one."""

    version: int = Field(ge=1)
    note: Note = ""


class ApplyIn(RequestModel):
    """A whole policy, as in its YAML form. Without hooks or passwords, those that are there stay."""

    policy: dict[str, Any]
    dry_run: bool = False


class ApplyOut(BaseModel):
    """What applying did, or would do."""

    name: str
    outcome: Literal["made", "changed", "unchanged"]
    version: int
    changes: list[Change]
    diff: str


class GroupPolicyIn(RequestModel):
    """The policy of a group's hosts that choose none themselves; null takes it from the group."""

    policy: Reference | None
    priority: int = Field(100, ge=0, le=10_000, description="The lowest wins, then the group's name")


class GroupPolicyOut(BaseModel):
    """The policy that a group gives its hosts."""

    group: str
    policy: str | None
    priority: int
    hosts: int


class Choice(BaseModel):
    """One that could say which policy a host has; the first that does applies."""

    source: str
    policy: str | None
    priority: int | None = None
    applies: bool


class EffectiveOut(BaseModel):
    """What a host gets: its policy and where that comes from, the role's variables, borgmatic's files."""

    host: str
    policy: str | None
    source: str
    chain: list[Choice]
    version: int | None
    applied_version: int | None
    drift: bool
    variables: dict[str, Any]
    rendered: dict[str, str] = Field(description="By repository, the YAML for borgmatic; secrets are hidden")
    problem: str = Field("", description="Why it cannot be rendered")


class PlannedRun(BaseModel):
    """A run to come: when it is scheduled, as the zone's clock shows it, and the latest start of a host."""

    at: datetime
    local: str
    latest: datetime


class RunsOut(BaseModel):
    """The next runs of a policy."""

    policy: str
    schedule: str
    zone: str
    hosts: int
    items: list[PlannedRun]


class PreviewIn(RequestModel):
    """A schedule to look at before it is kept; `policy` is the one that it would change."""

    schedule: Schedule
    zone: Zone = "UTC"
    jitter_minutes: int = Field(30, ge=0, le=720)
    count: int = Field(10, ge=1, le=100)
    policy: Reference | None = None


class Load(BaseModel):
    """How many backups begin in half an hour: of the whole fleet, and of those with this schedule."""

    at: datetime
    hosts: float
    mine: float


class PreviewOut(BaseModel):
    """The next runs of a schedule, and the fleet's starts over the next 24 hours from its first run's hour."""

    schedule: str
    zone: str
    hosts: int
    items: list[PlannedRun]
    load: list[Load]
