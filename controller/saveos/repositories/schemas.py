"""What travels about repositories."""

import uuid
from datetime import datetime

from pydantic import BaseModel

from saveos.core.inputs import Quota, RequestModel
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
