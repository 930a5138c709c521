"""Routes of repositories."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Depends

from saveos.accounts.access import Actor, describe, require
from saveos.core.errors import Invalid, NotFound
from saveos.core.inputs import Text
from saveos.core.pagination import DEFAULT_LIMIT, Cursor, Limit, Page, decode_id, split
from saveos.core.web import SessionDep
from saveos.hosts.service import get_host
from saveos.repositories import service
from saveos.repositories.schemas import RepositoryIn, RepositoryOut, RepositoryPatch

router = APIRouter(prefix="/repositories", tags=["repositories"])

Reader = Annotated[Actor, Depends(require("repositories:read"))]
Writer = Annotated[Actor, Depends(require("repositories:write"))]


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
