"""What storage servers see of repositories, beside what hosts claim.

A host may say that it made an archive; its server knows whether anything was committed. The two are
compared here, when a server reports. Margins are for clocks and for a commit that takes its time.
"""

import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Annotated, NamedTuple

from pydantic import BaseModel, Field
from sqlalchemy import bindparam, or_, select, update
from sqlalchemy.orm import Session

from saveos.core.clock import now
from saveos.hosts.models import Host
from saveos.repositories.models import Repository
from saveos.repositories.service import parse_quota

MARGIN = timedelta(minutes=15)

Bytes = Annotated[int, Field(ge=0, lt=2**63)]


REPOSITORIES = Repository.metadata.tables[Repository.__tablename__]
_BEGUN = bindparam("begun", type_=REPOSITORIES.c.claimed_at.type)
_NOTE_CLAIM = (
    update(REPOSITORIES)
    .where(REPOSITORIES.c.id == bindparam("which"))
    .where(or_(REPOSITORIES.c.claimed_at.is_(None), REPOSITORIES.c.claimed_at < _BEGUN))
    .values(claimed_at=_BEGUN, claimed_told_at=bindparam("told"))
)


class Claim(NamedTuple):
    """An archive as its host tells of it: begun when, by a clock that is so many seconds ahead."""

    repository_id: uuid.UUID
    started_at: datetime
    clock_skew: float | None = None


class RepositorySeen(BaseModel):
    """One directory on a storage server; ages in seconds by its clock, none where nothing was committed."""

    id: Annotated[str, Field(max_length=64)]
    initialised: bool = False
    commit_age: Annotated[int, Field(ge=0, lt=10**10)] | None = None
    bytes: Bytes | None = None
    foreign: Annotated[int, Field(ge=0)] | None = None


class StorageSeen(BaseModel):
    """What `server_report` tells of a storage server; `at` is when, by its own clock."""

    at: Annotated[str, Field(max_length=40)] = ""
    root: Annotated[str, Field(max_length=4096)] = ""
    user: Annotated[str, Field(max_length=64)] = ""
    free: Bytes
    total: Bytes
    inodes: Bytes | None = None  # how many; without them where the file system does not count them
    inodes_free: Bytes = 0
    repositories: Annotated[list[RepositorySeen], Field(max_length=20_000)] = []

    def free_share(self) -> float | None:
        """Return how much is free, 0 to 1, of space or inodes, the lesser; None where neither is counted."""
        pairs = ((self.free, self.total), (self.inodes_free, self.inodes or 0))
        return min((free / total for free, total in pairs if total), default=None)


def record_claims(session: Session, claims: Iterable[Claim]) -> None:
    """Note archives that hosts say they made just now; the newest of a repository counts.

    A wrong clock of the host is reckoned with, and a time in the future is now. One statement.
    """
    at = now()
    newest: dict[uuid.UUID, datetime] = {}
    for claim in claims:
        begun = min(claim.started_at - timedelta(seconds=claim.clock_skew or 0), at)
        newest[claim.repository_id] = max(begun, newest.get(claim.repository_id, begun))
    if newest:
        rows = [{"which": key, "begun": newest[key], "told": at} for key in sorted(newest)]
        session.connection().execute(_NOTE_CLAIM, rows)


def record_report(session: Session, server: Host, seen: StorageSeen, looked_at: datetime) -> None:
    """Take over what a storage server saw of the repositories that it holds.

    `looked_at` is a time at which it had not looked yet, by the controller's clock: what a host told
    before that must be there. A repository that the server does not mention is gone.
    """
    at = now()
    told = {each.id: each for each in seen.repositories}
    query = select(Repository).where(
        Repository.tenant_id == server.tenant_id,
        Repository.server_id == server.id,
        Repository.initialised_at.is_not(None),
    )
    for repository in session.scalars(query):
        _compare(repository, told.get(str(repository.id)), seen, at, looked_at)


def _compare(
    repository: Repository, found: RepositorySeen | None, seen: StorageSeen, at: datetime, looked_at: datetime
) -> None:
    repository.checked_at = looked_at
    repository.quota_bytes = parse_quota(repository.quota)
    repository.fault = _fault(found, seen)
    age = found.commit_age if found else None
    repository.last_commit_at = None if age is None else at - timedelta(seconds=age)
    if found and found.bytes is not None:
        repository.size = found.bytes
    claimed, told = repository.claimed_at, repository.claimed_told_at
    if claimed is None or told is None or told >= looked_at:
        return  # nothing to compare, or it came in meanwhile: the next report tells
    committed = repository.last_commit_at
    if committed is not None and committed >= claimed - MARGIN:
        repository.missing_since = None
    else:
        repository.missing_since = repository.missing_since or at


def _fault(found: RepositorySeen | None, seen: StorageSeen) -> str:
    if found is None:
        return f"its directory is gone from {seen.root}/repositories"[:200]
    if not found.initialised:
        return "its directory holds no Borg repository any more"
    if found.commit_age is None:
        return "it holds no committed data any more"
    if found.foreign:
        files = "1 file in it does" if found.foreign == 1 else f"{found.foreign} files in it do"
        return f"{files} not belong to {seen.user}, so that backups can fail"[:200]
    return ""
