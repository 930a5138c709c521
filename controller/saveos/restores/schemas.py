"""What travels about restores."""

import uuid
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from saveos.core.inputs import AbsolutePath, RequestModel
from saveos.hosts.schemas import Reference
from saveos.jobs.schemas import JobOut
from saveos.secrets.schemas import EscrowState

Paths = Annotated[list[AbsolutePath], Field(max_length=10_000)]
Destination = AbsolutePath | Literal[""]
ArchiveReference = Annotated[str, Field(min_length=1, max_length=400, pattern=r"^[^\x00-\x1f]+$")]


class RestoreIn(RequestModel):
    """What to bring back.

    `archive` is an archive's id, or `latest` of `host`. No paths: the whole archive. `destination` is a
    directory on the host that is absent or empty; without it, one below the agent's state directory.
    """

    archive: ArchiveReference = "latest"
    host: Reference | None = None
    paths: Paths = Field([])
    destination: Destination = ""
    target_host: Reference | None = None


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
    destination: str
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
