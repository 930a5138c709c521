"""What travels about jobs."""

import uuid
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from saveos.core.inputs import HostName, Moment, RequestModel, Text

JobState = Literal[
    "queued", "running", "canceling", "succeeded", "partial", "failed", "canceled", "timed_out", "lost"
]


class Links(BaseModel):
    """Where the rest of a job is."""

    self: str
    hosts: str
    log: str
    events: str


class JobOut(BaseModel):
    """One tracked run of an operation. Times are UTC; `events` is the number of the last log event."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    operation: str
    mode: Literal["run", "check"]
    state: JobState
    trigger: str
    requested_by: str
    targets: dict[str, Any]
    parameters: dict[str, Any]
    attempt: int
    retry_of: uuid.UUID | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    hosts_total: int
    hosts_done: int
    hosts_failed: int
    events: int
    error: str
    error_type: str
    blocked_by: str
    result: dict[str, Any]
    links: Links


class JobHostOut(BaseModel):
    """What one host of a job came to; `tasks` is [[task, state], …] as far as kept."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    host_id: uuid.UUID | None
    state: str
    is_target: bool
    counts: dict[str, int]
    tasks: list[list[str]]
    result: dict[str, Any]
    error: str
    started_at: datetime | None
    finished_at: datetime | None


class EventOut(BaseModel):
    """A line of a job's log: number, seconds since 1970, kind, host, task, text."""

    n: int
    t: float
    k: str
    h: str = ""
    task: str = ""
    text: str = ""


class LogOut(BaseModel):
    """A part of a job's log; `total` is the number of the last event there is."""

    start: int
    total: int
    events: list[EventOut]


class ReportedHost(BaseModel):
    """A host in a run by hand."""

    name: HostName
    state: Literal["ok", "changed", "failed", "unreachable", "skipped"]
    counts: dict[str, int] = {}
    result: dict[str, Any] = {}
    error: str | None = None


class ReportIn(RequestModel):
    """A run of a playbook by hand, as the callback plugin tells it when the play has ended."""

    operation: Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z][a-z0-9_-]*$")]
    mode: Literal["run", "check"] = "run"
    started_at: Moment
    finished_at: Moment
    state: Literal["succeeded", "partial", "failed"]
    hosts: Annotated[list[ReportedHost], Field(max_length=5000)]
    user: Text = ""
