"""What travels about repositories."""

import uuid
from datetime import date, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from saveos.core.inputs import Quota, RequestModel, Text
from saveos.hosts.schemas import Reference, RepositoryFor


class RepositoryIn(RepositoryFor):
    """A further repository for a host."""

    host: Reference


class RepositoryPatch(RequestModel):
    """What may change of a repository; it takes effect when its server is provisioned."""

    quota: Quota


class RepositoryOut(BaseModel):
    """A repository. Sizes in bytes; an empty path is the server's own place for it.

    From `last_commit_at` on it is what its storage server saw at `checked_at`; `missing_since` is set
    while the server lacks an archive that the host claims to have made.
    """

    id: uuid.UUID
    host_id: uuid.UUID
    host: str
    kind: str
    server_id: uuid.UUID | None
    server: str | None
    path: str
    quota: str
    initialised_at: datetime | None
    key_exported_at: datetime | None
    size: int | None
    created_at: datetime
    quota_bytes: int | None
    last_commit_at: datetime | None
    checked_at: datetime | None
    missing_since: datetime | None
    fault: str


class Reason(BaseModel):
    """Why a guard compacts nothing: a code, its sentence, and the archives that compact would destroy."""

    code: str
    message: str = ""
    level: str = "warning"
    holds: bool = True
    would_destroy: list[dict[str, Any]] = []
    archives: int | None = None
    bytes: int | None = None


class GuardOut(BaseModel):
    """What its server's guard says of a repository. Sizes in bytes; `held_bytes` is what its copies keep.

    `state` is ok, held, approved, compacted, damaged, missing, or empty while no guard told of it.
    """

    repository_id: uuid.UUID
    host: str
    server: str | None
    server_id: uuid.UUID | None
    state: str
    held_since: datetime | None
    reasons: list[Reason]
    digest: str
    reported_at: datetime | None
    size: int | None
    quota: str
    quota_bytes: int | None
    held_bytes: int | None
    freeable_bytes: int | None
    freeable_share: float | None
    archives_expected: int | None
    copies: int
    last_compact_at: datetime | None
    guard_seconds: float | None
    keyless_at: datetime | None
    keyless_state: str
    archives_at: datetime | None
    archives_state: str
    data_at: datetime | None
    data_state: str
    check_detail: str


class CopyOut(BaseModel):
    """A copy that the guard holds back: what the repository was at that time, to go back to."""

    at: datetime
    extra_bytes: int = 0
    good: bool | None = None
    why: str = ""


class ApprovalIn(RequestModel):
    """Compact in spite of one reason, for what `digest` names; ends after `days`, or when that changes."""

    reason: Annotated[str, Field(max_length=40, pattern=r"^[a-z][a-z_]*$")]
    digest: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[0-9a-f]+$")]
    days: int = Field(1, ge=1, le=30)
    note: Text = ""


class ApprovalOut(BaseModel):
    """A person's word that a guard may compact in spite of a reason."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    repository_id: uuid.UUID
    reason: str
    digest: str
    note: str
    created_at: datetime
    created_by: str
    until: datetime
    revoked_at: datetime | None
    revoked_by: str


class CheckOut(BaseModel):
    """A check of a repository: keyless on its server, or of archives or data by its host."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    repository_id: uuid.UUID
    kind: str
    state: str
    at: datetime
    seconds: float | None
    detail: str
    archives: list[dict[str, Any]]


class SampleOut(BaseModel):
    """Sizes of a day, in bytes: used, held back by the guard, and free on a server's file system."""

    model_config = ConfigDict(from_attributes=True)

    day: date
    used: int
    held: int
    free: int | None


class ServerStorageOut(BaseModel):
    """A storage server: how full it is, what its guard holds, and when it would be full.

    `full_in_days` is none where it does not grow, or too few days are known.
    """

    server_id: uuid.UUID
    server: str
    repositories: int
    held: int
    used: int | None
    free: int | None
    held_bytes: int
    full_in_days: int | None
    hold_days: int | None
    version: str
    clock_synced: bool | None
    reported_at: datetime | None
    refused: str
