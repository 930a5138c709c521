"""The sweep: judges all hosts in a few statements, and opens, resolves and reopens alerts."""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, insert, or_, select, text, update
from sqlalchemy.orm import Session

from saveos.alerts import rules
from saveos.alerts.channels import Event, announce, events_of
from saveos.alerts.models import Alert
from saveos.alerts.rules import HOST_RULES, RULES, one_line
from saveos.core.clock import now
from saveos.core.database import new_id, touch
from saveos.hosts.models import Host

REFRESH = timedelta(minutes=10)  # a lasting cause is noted as seen at most so often
BATCH = 1000  # alerts opened or resolved in one transaction: check-ins wait for SQLite's lock meanwhile
CHUNK = 500
LOCK = 0x5A7E06  # of PostgreSQL's advisory locks: ours


ALERTS = Alert.metadata.tables[Alert.__tablename__]  # in bulk, without the ORM's bookkeeping


@dataclass(frozen=True)
class Swept:
    """What one sweep did; with `more` it left something for the next, to be called at once."""

    opened: int = 0
    resolved: int = 0
    reopened: int = 0
    more: bool = False


def sweep(session: Session, at: datetime | None = None) -> Swept:
    """Judge all hosts of all tenants: open, resolve and reopen alerts, and queue what is told of it.

    A few statements whatever the number of hosts. On PostgreSQL one sweep runs at a time, others
    return at once; on SQLite the caller takes the write lock first. `at` is for tests.
    """
    at = at or now()
    if session.get_bind().dialect.name == "postgresql":
        lock = text("SELECT pg_try_advisory_xact_lock(:key)")
        if not session.scalar(lock, {"key": LOCK}):
            return Swept()
    resolved, superseded, mutes = _resolve_gone(session, at)
    opened = _open_new(session, at, mutes)
    reopened = _end_mutes(session, at)
    _note_again(session, at)
    events = [*resolved, *opened, *reopened]
    announce(session, events)
    for tenant_id in {event.tenant_id for event in (*events, *superseded)}:
        touch(session, tenant_id, "alerts")
    more = BATCH in (len(opened), len(resolved) + len(superseded))
    return Swept(len(opened), len(resolved), len(reopened), more)


def _open_new(session: Session, at: datetime, mutes: dict[uuid.UUID, datetime]) -> list[Event]:
    """Open an alert for each host whose rule has none yet; a host that was muted stays so, and is not told."""
    host = rules.judged(at)
    same = and_(Alert.host_id == host.c.id, Alert.rule == host.c.rule, Alert.state != "resolved")
    query = select(host).outerjoin(Alert, same).where(host.c.rule.is_not(None), Alert.id.is_(None)).limit(BATCH)
    rows, events = [], []
    for facts in session.execute(query):
        rule = RULES[facts.rule]
        row = {
            "id": new_id(),
            "tenant_id": facts.tenant_id,
            "rule": facts.rule,
            "object": f"host:{facts.id}",
            "host_id": facts.id,
            "severity": rule.severity,
            "state": "muted" if facts.id in mutes else "open",
            "muted_until": mutes.get(facts.id),
            "summary": one_line(rule.sentence(facts)),
            "count": 1,
            "since": rule.since(facts) or at,
            "evidence_at": facts.last_run_at,
            "first_seen": at,
            "last_seen": at,
            "acknowledged_by": "",
        }
        rows.append(row)
        if facts.id not in mutes:
            events.append(_event(row, "opened", facts.name, row["summary"]))
    if rows:
        session.execute(insert(ALERTS), rows)
    return events


def _resolve_gone(session: Session, at: datetime) -> tuple[list[Event], list[Event], dict[uuid.UUID, datetime]]:
    """Resolve host alerts whose rule holds no more.

    Second those that are not told, since another rule took over or they were muted; third until
    when hosts were muted whose new rule inherits that.
    """
    host = rules.judged(at)
    query = (
        select(Alert.id, Alert.tenant_id, Alert.rule, Alert.severity, Alert.object, Alert.host_id)
        .add_columns(
            Alert.state,
            Alert.muted_until,
            host.c.name,
            host.c.state.label("host_state"),
            host.c.last_backup_at,
            host.c.rule.label("now"),
        )
        .join(host, host.c.id == Alert.host_id)
        .where(Alert.state != "resolved", Alert.rule.in_(HOST_RULES))
        .where(or_(host.c.rule.is_(None), host.c.rule != Alert.rule))
        .limit(BATCH)
    )
    rows = {row.id: row for row in session.execute(query)}
    gone: set[uuid.UUID] = set()
    for part in _chunks(list(rows)):
        close = update(ALERTS).where(Alert.id.in_(part), Alert.state != "resolved")
        close = close.values(state="resolved", resolved_at=at, muted_until=None)
        gone |= set(session.scalars(close.returning(Alert.id)))
    told: list[Event] = []
    quiet: list[Event] = []
    mutes: dict[uuid.UUID, datetime] = {}
    for row in (rows[each] for each in rows if each in gone):
        event = _event(row._asdict(), "resolved", row.name, _how(row))
        (quiet if row.now or row.state == "muted" else told).append(event)
        if row.now and row.state == "muted" and row.muted_until > at:
            mutes[row.host_id] = row.muted_until
    return told, quiet, mutes


def _how(row: Any) -> str:
    if row.host_state in ("paused", "decommissioned"):
        return f"{row.name} is {row.host_state}: it is not watched any more."
    if row.rule == "never_enrolled":
        return f"{row.name} is provisioned."
    last = f"{row.last_backup_at:%Y-%m-%d %H:%M} UTC" if row.last_backup_at else "none yet"
    return f"{row.name} is well again. Last backup: {last}."


def _end_mutes(session: Session, at: datetime) -> list[Event]:
    """Open muted alerts whose time is over."""
    over = update(Alert).where(Alert.state == "muted", Alert.muted_until <= at)
    alerts = session.scalars(over.values(state="open", muted_until=None).returning(Alert)).all()
    return events_of(session, alerts, "reopened")


def _note_again(session: Session, at: datetime) -> None:
    """Count further failed runs, and note that lasting causes still hold; neither is told again."""
    last_run = select(Host.last_run_at).where(Host.id == Alert.host_id).scalar_subquery()
    failed = (Alert.state != "resolved", Alert.rule == "failed")
    again = update(Alert).where(*failed, Alert.evidence_at < last_run)
    plain = {"synchronize_session": False}
    session.execute(
        again.values(count=Alert.count + 1, evidence_at=last_run, last_seen=at), execution_options=plain
    )
    lasting = update(Alert).where(
        Alert.state != "resolved", Alert.rule.in_(HOST_RULES), Alert.last_seen < at - REFRESH
    )
    session.execute(lasting.values(last_seen=at), execution_options=plain)


def _event(row: dict[str, Any], kind: str, host: str, said: str) -> Event:
    told = {key: row[key] for key in ("tenant_id", "rule", "severity", "object", "host_id")}
    return Event(alert_id=row["id"], kind=kind, host=host, text=said, **told)


def _chunks(ids: Sequence[uuid.UUID]) -> Iterable[Sequence[uuid.UUID]]:
    return (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))
