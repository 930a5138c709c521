"""Routes of repositories: what hosts keep where, what guards say of it, approvals, growth."""

import uuid
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query

from saveos.accounts.access import Actor, describe, require
from saveos.core.errors import Invalid, NotFound
from saveos.core.inputs import Text
from saveos.core.pagination import DEFAULT_LIMIT, Cursor, Limit, Page, decode_id, split
from saveos.core.web import SessionDep
from saveos.hosts.service import get_host
from saveos.repositories import guard, service, storage
from saveos.repositories.models import GuardState
from saveos.repositories.schemas import (
    ApprovalIn,
    ApprovalOut,
    CheckOut,
    CopyOut,
    GuardOut,
    RepositoryIn,
    RepositoryOut,
    RepositoryPatch,
    SampleOut,
    ServerStorageOut,
)

router = APIRouter(prefix="/repositories", tags=["repositories"])

Reader = Annotated[Actor, Depends(require("repositories:read"))]
Writer = Annotated[Actor, Depends(require("repositories:write"))]
Approver = Annotated[Actor, Depends(require("repositories:approve"))]
State = Literal["", "ok", "held", "approved", "compacted", "damaged", "missing", "broken"]
Days = Annotated[int, Query(ge=1, le=800)]


@router.get("")
def list_repositories(
    session: SessionDep, actor: Reader, host: Text = "", limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Page[RepositoryOut]:
    """List repositories."""
    rows = service.list_repositories(
        session, actor.tenant_id, host=host, after=decode_id(cursor), limit=limit + 1
    )
    items, following = split(rows, limit, lambda row: [str(row.id)])
    return Page(items=items, next=following)


@router.post("", status_code=201)
def create_repository(session: SessionDep, actor: Writer, body: RepositoryIn) -> RepositoryOut:
    """Make a further repository for a host; its directory comes with the next provisioning."""
    try:
        host = get_host(session, actor.tenant_id, body.host)
    except NotFound as error:
        raise Invalid(error.detail, field="host") from error
    repository = service.create_repository(session, actor.tenant_id, host, body)
    describe(session, f"repository:{repository.id}", host=host.name)
    return service.describe_repository(session, repository)


@router.get("/guard")
def list_guarded(
    session: SessionDep,
    actor: Reader,
    host: Text = "",
    server: Text = "",
    state: State = "",
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[GuardOut]:
    """List what guards say of repositories: held or not, why, how large, when checked."""
    rows = storage.list_guarded(
        session,
        actor.tenant_id,
        host=host,
        server=server,
        state=state,
        after=decode_id(cursor),
        limit=limit + 1,
    )
    items, following = split(rows, limit, lambda row: [str(row.repository_id)])
    return Page(items=items, next=following)


@router.get("/servers")
def list_storage_servers(session: SessionDep, actor: Reader) -> Page[ServerStorageOut]:
    """List storage servers: how full, what their guards hold back, when they would be full."""
    return Page(items=storage.list_servers(session, actor.tenant_id))


@router.get("/servers/{server}/growth")
def list_server_growth(session: SessionDep, actor: Reader, server: str, days: Days = 90) -> Page[SampleOut]:
    """Show how full a storage server was, day by day, oldest first."""
    found = get_host(session, actor.tenant_id, server)
    samples = storage.growth(session, [found.id], days).get(found.id, [])
    return Page(items=[SampleOut.model_validate(each) for each in samples])


@router.get("/{repository_id}")
def get_repository(session: SessionDep, actor: Reader, repository_id: uuid.UUID) -> RepositoryOut:
    """Show a repository."""
    repository = service.get_repository(session, actor.tenant_id, repository_id)
    return service.describe_repository(session, repository)


@router.patch("/{repository_id}")
def change_repository(
    session: SessionDep, actor: Writer, repository_id: uuid.UUID, body: RepositoryPatch
) -> RepositoryOut:
    """Change a repository's quota; it holds after the next provisioning of its server."""
    repository = service.get_repository(session, actor.tenant_id, repository_id)
    service.set_quota(repository, body.quota)
    session.flush()
    describe(session, f"repository:{repository.id}", quota=body.quota)
    return service.describe_repository(session, repository)


@router.delete("/{repository_id}", status_code=204)
def delete_repository(session: SessionDep, actor: Writer, repository_id: uuid.UUID) -> None:
    """Forget a repository that was never initialised."""
    service.delete_repository(session, service.get_repository(session, actor.tenant_id, repository_id))
    describe(session, f"repository:{repository_id}")


@router.get("/{repository_id}/guard")
def get_guarded(session: SessionDep, actor: Reader, repository_id: uuid.UUID) -> GuardOut:
    """Show what its guard says of a repository, with the reasons why it compacts nothing."""
    return storage.describe_guarded(session, service.get_repository(session, actor.tenant_id, repository_id))


@router.get("/{repository_id}/copies")
def list_copies(session: SessionDep, actor: Reader, repository_id: uuid.UUID) -> Page[CopyOut]:
    """List the copies that its guard holds of a repository, newest first: what undo can go back to."""
    repository = service.get_repository(session, actor.tenant_id, repository_id)
    found = guard.copies(session.get(GuardState, repository.id))
    return Page(items=[CopyOut.model_validate(each) for each in found])


@router.get("/{repository_id}/growth")
def list_growth(
    session: SessionDep, actor: Reader, repository_id: uuid.UUID, days: Days = 90
) -> Page[SampleOut]:
    """Show how large a repository was, day by day, oldest first."""
    repository = service.get_repository(session, actor.tenant_id, repository_id)
    samples = storage.growth(session, [repository.id], days).get(repository.id, [])
    return Page(items=[SampleOut.model_validate(each) for each in samples])


@router.get("/{repository_id}/checks")
def list_checks(
    session: SessionDep,
    actor: Reader,
    repository_id: uuid.UUID,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[CheckOut]:
    """List checks of a repository with what they found of each archive, newest first."""
    repository = service.get_repository(session, actor.tenant_id, repository_id)
    rows, following = split(
        guard.list_checks(session, repository, decode_id(cursor), limit + 1), limit, lambda row: [str(row.id)]
    )
    return Page(items=[CheckOut.model_validate(row) for row in rows], next=following)


@router.get("/{repository_id}/approvals")
def list_approvals(session: SessionDep, actor: Reader, repository_id: uuid.UUID) -> Page[ApprovalOut]:
    """List approvals of a repository, newest first, those that ended too."""
    repository = service.get_repository(session, actor.tenant_id, repository_id)
    rows = guard.approvals(session, [repository.id]).get(repository.id, [])
    return Page(items=[ApprovalOut.model_validate(row) for row in rows[:500]])


@router.post("/{repository_id}/approvals", status_code=201)
def approve_compaction(
    session: SessionDep, actor: Approver, repository_id: uuid.UUID, body: ApprovalIn
) -> ApprovalOut:
    """Approve that the guard compacts in spite of one reason, for exactly what its digest names.

    The guard learns it when it runs next, judges for itself, and still keeps its copies.
    """
    repository = service.get_repository(session, actor.tenant_id, repository_id)
    row = guard.approve(session, repository, **body.model_dump(), by=actor.name)
    describe(session, f"repository:{repository.id}", reason=row.reason, digest=row.digest, days=body.days)
    return ApprovalOut.model_validate(row)


@router.delete("/{repository_id}/approvals/{approval_id}", status_code=204)
def revoke_approval(
    session: SessionDep, actor: Approver, repository_id: uuid.UUID, approval_id: uuid.UUID
) -> None:
    """Take an approval back; what the guard did meanwhile stays done."""
    repository = service.get_repository(session, actor.tenant_id, repository_id)
    row = guard.revoke(session, repository, approval_id, actor.name)
    describe(session, f"repository:{repository.id}", reason=row.reason, revoked=str(row.id))
