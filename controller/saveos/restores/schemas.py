"""What travels about restores."""

import uuid
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from saveos.core.inputs import AbsolutePath, RequestModel
from saveos.hosts.schemas import Reference
from saveos.jobs.schemas import JobOut
from saveos.secrets.schemas import EscrowState

Paths = Annotated[list[AbsolutePath], Field(max_length=10_000)]
Destination = AbsolutePath | Literal[""]
ArchiveReference = Annotated[str, Field(min_length=1, max_length=400, pattern=r"^[^\x00-\x1f]+$")]


Ref = Annotated[str, Field(min_length=1, max_length=6000, pattern=r"^[A-Za-z0-9_-]+={0,2}$")]
Refs = Annotated[list[Ref], Field(max_length=10_000)]
Conflict = Literal["refuse", "skip", "rename", "overwrite", "newer"]
Kind = Literal["host", "other_host", "download", "drill"]  # to the archive's host, another, a person, a sandbox
Form = Literal["tar", "tar.gz", "tar.zst", "diff", "txt"]
Count = Annotated[int, Field(ge=0, le=2**63 - 1)]


class Selection(RequestModel):
    """What of an archive to bring back, where to, and what happens to what is there.

    No paths and no refs: the whole archive. Refs are paths as the catalogue's lists return them, so that names
    of any bytes can be chosen. `destination` is a directory on the host; without it, one below the agent's
    state directory. `in_place` puts everything back to where it came from. `conflict`: refuse takes an absent
    or empty directory only; skip keeps what is there; rename puts what is restored beside it; overwrite
    replaces it; newer replaces what is older. Without `owners` everything belongs to root, and is setuid to
    nobody; `acls` and `xattrs` say whether those come back.
    """

    paths: Paths = Field([])
    refs: Refs = Field([])
    excludes: Paths = Field([])
    exclude_refs: Refs = Field([])
    destination: Destination = ""
    in_place: bool = False
    conflict: Conflict = "refuse"
    verify: bool = True
    owners: bool = True
    acls: bool = True
    xattrs: bool = True

    @model_validator(mode="after")
    def _fits(self) -> "Selection":
        if self.in_place and self.destination:
            raise ValueError("in place there is no other destination: leave one of them out")
        if self.destination and not self.destination.strip("/."):
            raise ValueError("everything came from below /: ask for a restore in place")
        if self.in_place and self.conflict == "refuse":
            raise ValueError("in place needs a rule: conflict skip, rename, overwrite or newer")
        if any(path.rstrip("/") + "/" == "/" for path in (*self.paths, *self.excludes)):
            raise ValueError("the path / cannot be chosen: leave paths out for the whole archive")
        return self


class TextIn(RequestModel):
    """A file whose text is shown."""

    path: AbsolutePath | Literal[""] = ""
    ref: Annotated[str, Field(max_length=8192)] = ""

    @model_validator(mode="after")
    def _one(self) -> "TextIn":
        if bool(self.path) == bool(self.ref):
            raise ValueError("name the file by path or by ref")
        return self


class DifferenceIn(TextIn):
    """A file whose text is compared with `other`, an archive of the same host; null is the host now."""

    other: uuid.UUID | None = None


class RestoreIn(Selection):
    """What to bring back: `archive` is an archive's id, or `latest` of `host`.

    With `preview` nothing is changed: the restore's outcome then says what would be. `target_host` is another
    host, to whose directory (or with `in_place` to whose paths) it goes. With `download` it goes to whoever
    reads GET /restores/{id}/content, as a tar archive.
    """

    archive: ArchiveReference = "latest"
    host: Reference | None = None
    target_host: Reference | None = None
    preview: bool = False
    download: bool = False

    @model_validator(mode="after")
    def _one_place(self) -> "RestoreIn":
        if self.download and (self.target_host or self.destination or self.in_place or self.preview):
            raise ValueError(
                "a download goes to its reader: leave target_host, destination, in_place, preview out"
            )
        return self


class Entry(BaseModel):
    """One path of a preview and what would happen to it."""

    path: Annotated[str, Field(max_length=5000)]
    action: Annotated[str, Field(max_length=20)]


class Failed(BaseModel):
    """One path that could not be restored, and why."""

    path: Annotated[str, Field(max_length=5000)]
    message: Annotated[str, Field(max_length=5000)] = ""


class Outcome(BaseModel):
    """What a host told of a restore or of its preview. `verified`: each file's hash is the archive's."""

    model_config = ConfigDict(extra="ignore")

    destination: Annotated[str, Field(max_length=4096)] = ""
    files: Count = 0
    bytes: Count = 0
    free: Count | None = None
    fits: bool | None = None
    created: Count = 0
    overwritten: Count = 0
    skipped: Count = 0
    renamed: Count = 0
    blocked: Count = 0
    verified: bool | None = None
    verified_files: Count = 0
    failed_total: Count = 0
    tries: Count = 1
    form: Annotated[str, Field(max_length=20, description="How a download is packed: tar.zst or tar.gz")] = ""
    sent: Count = 0
    entries: Annotated[list[Entry], Field(max_length=1000)] = []
    failed_files: Annotated[list[Failed], Field(max_length=1000)] = []


class RestoreOut(BaseModel):
    """A restore request; how it went is its job's story."""

    id: uuid.UUID
    archive_id: uuid.UUID
    archive: str
    host_id: uuid.UUID
    host: str
    job_id: uuid.UUID
    state: str
    paths: list[str]
    refs: list[str]
    excludes: list[str]
    exclude_refs: list[str]
    destination: str
    in_place: bool
    conflict: Conflict
    verify: bool
    owners: bool
    acls: bool
    xattrs: bool
    preview: bool
    kind: Kind
    target_host_id: uuid.UUID | None
    target_host: str | None
    outcome: Outcome | None = Field(description="What the host told, once it did")
    error: str = Field(description="Why it failed, as a host told; empty where it did not")
    requested_by: str
    created_at: datetime


class RestoreCreated(BaseModel):
    """The restore and the job that does it."""

    restore: RestoreOut
    job: JobOut


class EscrowStateOut(BaseModel):
    """How a repository's escrow is: fresh (the recovery key in force opens it), stale (an earlier), none."""

    repository_id: uuid.UUID
    host_id: uuid.UUID
    host: str
    state: EscrowState
    sealed_at: datetime | None


class EscrowOut(BaseModel):
    """What a host sealed about a repository; `sealed` is base64 that the recovery key's private half opens."""

    repository_id: uuid.UUID
    url: str
    host_keys: list[str]
    known_hosts: str
    recovery_key: str = Field(description="Fingerprint of the recovery key that it is sealed to")
    sealed: str
    sealed_at: datetime
