"""Lists about storage: repositories with what guards say, servers with their forecast, growth over time."""

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, case, func, or_, select
from sqlalchemy.orm import Session, aliased

from saveos.core.clock import now
from saveos.hosts.models import Host
from saveos.hosts.service import get_host
from saveos.repositories.models import Guard, GuardState, Repository, Sample
from saveos.repositories.schemas import GuardOut, Reason, ServerStorageOut

FORECAST_DAYS = 60  # of growth that a forecast looks back on
LEAST_DAYS = 3
LONGEST_FORECAST = 3650
STATES = ("held", "damaged", "missing", "approved", "ok", "compacted")
CHECKS_BROKEN = ("damaged", "failed")

OWNER, SERVER = aliased(Host, name="owner"), aliased(Host, name="server")


def list_guarded(
    session: Session,
    tenant_id: uuid.UUID,
    *,
    host: str = "",
    server: str = "",
    state: str = "",
    after: uuid.UUID | None = None,
    limit: int,
) -> list[GuardOut]:
    """Return up to `limit` repositories with what guards say of them, in order of their making.

    `state` is one of a guard's, or `broken` for those whose last check failed. Raises NotFound.
    """
    query = _guarded(tenant_id).order_by(Repository.id).limit(limit)
    if host:
        query = query.where(Repository.host_id == get_host(session, tenant_id, host).id)
    if server:
        query = query.where(Repository.server_id == get_host(session, tenant_id, server).id)
    if state == "broken":
        query = query.where(broken())
    elif state:
        query = query.where(GuardState.state == state)
    if after:
        query = query.where(Repository.id > after)
    return [_describe(row) for row in session.execute(query)]


def broken() -> ColumnElement[bool]:
    """Whether the last check of a kind failed, as SQL over GuardState."""
    kinds = (GuardState.keyless_state, GuardState.archives_state, GuardState.data_state)
    return or_(*(kind.in_(CHECKS_BROKEN) for kind in kinds))


def describe_guarded(session: Session, repository: Repository) -> GuardOut:
    """Return a repository with what its guard says of it."""
    query = _guarded(repository.tenant_id).where(Repository.id == repository.id)
    return _describe(session.execute(query).one())


def _guarded(tenant_id: uuid.UUID) -> Select[Any, Any, Any, Any]:
    return (
        select(Repository, GuardState, OWNER.name, SERVER.name)
        .join(OWNER, OWNER.id == Repository.host_id)
        .outerjoin(SERVER, SERVER.id == Repository.server_id)
        .outerjoin(GuardState, GuardState.repository_id == Repository.id)
        .where(Repository.tenant_id == tenant_id)
    )


def _describe(row: Row[Any, Any, Any, Any]) -> GuardOut:
    repository, found, owner, server = row
    state = found or GuardState(state="", reasons=[], digest="", copies=[], check_detail="")
    columns = {
        name: getattr(state, name)
        for name in GuardOut.model_fields
        if name in GuardState.__mapper__.columns and name not in ("repository_id", "reasons", "copies")
    }
    columns |= {name: columns[name] or "" for name in ("keyless_state", "archives_state", "data_state")}
    return GuardOut(
        **columns,
        repository_id=repository.id,
        host=owner,
        server=server,
        server_id=repository.server_id,
        reasons=[Reason.model_validate(each) for each in state.reasons],
        copies=len(state.copies),
        size=repository.size,
        quota=repository.quota,
        quota_bytes=repository.quota_bytes,
    )


