"""Verbs of repositories."""

import uuid
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session, aliased

from saveos.accounts.service import first_tenant, get_tenant
from saveos.core.clock import now
from saveos.core.errors import Conflict, Invalid, NotFound
from saveos.core.inputs import is_loopback
from saveos.hosts.models import Host
from saveos.hosts.schemas import RepositoryFor
from saveos.hosts.service import get_host
from saveos.repositories.models import Repository
from saveos.repositories.schemas import RepositoryOut


def create_repository(session: Session, tenant_id: uuid.UUID, host: Host, asked: RepositoryFor) -> Repository:
    """Make a repository for a host; provisioning makes its directory. Raises Invalid, Conflict."""
    if not host.is_agent:
        raise Invalid(f"{host.name} is no agent, so it needs no repository", field="repository")
    server = None
    if asked.kind == "ssh":
        server = _server(session, tenant_id, asked.server)
        _refuse_unreachable(server, host)
        if asked.path:
            raise Invalid(
                "the server chooses the path: leave it out, or use kind local", field="repository.path"
            )
    elif not asked.path:
        raise Invalid("a local repository needs a path on the host", field="repository.path")
    elif asked.server:
        raise Invalid("a local repository has no server: leave it out", field="repository.server")
    server_id = server.id if server else None
    same = select(Repository.id).where(
        Repository.host_id == host.id, Repository.server_id == server_id, Repository.path == asked.path
    )
    if session.scalar(same):
        raise Conflict(f"{host.name} has a repository there already", field="repository")
    repository = Repository(
        tenant_id=tenant_id,
        host_id=host.id,
        server_id=server_id,
        kind=asked.kind,
        path=asked.path,
        quota=asked.quota,
        quota_bytes=parse_quota(asked.quota),
    )
    session.add(repository)
    session.flush()
    return repository


def create_on_server(session: Session, tenant_id: uuid.UUID, hosts: Sequence[Host], ref: str) -> None:
    """Make a repository on one storage server for each of these agents, which have none there yet.

    A few statements whatever their number. Raises Invalid.
    """
    server = _server(session, tenant_id, ref)
    for host in hosts:
        _refuse_unreachable(server, host)
    session.add_all(
        Repository(tenant_id=tenant_id, host_id=host.id, server_id=server.id, kind="ssh", path="", quota="")
        for host in hosts
    )
    session.flush()


def has_storage(session: Session, tenant_id: uuid.UUID) -> bool:
    """Whether the tenant has a storage server."""
    return bool(_servers(session, tenant_id))


def storage_tenant(session: Session, server: Host) -> str:
    """Return the tenant whose own Unix user keeps repositories on a storage server; empty is the shared user.

    Further tenants than the first have their own. What is provisioned keeps what its hosts know: their
    repositories' addresses name that user.
    """
    return storage_tenants(session, [server])[server.id]


def storage_tenants(session: Session, servers: Sequence[Host]) -> dict[uuid.UUID, str]:
    """Return `storage_tenant` of each server; two queries at most, as all are one tenant's."""
    told = {server.id: server.facts.get("server") for server in servers}
    found = {key: str(each.get("tenant") or "") for key, each in told.items() if isinstance(each, dict)}
    fresh = [server for server in servers if server.id not in found]
    first = first_tenant(session) if fresh else None
    for server in fresh:
        shared = first is None or first.id == server.tenant_id
        found[server.id] = "" if shared else get_tenant(session, server.tenant_id).name
    return found


def get_repository(session: Session, tenant_id: uuid.UUID, repository_id: uuid.UUID) -> Repository:
    """Return a repository. Raises NotFound."""
    repository = session.scalar(
        select(Repository).where(Repository.id == repository_id, Repository.tenant_id == tenant_id)
    )
    if repository is None:
        raise NotFound("there is no such repository: see GET /api/v1/repositories")
    return repository


def of_hosts(
    session: Session, tenant_id: uuid.UUID, host_ids: Collection[uuid.UUID]
) -> dict[uuid.UUID, list[Repository]]:
    """Return the repositories of hosts, oldest first."""
    found: dict[uuid.UUID, list[Repository]] = {}
    keys = list(host_ids)
    for start in range(0, len(keys), 500):
        query = (
            select(Repository)
            .where(Repository.tenant_id == tenant_id, Repository.host_id.in_(keys[start : start + 500]))
            .order_by(Repository.id)
        )
        for repository in session.scalars(query):
            found.setdefault(repository.host_id, []).append(repository)
    return found


