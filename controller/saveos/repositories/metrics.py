"""Figures of guards and storage for Prometheus: name, what it is about, and (labels, value) pairs."""

import uuid
from collections.abc import Iterator
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from saveos.accounts.models import Tenant
from saveos.hosts.models import Host
from saveos.repositories.models import Guard, GuardState, Repository

Figure = tuple[str, str, list[tuple[dict[str, str], float]]]


def figures(session: Session, tenant_id: uuid.UUID | None) -> Iterator[Figure]:
    """Yield the figures of a tenant, or of all. Three statements whatever the number of repositories."""
    yield _states(session, tenant_id)
    yield from _servers(session, tenant_id)
    yield from _repositories(session, tenant_id)


def _states(session: Session, tenant_id: uuid.UUID | None) -> Figure:
    state = func.coalesce(GuardState.state, "")
    query = select(Tenant.name, state, func.count()).select_from(Repository)
    query = query.join(Tenant, Tenant.id == Repository.tenant_id)
    query = query.outerjoin(GuardState, GuardState.repository_id == Repository.id)
    query = query.group_by(Tenant.name, state).order_by(Tenant.name, state)
    if tenant_id:
        query = query.where(Repository.tenant_id == tenant_id)
    rows: list[tuple[dict[str, str], float]] = [
        ({"tenant": tenant, "state": name or "none"}, count) for tenant, name, count in session.execute(query)
    ]
    return "saveos_guard_repositories", "Repositories by what their guard says.", rows


def _servers(session: Session, tenant_id: uuid.UUID | None) -> Iterator[Figure]:
    held = (
        select(func.sum(GuardState.held_bytes))
        .join(Repository, Repository.id == GuardState.repository_id)
        .where(Repository.server_id == Guard.server_id)
        .scalar_subquery()
    )
    query = select(Tenant.name, Host.name, Guard, held).join(Host, Host.id == Guard.server_id)
    query = query.join(Tenant, Tenant.id == Guard.tenant_id).order_by(Host.name)
    if tenant_id:
        query = query.where(Guard.tenant_id == tenant_id)
    rows = [
        ({"tenant": tenant, "server": server}, guard, held)
        for tenant, server, guard, held in session.execute(query)
    ]
    told: list[tuple[str, str, Any]] = [
        (
            "saveos_guard_reported_timestamp",
            "When each server's guard last reported.",
            lambda guard, _: guard.reported_at.timestamp(),
        ),
        ("saveos_guard_hold_days", "Days that each guard keeps its copies.", lambda guard, _: guard.hold_days),
        ("saveos_guard_held_bytes", "What copies keep beside repositories.", lambda _, held: int(held or 0)),
        (
            "saveos_storage_used_bytes",
            "Used space of the repositories' file system.",
            lambda guard, _: None if guard.total is None or guard.free is None else guard.total - guard.free,
        ),
        (
            "saveos_storage_free_bytes",
            "Free space of the repositories' file system.",
            lambda guard, _: guard.free,
        ),
    ]
    for name, about, pick in told:
        values = [(labels, pick(guard, held)) for labels, guard, held in rows]
        yield name, about, [(labels, round(value)) for labels, value in values if value is not None]


def _repositories(session: Session, tenant_id: uuid.UUID | None) -> Iterator[Figure]:
    times = (GuardState.keyless_at, GuardState.archives_at, GuardState.data_at)
    query = select(Tenant.name, Host.name, Repository.id, Repository.size, *times)
    query = query.select_from(Repository).join(Host, Host.id == Repository.host_id)
    query = query.join(Tenant, Tenant.id == Repository.tenant_id)
    query = query.outerjoin(GuardState, GuardState.repository_id == Repository.id).order_by(Repository.id)
    if tenant_id:
        query = query.where(Repository.tenant_id == tenant_id)
    sizes: list[tuple[dict[str, str], float]] = []
    checks: list[tuple[dict[str, str], float]] = []
    for tenant, host, identity, size, *moments in session.execute(query):
        labels = {"tenant": tenant, "host": host, "repository": str(identity)}
        if size is not None:
            sizes.append((labels, size))
        for kind, moment in zip(("keyless", "archives", "data"), moments, strict=True):
            if moment:
                checks.append((labels | {"kind": kind}, round(moment.timestamp())))
    yield "saveos_repository_size_bytes", "Size of each repository on its server.", sizes
    yield "saveos_check_timestamp", "When each repository was last checked, by kind.", checks
