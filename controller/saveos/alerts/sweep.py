"""The sweep: judges all objects in a few statements, and opens, resolves and reopens alerts."""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, func, insert, select, text, update
from sqlalchemy.orm import Session

from saveos.alerts.channels import Event, announce, events_of
from saveos.alerts.models import Alert
from saveos.alerts.rules import FAMILIES, RULES, Family, one_line
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


def sweep(session: Session, at: datetime | None = None, families: Sequence[Family] = FAMILIES) -> Swept:
    """Judge all objects of all tenants: open, resolve and reopen alerts, and queue what is told of it.

    A few statements whatever the number of hosts. On PostgreSQL one sweep runs at a time, others
    return at once; on SQLite the caller takes the write lock first. `at` is for tests.
    """
    at = at or now()
    if session.get_bind().dialect.name == "postgresql":
        lock = text("SELECT pg_try_advisory_xact_lock(:key)")
        if not session.scalar(lock, {"key": LOCK}):
            return Swept()
    resolved: list[Event] = []
    superseded: list[Event] = []
    opened: list[Event] = []
    more = False
    for family in families:
        told, quiet, mutes = _resolve_gone(session, family, at)
        fresh = _open_new(session, family, at, mutes)
        resolved, superseded, opened = resolved + told, superseded + quiet, opened + fresh
        more = more or BATCH in (len(fresh), len(told) + len(quiet))
    reopened = _end_mutes(session, at)
    _note_again(session, at, [rule for family in families for rule in family.rules])
    events = [*resolved, *opened, *reopened]
    announce(session, events)
    for tenant_id in {event.tenant_id for event in (*events, *superseded)}:
        touch(session, tenant_id, "alerts")
    return Swept(len(opened), len(resolved), len(reopened), more)


def _open_new(session: Session, family: Family, at: datetime, mutes: dict[uuid.UUID, datetime]) -> list[Event]:
    """Open an alert for each object of which a rule holds and none of the family is open yet.

    One that was muted stays so, and is not told.
    """
    found = family.judged(at).subquery("judged")
    open_one = and_(Alert.subject_id == found.c.id, Alert.rule.in_(family.rules), Alert.state != "resolved")
    query = select(found).outerjoin(Alert, open_one)
    query = query.where(found.c.rule.is_not(None), Alert.id.is_(None)).limit(BATCH)
    rows, events = [], []
    for facts in session.execute(query):
        rule = RULES[facts.rule]
        row = {
            "id": new_id(),
            "tenant_id": facts.tenant_id,
            "rule": facts.rule,
            "object": f"{family.kind}:{facts.id}",
            "subject_id": facts.id,
            "host_id": facts.host_id,
            "severity": rule.severity,
            "state": "muted" if facts.id in mutes else "open",
            "muted_until": mutes.get(facts.id),
            "summary": one_line(rule.sentence(facts)),
            "count": 1,
            "since": rule.since(facts) or at,
            "evidence_at": getattr(facts, "last_run_at", None),
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


def _resolve_gone(
    session: Session, family: Family, at: datetime
) -> tuple[list[Event], list[Event], dict[uuid.UUID, datetime]]:
    """Resolve a family's alerts whose rule holds no more, nor with slack.

    Second those that are not told, since another rule took over or they were muted; third until
    when objects were muted whose new rule inherits that.
    """
    found = family.judged(at).subquery("judged")
    columns = (
        getattr(Alert, name).label(f"alert_{name}")
        for name in ("id", "rule", "severity", "object", "state", "muted_until")
    )
    query = (
        select(found, *columns)
        .join(Alert, Alert.subject_id == found.c.id)
        .where(Alert.state != "resolved", Alert.rule.in_(family.rules))
        .where(func.coalesce(found.c.rule, "") != Alert.rule, func.coalesce(found.c.held, "") != Alert.rule)
        .limit(BATCH)
    )
    rows = {row.alert_id: row for row in session.execute(query)}
    gone: set[uuid.UUID] = set()
    for part in _chunks(list(rows)):
        close = update(ALERTS).where(Alert.id.in_(part), Alert.state != "resolved")
        close = close.values(state="resolved", resolved_at=at, muted_until=None)
        gone |= set(session.scalars(close.returning(Alert.id)))
    told: list[Event] = []
    quiet: list[Event] = []
    mutes: dict[uuid.UUID, datetime] = {}
    for facts in (rows[each] for each in rows if each in gone):
        row = {
            "id": facts.alert_id,
            "tenant_id": facts.tenant_id,
            "rule": facts.alert_rule,
            "severity": facts.alert_severity,
            "object": facts.alert_object,
            "host_id": facts.host_id,
        }
        muted = facts.alert_state == "muted"
        event = _event(row, "resolved", facts.name, one_line(_how(facts)))
        (quiet if facts.rule or muted else told).append(event)
        if facts.rule and muted and facts.alert_muted_until > at:
            mutes[facts.id] = facts.alert_muted_until
    return told, quiet, mutes


def _how(facts: Any) -> str:
    if facts.state in ("paused", "decommissioned"):
        return f"{facts.name} is {facts.state}: it is not watched any more."
    return RULES[facts.alert_rule].ended(facts)


def _end_mutes(session: Session, at: datetime) -> list[Event]:
    """Open muted alerts whose time is over."""
    over = update(Alert).where(Alert.state == "muted", Alert.muted_until <= at)
    alerts = session.scalars(over.values(state="open", muted_until=None).returning(Alert)).all()
    return events_of(session, alerts, "reopened")


def _note_again(session: Session, at: datetime, judged: Sequence[str]) -> None:
    """Count further failed runs, and note that lasting causes still hold; neither is told again."""
    last_run = select(Host.last_run_at).where(Host.id == Alert.host_id).scalar_subquery()
    failed = (Alert.state != "resolved", Alert.rule == "failed")
    again = update(Alert).where(*failed, Alert.evidence_at < last_run)
    plain = {"synchronize_session": False}
    session.execute(
        again.values(count=Alert.count + 1, evidence_at=last_run, last_seen=at), execution_options=plain
    )
    lasting = update(Alert).where(
        Alert.state != "resolved", Alert.rule.in_(judged), Alert.last_seen < at - REFRESH
    )
    session.execute(lasting.values(last_seen=at), execution_options=plain)


def _event(row: dict[str, Any], kind: str, host: str, said: str) -> Event:
    told = {key: row[key] for key in ("tenant_id", "rule", "severity", "object", "host_id")}
    return Event(alert_id=row["id"], kind=kind, host=host, text=said, **told)


def _chunks(ids: Sequence[uuid.UUID]) -> Iterable[Sequence[uuid.UUID]]:
    return (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))