def list_servers(session: Session, tenant_id: uuid.UUID, at: datetime | None = None) -> list[ServerStorageOut]:
    """Return storage servers by name: fill, guard, forecast. A few statements whatever their number."""
    counts = (
        func.count(),
        func.sum(case((GuardState.state == "held", 1), else_=0)),
        func.coalesce(func.sum(GuardState.held_bytes), 0),
    )
    sums = (
        select(Repository.server_id, *counts)
        .outerjoin(GuardState, GuardState.repository_id == Repository.id)
        .where(Repository.tenant_id == tenant_id, Repository.server_id.is_not(None))
        .group_by(Repository.server_id)
    )
    numbers = {row[0]: row[1:] for row in session.execute(sums)}
    query = (
        select(Host.id, Host.name, Guard)
        .outerjoin(Guard, Guard.server_id == Host.id)
        .where(Host.tenant_id == tenant_id, Host.is_storage_server, Host.state != "decommissioned")
        .order_by(Host.name)
    )
    rows = session.execute(query).all()
    grown = growth(session, [row[0] for row in rows], FORECAST_DAYS, at)
    return [_server(row, numbers.get(row[0], (0, 0, 0)), grown.get(row[0], [])) for row in rows]


def _server(row: Row[Any, Any, Any], numbers: Sequence[Any], samples: Sequence[Sample]) -> ServerStorageOut:
    identity, name, guard = row
    repositories, held, held_bytes = numbers
    free = guard.free if guard else None
    return ServerStorageOut(
        server_id=identity,
        server=name,
        repositories=repositories,
        held=held or 0,
        used=guard.total - guard.free if guard and guard.total is not None and guard.free is not None else None,
        free=free,
        held_bytes=int(held_bytes),
        full_in_days=full_in(samples, free),
        hold_days=guard.hold_days if guard else None,
        version=guard.version if guard else "",
        clock_synced=guard.clock_synced if guard else None,
        reported_at=guard.reported_at if guard else None,
        refused=guard.refused if guard else "",
    )


def growth(
    session: Session, subjects: Sequence[uuid.UUID], days: int, at: datetime | None = None
) -> dict[uuid.UUID, list[Sample]]:
    """Return the samples of repositories or servers of the last `days` days, oldest first."""
    first = (at or now()).date() - timedelta(days=days)
    found: dict[uuid.UUID, list[Sample]] = {}
    for start in range(0, len(subjects), 500):
        query = select(Sample).where(Sample.subject_id.in_(subjects[start : start + 500]), Sample.day >= first)
        for sample in session.scalars(query.order_by(Sample.day)):
            found.setdefault(sample.subject_id, []).append(sample)
    return found


def full_in(samples: Sequence[Sample], free: int | None) -> int | None:
    """Return in how many days `free` bytes are used up if growth goes on as it did; None for never."""
    points = [(each.day.toordinal(), each.used) for each in samples]
    if free is None or len(points) < LEAST_DAYS:
        return None
    slope = daily_growth(points)
    days = free / slope if slope > 0 else float("inf")
    return int(days) if days <= LONGEST_FORECAST else None


def daily_growth(points: Sequence[tuple[int, int]]) -> float:
    """Return the slope of the line of least squares through (day, bytes), in bytes a day."""
    middle = sum(day for day, _ in points) / len(points)
    mean = sum(used for _, used in points) / len(points)
    spread = sum((day - middle) ** 2 for day, _ in points)
    return sum((day - middle) * (used - mean) for day, used in points) / spread if spread else 0.0


def totals(session: Session, tenant_id: uuid.UUID) -> dict[str, Any]:
    """Return how many repositories there are in each state, and what they hold together."""
    state = func.coalesce(GuardState.state, "")
    query = (
        select(state, func.count(), func.sum(Repository.size))
        .select_from(Repository)
        .outerjoin(GuardState, GuardState.repository_id == Repository.id)
        .where(Repository.tenant_id == tenant_id)
        .group_by(state)
    )
    rows = session.execute(query).all()
    failing = (
        select(func.count()).select_from(GuardState).where(GuardState.tenant_id == tenant_id).where(broken())
    )
    return {
        "repositories": sum(row[1] for row in rows),
        "bytes": int(sum(row[2] or 0 for row in rows)),
        "states": {row[0]: row[1] for row in rows},
        "broken": session.scalar(failing) or 0,
    }