def list_repositories(
    session: Session,
    tenant_id: uuid.UUID,
    *,
    host: str = "",
    after: uuid.UUID | None = None,
    limit: int,
) -> list[RepositoryOut]:
    """Return up to `limit` repositories in order of their making. Raises NotFound for an unknown host."""
    query = _with_names(tenant_id).order_by(Repository.id).limit(limit)
    if host:
        query = query.where(Repository.host_id == get_host(session, tenant_id, host).id)
    if after:
        query = query.where(Repository.id > after)
    return [_describe(*row) for row in session.execute(query)]


def describe_repository(session: Session, repository: Repository) -> RepositoryOut:
    """Return a repository as it travels."""
    row = session.execute(_with_names(repository.tenant_id).where(Repository.id == repository.id)).one()
    return _describe(*row)


def delete_repository(session: Session, repository: Repository) -> None:
    """Forget a repository that was never initialised. Raises Conflict: archives are never deleted here."""
    if repository.initialised_at is not None:
        raise Conflict("the repository is in use: SaveOS never deletes one that may hold archives")
    session.delete(repository)
    session.flush()


def record_initialised(repository: Repository, *, key_exported: bool) -> None:
    """Note what provisioning reported; the first time counts."""
    repository.initialised_at = repository.initialised_at or now()
    if key_exported:
        repository.key_exported_at = repository.key_exported_at or now()


def set_quota(repository: Repository, quota: str) -> None:
    """Set how much a repository may hold, in Borg's form; empty is no limit."""
    repository.quota, repository.quota_bytes = quota, parse_quota(quota)


def parse_quota(quota: str) -> int | None:
    """Return a quota in bytes as Borg reads it (500G is 500,000,000,000); None for none."""
    if not quota:
        return None
    power = "KMGT".find(quota[-1]) + 1
    return min(int(float(quota[:-1] if power else quota) * 1000**power), 2**63 - 1)


def _servers(session: Session, tenant_id: uuid.UUID) -> list[Host]:
    query = select(Host).where(
        Host.tenant_id == tenant_id, Host.is_storage_server, Host.state != "decommissioned"
    )
    return list(session.scalars(query.order_by(Host.id).limit(2)))


def _server(session: Session, tenant_id: uuid.UUID, ref: str | None) -> Host:
    field = "repository.server"
    if ref is None:
        servers = _servers(session, tenant_id)
        if len(servers) != 1:
            found = "there is none" if not servers else "there are several"
            raise Invalid(f"name the storage server: {found}", field=field)
        return servers[0]
    try:
        server = get_host(session, tenant_id, ref)
    except NotFound as error:
        raise Invalid(error.detail, field=field) from error
    if not server.is_storage_server or server.state == "decommissioned":
        raise Invalid(f"{server.name} is no storage server", field=field)
    return server


def _refuse_unreachable(server: Host, host: Host) -> None:
    """A server known by a loopback address, as after `saveos up`, is another one on every other host."""
    address = str(server.variables.get("server_address") or server.address)
    if is_loopback(address) and not is_loopback(host.address):
        raise Invalid(
            f"{server.name} is known as {address}, where {host.name} would find itself: name an address that "
            f"hosts reach it by (saveos hosts set {server.name} --reached-at ADDRESS), or another server",
            field="repository.server",
        )


def _with_names(tenant_id: uuid.UUID) -> Select[Any, Any, Any]:
    owner, server = aliased(Host, name="owner"), aliased(Host, name="server")
    return (
        select(Repository, owner.name, server.name)
        .join(owner, owner.id == Repository.host_id)
        .outerjoin(server, server.id == Repository.server_id)
        .where(Repository.tenant_id == tenant_id)
    )


def _describe(repository: Repository, host: str, server: str | None) -> RepositoryOut:
    columns = {
        name: getattr(repository, name)
        for name in RepositoryOut.model_fields
        if name in Repository.__mapper__.columns
    }
    return RepositoryOut(**columns, host=host, server=server)
