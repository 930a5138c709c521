"""Hosts in every condition, and channels."""

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from saveos.alerts import channels, rules, service
from saveos.alerts.models import Alert, Channel, Delivery
from saveos.alerts.schemas import ChannelIn
from saveos.core.clock import now
from saveos.core.database import write_lock
from saveos.hosts.models import Host
from saveos.repositories import rules as repository_rules
from saveos.repositories.models import Repository
from sqlalchemy import select

ALL = (*rules.FAMILIES, *repository_rules.FAMILIES)  # as the worker judges


class Fleet:
    """Shorthands: hosts and channels made and changed in transactions of their own, and sweeps."""

    def __init__(self, database: Any, tenant_id: uuid.UUID) -> None:
        self.database = database
        self.tenant_id = tenant_id
        self.start = now()

    def host(self, name: str, **changes: Any) -> uuid.UUID:
        """Add a host that is well; times are given as hours before now."""
        hours = {"created_at": 1000, "seen_at": 5, "last_run_at": 5, "last_backup_at": 5, "due_at": -20}
        hours["last_proven_at"] = 5
        with self.database.session() as session:
            host = Host(
                tenant_id=self.tenant_id, name=name, address=name, state="enrolled", last_run_state="succeeded"
            )
            session.add(host)
            session.flush()
            self._set(host, hours | changes)
        return host.id

    def repository(self, host_id: uuid.UUID, **fields: Any) -> uuid.UUID:
        """Add a repository on a server `vault`; times are given as hours before now."""
        server = self.host("vault", is_agent=False, is_storage_server=True, due_at=None)
        with self.database.session() as session:
            repository = Repository(tenant_id=self.tenant_id, host_id=host_id, server_id=server)
            session.add(repository)
            self._set(repository, fields)
        return repository.id

    def change_repository(self, repository_id: uuid.UUID, **changes: Any) -> None:
        with self.database.session() as session:
            self._set(session.get_one(Repository, repository_id), changes)

    def change(self, host_id: uuid.UUID, **changes: Any) -> None:
        with self.database.session() as session:
            self._set(session.get_one(Host, host_id), changes)

    def _set(self, row: Host | Repository, changes: dict[str, Any]) -> None:
        for key, value in changes.items():
            is_time = key.endswith(("_at", "_since")) and value is not None
            setattr(row, key, self.start - timedelta(hours=value) if is_time else value)

    def sweep(self, hours: float = 0) -> service.Swept:
        """Sweep as if it were so many hours later."""
        with self.database.session() as session:
            write_lock(session)
            return service.sweep(session, self.start + timedelta(hours=hours), ALL)

    def alerts(self, state: str = "all") -> list[Alert]:
        with self.database.session() as session:
            return service.list_alerts(session, self.tenant_id, state=state, limit=1000)[::-1]

    def channel(self, name: str = "ops", url: str = "https://hooks.example.net/x", **fields: Any) -> Channel:
        with self.database.session() as session:
            return channels.create_channel(session, self.tenant_id, ChannelIn(name=name, url=url, **fields))

    def queued(self, channel: Channel | None = None) -> list[Delivery]:
        with self.database.session() as session:
            query = select(Delivery).order_by(Delivery.id)
            return list(session.scalars(query.where(Delivery.channel_id == channel.id) if channel else query))


@pytest.fixture
def fleet(database: Any, tenant_id: uuid.UUID) -> Fleet:
    return Fleet(database, tenant_id)


@pytest.fixture
def statements(database: Any) -> Callable[[], list[str]]:
    """Return a function that lists the SQL statements sent so far."""
    from sqlalchemy import event

    seen: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *words: seen.append(words[2]))
    return lambda: seen
