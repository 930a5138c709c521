"""What travels about schedules."""

import uuid
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from saveos.core.cron import check_zone, normal
from saveos.core.inputs import Name, RequestModel
from saveos.maintenance.schemas import Targets

RESERVED = {"preview"}  # a word of the route
Outcome = Literal["started", "skipped", "failed"]


def _name(value: str) -> str:
    if value in RESERVED or "/" in value:
        raise ValueError(f"{value[:40]!r} cannot be a schedule's name: choose another one, without a slash")
    return value


ScheduleName = Annotated[Name, AfterValidator(_name)]
Cron = Annotated[str, Field(max_length=100), AfterValidator(normal)]
Zone = Annotated[str, Field(max_length=60), AfterValidator(check_zone)]
Jitter = Annotated[int, Field(ge=0, le=86_400)]


class ScheduleIn(RequestModel):
    """An operation to run by itself; `parameters` are the operation's own, see GET /maintenance.

    `cron` takes five fields or a systemd calendar expression, on the clock of `zone`. `catch_up` runs
    once for what was missed while the controller was stopped.
    """

    name: ScheduleName
    operation: Annotated[str, Field(max_length=40)]
    targets: Targets
    parameters: dict[str, Any] = Field({})
    mode: Literal["run", "check"] = "run"
    cron: Cron
    zone: Zone = "UTC"
    jitter_seconds: Jitter = 0
    enabled: bool = True
    catch_up: bool = False


class SchedulePatch(RequestModel):
    """What may change of a schedule; a field that is absent stays as it is."""

    name: ScheduleName | None = None
    operation: Annotated[str, Field(max_length=40)] | None = None
    targets: Targets | None = None
    parameters: dict[str, Any] | None = None
    mode: Literal["run", "check"] | None = None
    cron: Cron | None = None
    zone: Zone | None = None
    jitter_seconds: Jitter | None = None
    enabled: bool | None = None
    catch_up: bool | None = None


class ScheduleOut(BaseModel):
    """A schedule. Times are UTC; `next_at` is null while it is switched off."""

    id: uuid.UUID
    name: str
    operation: str
    targets: dict[str, Any]
    parameters: dict[str, Any]
    mode: str
    cron: str
    zone: str
    jitter_seconds: int
    enabled: bool
    catch_up: bool
    built_in: bool
    next_at: datetime | None
    last_at: datetime | None
    last_job_id: uuid.UUID | None
    last_job_state: str
    last_outcome: Outcome | None
    last_reason: str
    created_by: str
    created_at: datetime
    updated_at: datetime


class ScheduleRunOut(BaseModel):
    """What became of a time at which a schedule was due; `count` missed times may be one row."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    due_at: datetime
    fired_at: datetime
    job_id: uuid.UUID | None
    outcome: Outcome
    reason: str
    count: int


class PreviewOut(BaseModel):
    """The next times of an expression, UTC and as the zone's clock shows them, without jitter."""

    cron: str
    zone: str
    runs: list[datetime]
    local: list[str]
