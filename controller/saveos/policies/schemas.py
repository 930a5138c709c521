"""What travels about policies."""

import json
import re
import uuid
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from saveos.core import cron
from saveos.core.inputs import AbsolutePath, Name, RequestModel

COMPRESSION = re.compile(r"(auto,)?(none|lz4|zstd(,\d{1,2})?|zlib(,\d)?|lzma(,\d)?)")
MAX_OVERRIDES = 64 * 1024  # bytes of JSON


def _schedule(value: str) -> str:
    value = " ".join(value.split())
    cron.parse(value)
    return value


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
    for key in ("commands", "encryption_passphrase", "encryption_passcommand", "repositories"):
        if key in value:
            raise ValueError(f"{key} cannot be overridden: it is SaveOS's own; commands go into hooks")
    return value


Sources = Annotated[list[AbsolutePath], Field(min_length=1, max_length=1000)]
Excludes = Annotated[
    list[Annotated[str, Field(max_length=4096), AfterValidator(_pattern)]], Field(max_length=1000)
]
Schedule = Annotated[str, Field(max_length=100), AfterValidator(_schedule)]
Compression = Annotated[str, Field(max_length=40), AfterValidator(_compression)]
Overrides = Annotated[dict[str, Any], AfterValidator(_overrides)]
Keep = Annotated[int, Field(ge=0, le=10_000)]
Command = Annotated[str, Field(min_length=1, max_length=8192)]
Commands = Annotated[list[Command], Field(max_length=100)]


class Retention(RequestModel):
    """How long archives are kept; both `keep_within` and a count, because clocks can be wrong."""

    keep_within: str | None = Field(None, pattern=r"^\d{1,5}[HdwmyMS]$", examples=["7d"])
    keep_hourly: Keep | None = None
    keep_daily: Keep | None = None
    keep_weekly: Keep | None = None
    keep_monthly: Keep | None = None
    keep_yearly: Keep | None = None

    @model_validator(mode="after")
    def _keeps_something(self) -> "Retention":
        if not any(self.model_dump().values()):
            raise ValueError("the retention would keep nothing: name keep_within or a count")
        return self


class Hooks(RequestModel):
    """Commands around a backup. They may hold secrets: sealed, and never shown again."""

    before: Commands = Field([])
    after: Commands = Field([])
    on_error: Commands = Field([])


DEFAULT_RETENTION = {"keep_within": "7d", "keep_daily": 7, "keep_weekly": 4, "keep_monthly": 6}


class PolicyIn(RequestModel):
    """What is backed up, when, and how long it is kept."""

    name: Name
    sources: Sources
    excludes: Excludes = Field([])
    schedule: Schedule = "0 2 * * *"
    jitter_minutes: int = Field(30, ge=0, le=720)
    grace_minutes: int = Field(360, ge=1, le=43_200)
    retention: Retention = Retention(**DEFAULT_RETENTION)
    compression: Compression = "zstd,3"
    upload_rate_limit: int = Field(0, ge=0, le=100_000_000, description="KiB/s; 0 is none")
    hooks: Hooks = Hooks()
    overrides: Overrides = Field({})
    is_default: bool = False


class PolicyPatch(RequestModel):
    """What may change of a policy; a field that is absent stays as it is."""

    name: Name | None = None
    sources: Sources | None = None
    excludes: Excludes | None = None
    schedule: Schedule | None = None
    jitter_minutes: int | None = Field(None, ge=0, le=720)
    grace_minutes: int | None = Field(None, ge=1, le=43_200)
    retention: Retention | None = None
    compression: Compression | None = None
    upload_rate_limit: int | None = Field(None, ge=0, le=100_000_000)
    hooks: Hooks | None = None
    overrides: Overrides | None = None
    is_default: bool | None = None


class PolicyOut(BaseModel):
    """A policy; of its hooks only how many there are."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    name: str
    is_default: bool
    sources: list[str]
    excludes: list[str]
    schedule: str
    jitter_minutes: int
    grace_minutes: int
    retention: dict[str, Any]
    compression: str
    upload_rate_limit: int
    hooks: dict[str, int]
    overrides: dict[str, Any]
    hosts: int
    next_run_at: datetime
    created_at: datetime
    updated_at: datetime
