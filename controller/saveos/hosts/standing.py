"""What agents tell about hosts, for many hosts at once: read their columns, change them, write them back."""

import uuid
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Table, bindparam, select, update
from sqlalchemy.orm import Session

from saveos.hosts.models import Host

MAX_VERSIONS = 40


@dataclass
class Standing:
    """The columns of a host that its agent's words change."""

    id: uuid.UUID
    tenant_id: uuid.UUID
    policy_id: uuid.UUID | None
    versions: dict[str, Any]
    seen_at: datetime | None
    last_run_state: str
    last_run_at: datetime | None
    last_backup_at: datetime | None
    last_size: int | None
    due_at: datetime | None
    heartbeat_at: datetime | None
    clock_skew: float | None
    disk_free_share: float | None
    heartbeat: dict[str, Any] | None = None  # written only: reading it back would cost, and nobody needs it

    def add_versions(self, told: Mapping[str, str | None]) -> None:
        """Keep the versions that were told, beside those known."""
        known = {**self.versions, **{name: version for name, version in told.items() if version}}
        if len(known) <= MAX_VERSIONS:
            self.versions = known


NAMES = tuple(field.name for field in fields(Standing) if field.name != "heartbeat")
TABLE = cast(Table, Host.__table__)


def load_standings(session: Session, host_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, Standing]:
    """Return hosts by id, locked in one order until the transaction ends, without those that are gone."""
    session.flush()
    query = select(*(TABLE.c[name] for name in NAMES)).where(TABLE.c.id.in_(host_ids))
    rows = session.connection().execute(query.order_by(TABLE.c.id).with_for_update())
    return {row.id: Standing(**row._mapping) for row in rows}


def save_standings(session: Session, before: Iterable[Standing], after: Mapping[uuid.UUID, Standing]) -> None:
    """Write what changed; one statement for all hosts of which the same columns did."""
    alike: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for old in before:
        new = after[old.id]
        names = (*NAMES, "heartbeat")
        changes = {name: getattr(new, name) for name in names if getattr(new, name) != getattr(old, name)}
        if changes:
            alike.setdefault(tuple(changes), []).append({**changes, "of": old.id})
            _forget(session, old.id, list(changes))
    for columns, rows in alike.items():
        values: dict[str, Any] = {name: bindparam(name) for name in columns}
        session.connection().execute(update(TABLE).where(TABLE.c.id == bindparam("of")).values(values), rows)


def copies(standings: Mapping[uuid.UUID, Standing]) -> list[Standing]:
    """Return copies, to be compared with what becomes of the originals."""
    return [replace(standing) for standing in standings.values()]


def _forget(session: Session, host_id: uuid.UUID, names: list[str]) -> None:
    """Let a host that this session has loaded read the changed columns again."""
    loaded = session.identity_map.get(session.identity_key(Host, host_id))
    if loaded is not None:
        session.expire(loaded, names)
