"""What agents tell. Unknown fields are ignored (older and newer agents); texts are cut, not refused."""

import uuid
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from saveos.core.inputs import Moment

MAX_RUNS = 500
MAX_LOG = 64 * 1024  # characters; the end is kept
MAX_DISKS, MAX_VERSIONS = 50, 20


def _told(limit: int, *, end: bool = False) -> BeforeValidator:
    def clean(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        value = value[-limit:] if end else value[:limit]
        return value.replace("\x00", "�").encode("utf-8", "replace").decode()

    return BeforeValidator(clean)


def _first(limit: int) -> BeforeValidator:
    return BeforeValidator(lambda value: value[:limit] if isinstance(value, list) else value)


def _first_items(limit: int) -> BeforeValidator:
    def cut(value: Any) -> Any:
        return dict(list(value.items())[:limit]) if isinstance(value, dict) else value

    return BeforeValidator(cut)


Line = Annotated[str, _told(2000)]
Word = Annotated[str, _told(40)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Number = Annotated[float, Field(ge=0)]
State = Literal["succeeded", "warning", "failed", "canceled"]
Kind = Literal["backup", "restore"]
Trigger = Literal["timer", "job", "playbook", "host"]


Versions = Annotated[dict[Word, Annotated[str, _told(60)] | None], _first_items(MAX_VERSIONS)]


class Told(BaseModel):
    """Base of an agent's words."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class ArchiveTold(Told):
    """An archive that a run made, as Borg reported it."""

    id: str = Field(pattern=r"^[0-9a-f]{64}$")
    name: Annotated[str, _told(400)] = ""
    started_at: Moment
    finished_at: Moment | None = None
    duration: Annotated[float, Field(ge=0)] | None = None
    nfiles: Count | None = None
    original_size: Count | None = None
    compressed_size: Count | None = None
    deduplicated_size: Count | None = None


class ErrorTold(Told):
    """Why a run failed, and what to do."""

    code: Word = "unknown"
    message: Line = ""
    fix: Line = ""


class ResultTold(Told):
    """What happened with one repository."""

    repository_id: uuid.UUID
    state: State
    exit_code: Annotated[int, Field(ge=-(2**31), lt=2**31)] | None = None
    archive: ArchiveTold | None = None
    error: ErrorTold | None = None
    warnings: Annotated[list[Line], _first(50)] = []


class RestoreTold(Told):
    """What a restore brought back."""

    repository_id: uuid.UUID | None = None
    archive: Annotated[str, _told(400)] = ""
    destination: Annotated[str, _told(4096)] = ""
    files: Count | None = None
    bytes: Count | None = None
    failed: Annotated[list[Annotated[str, _told(4096)]], _first(1000)] = []


class RecordTold(Told):
    """One run of a backup or restore."""

    run_id: uuid.UUID
    kind: Kind = "backup"
    trigger: Trigger = "host"
    job_id: uuid.UUID | None = None
    state: State
    started_at: Moment
    finished_at: Moment
    results: Annotated[list[ResultTold], Field(max_length=50)] = []
    error: ErrorTold | None = None
    log_tail: Annotated[str, _told(MAX_LOG, end=True)] = ""
    versions: Versions = {}
    restore: RestoreTold | None = None


class ProgressTold(Told):
    """How far a run is; told at its start and at most once a second after that. Sizes are bytes so far."""

    run_id: uuid.UUID
    kind: Kind = "backup"
    trigger: Trigger = "host"
    job_id: uuid.UUID | None = None
    started_at: Moment
    repository_id: uuid.UUID | None = None
    phase: Literal["start", "create", "finish", "extract"] = "start"
    files: Count | None = None
    original_size: Count | None = None
    compressed_size: Count | None = None
    deduplicated_size: Count | None = None


class DiskTold(Told):
    """A file system of a host, in bytes; without inodes where it does not count them."""

    path: Annotated[str, _told(200)]
    total: Count
    free: Count
    inodes: Count | None = None
    inodes_free: Count | None = None


class MemoryTold(Told):
    """A host's memory in bytes."""

    total: Count | None = None
    available: Count | None = None


class HeartbeatTold(Told):
    """How a host is. `at` is its own clock when it sent this; `spool` counts records still to be delivered."""

    at: Moment
    versions: Versions = {}
    os: Annotated[str, _told(60)] = ""
    init: Word = ""
    boot_time: Moment | None = None
    disks: Annotated[list[DiskTold], _first(MAX_DISKS)] = []
    load: Annotated[list[Number], _first(3)] = []
    cpus: Count | None = None
    memory: MemoryTold | None = None
    clock_synchronised: bool | None = None
    next_run_at: Moment | None = None
    running: uuid.UUID | None = None
    spool: Count = 0


class HeartbeatOut(BaseModel):
    """The controller's clock when the heartbeat came, and the end of the host's newest backup that it knows of.

    A host that told of a newer one tells of it again: the controller may be restored from an older copy.
    """

    at: datetime
    last_run_at: datetime | None


class CheckinIn(Told):
    """Run records, oldest first; each is validated for itself, so that an error names the run."""

    runs: Annotated[list[dict[str, Any]], Field(max_length=MAX_RUNS)]


class Refused(BaseModel):
    """A record that was not stored, and why; sending it again does not help."""

    run_id: uuid.UUID
    detail: str


class CheckinOut(BaseModel):
    """How many records were new, how many were known already, and which were refused."""

    accepted: int
    known: int
    refused: list[Refused]


class RunOut(BaseModel):
    """One run, as the host told it."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    host_id: uuid.UUID
    host: str
    kind: str
    trigger: str
    job_id: uuid.UUID | None
    state: str
    started_at: datetime
    finished_at: datetime
    results: list[Any]
    error_code: str
    error: str
    received_at: datetime


class RunWithLog(RunOut):
    """One run with the end of its log."""

    log: str


class RunningOut(BaseModel):
    """A run that goes on, as its host told last. `expected_size` is the last archive's original size."""

    host_id: uuid.UUID
    host: str
    run_id: uuid.UUID
    kind: str
    trigger: str
    job_id: uuid.UUID | None
    repository_id: uuid.UUID | None
    phase: str
    started_at: datetime
    files: int | None
    original_size: int | None
    compressed_size: int | None
    deduplicated_size: int | None
    expected_size: int | None
    updated_at: datetime


class AgentStats(BaseModel):
    """The agents of a fleet in numbers; each `seen` counts those of the ones before it, too."""

    hosts: int
    seen: dict[str, int]  # 10m, 1h, 24h, ever
    heartbeats: dict[str, int]  # 10m, 1h, 24h, ever
    versions: dict[str, dict[str, int]]  # agent, borg, borgmatic: hosts by version
    running: int
    skewed: int  # hosts whose clock is more than a minute off
    spooled: int  # hosts with run records still to be delivered


class AgentVersions(BaseModel):
    """What an agent runs, what provisioning would install, and which programs differ."""

    host_id: uuid.UUID
    host: str
    agent: str  # "" where the host has not told
    borg: str
    borgmatic: str
    offered: dict[str, str]
    outdated: list[str]
