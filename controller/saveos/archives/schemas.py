"""What travels about archives."""

import uuid
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field

from saveos.core.inputs import RequestModel
from saveos.hosts.schemas import Reference, Tags
from saveos.policies.schemas import Retention

BorgId = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ArchiveOut(BaseModel):
    """One archive, as its host reported it. Sizes in bytes, duration in seconds."""

    id: uuid.UUID
    host_id: uuid.UUID
    host: str
    repository_id: uuid.UUID
    borg_id: str
    name: str
    started_at: datetime
    finished_at: datetime | None
    duration: float | None
    files: int | None
    original_size: int | None
    compressed_size: int | None
    deduplicated_size: int | None
    check_state: str
    run_id: uuid.UUID | None
    catalogue: str
    catalogue_error: str
    note: str
    tags: list[str]
    protected: bool
    removed_at: datetime | None
    removed_why: str
    removed_by: str
    gone_at: datetime | None


class ArchivePatch(RequestModel):
    """What may change of an archive; a field that is absent stays as it is."""

    note: Annotated[str, Field(max_length=500)] | None = None
    tags: Tags | None = None


class RenamedIn(RequestModel):
    """An archive that got another name, and so another id."""

    was: BorgId
    now: BorgId
    name: Annotated[str, Field(min_length=1, max_length=400)]


class LivingIn(RequestModel):
    """The ids of all archives that a repository has, and what became of some of them."""

    archives: Annotated[list[BorgId], Field(max_length=100_000)]
    renamed: Annotated[list[RenamedIn], Field(max_length=1000)] = Field([])


class FileOut(BaseModel):
    """One path of an archive. `ref` names it in URLs whatever its bytes; `mode` is st_mode.

    A directory's `size` and `files` count all below it in a listing of what it is in; elsewhere `files` is
    null. `changed` is new or changed, against the
    archive before.
    """

    path: str
    ref: str
    name: str
    mode: int
    size: int
    files: int | None
    modified_at: datetime
    is_directory: bool
    changed: str = ""


class VersionOut(FileOut):
    """A version of a path: the newest archive that holds it, since when; `last_at` null while it lives."""

    archive_id: uuid.UUID
    first_at: datetime
    last_at: datetime | None


class DifferenceOut(FileOut):
    """A path that differs between two archives: added, removed or changed; of a removed one the old version.

    `old_size` is the size before, null for one that was added.
    """

    kind: str
    old_size: int | None


class FoundOut(FileOut):
    """A path that a search found: its newest version that fits, and the newest archive that holds it.

    `gone` says that the newest archive has no such path, `older` that it has a newer version of it.
    """

    host: str
    host_id: uuid.UUID
    repository_id: uuid.UUID
    archive_id: uuid.UUID
    archived_at: datetime
    gone: bool
    older: bool


class WantedOut(BaseModel):
    """What a host should send: the listing of `archive`, of all files or of what changed since `base`.

    Nothing when `archive` is null; `waiting` says that one is being taken over. `received` is how many bytes
    are here, by base ("" for all). `more` is how many others are asked for after it.
    """

    archive: str | None
    base: str | None
    received: dict[str, int] = {}
    waiting: bool = False
    more: int = 0


class ReceivedOut(BaseModel):
    """How many bytes of a listing are here: go on from there."""

    received: int


class SimulationIn(RequestModel):
    """A retention to try on the archives there are; without one, the policy's own. `days` looks ahead."""

    retention: Retention | None = None
    hosts: Annotated[list[Reference], Field(max_length=100)] = Field([])
    days: int = Field(0, ge=0, le=800, description="Look so far ahead, with backups going on by the schedule")


class Fate(BaseModel):
    """What becomes of an archive: the rule that keeps it ("daily 3"; empty: pruned next), and when it goes.

    `kept_before` is the same by the policy as it is; `size` what the archive added to its repository.
    """

    id: uuid.UUID
    name: str
    started_at: datetime
    size: int | None
    kept_by: str
    kept_before: str
    expires_at: datetime | None


class Simulated(BaseModel):
    """The archives of one host's repository, newest first."""

    host: str
    repository_id: uuid.UUID
    archives: list[Fate]


class SimulationTotals(BaseModel):
    """Sums over the hosts of this page; `bytes` is what the pruned archives added when they were made."""

    archives: int
    kept: int
    pruned: int
    newly_pruned: int
    bytes: int


class SimulationOut(BaseModel):
    """What a retention would keep and prune; `before` is the policy's own."""

    policy: str
    retention: dict[str, Any]
    before: dict[str, Any]
    zone: str
    totals: SimulationTotals
    items: list[Simulated]
    next: str | None = None
