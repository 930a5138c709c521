"""Verbs of alerts: judge all hosts, open and resolve, acknowledge, mute, list."""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, delete, insert, or_, select, text, update
from sqlalchemy.orm import Session

from saveos.alerts import rules
from saveos.alerts.channels import Event, announce
from saveos.alerts.models import Alert, Delivery
from saveos.alerts.rules import HOST_RULES, RULES, Severity
from saveos.alerts.schemas import AlertOut
from saveos.core.clock import now
from saveos.core.database import new_id, touch
from saveos.core.errors import Conflict, Invalid, NotFound
from saveos.hosts.models import Host
from saveos.hosts.service import get_host

UNRESOLVED = ("open", "acknowledged", "muted")
REFRESH = timedelta(minutes=10)  # a lasting cause is noted as seen at most so often
LONGEST_MUTE = timedelta(days=366)
KEEP_ALERTS = timedelta(days=365)
KEEP_DELIVERIES = timedelta(days=30)
CHUNK = 500
SWEEP_LOCK = 0x5A7E06  # of PostgreSQL's advisory locks: ours


@dataclass(frozen=True)
class Swept:
    """What one sweep did."""

    opened: int = 0
    resolved: int = 0
    reopened: int = 0


def sweep(session: Session, at: datetime | None = None) -> Swept:
    """Judge all hosts of all tenants: open, resolve and reopen alerts, and queue what is told of it.

    A few statements whatever the number of hosts. On PostgreSQL one sweep runs at a time, others
    return at once; on SQLite the caller takes the write lock first. `at` is for tests.
    """
    at = at or now()
    if session.get_bind().dialect.name == "postgresql":
        lock = text("SELECT pg_try_advisory_xact_lock(:key)")
        if not session.scalar(lock, {"key": SWEEP_LOCK}):
            return Swept()
    resolved, superseded = _resolve_gone(session, at)
    opened = _open_new(session, at)
    reopened = _end_mutes(session, at)
    _note_again(session, at)
    events = [*resolved, *opened, *reopened]
    announce(session, events)
    for tenant_id in {event.tenant_id for event in (*events, *superseded)}:
        touch(session, tenant_id, "alerts")
    return Swept(len(opened), len(resolved), len(reopened))


def open_alert(
    session: Session,
    tenant_id: uuid.UUID,
    rule: str,
    object_: str,
    summary: str,
    *,
    severity: Severity | None = None,
    host_id: uuid.UUID | None = None,
) -> Alert:
    """Say that a cause holds; said again it only counts. For features that find causes themselves.

    `object_` names what it is about ("repository:ID"); `summary` is one sentence, never a secret.
    The caller holds SQLite's write lock, or has written already.
    """
    at = now()
    seen = update(Alert).where(*_cause(tenant_id, rule, object_))
    again = seen.values(count=Alert.count + 1, last_seen=at, summary=_line(summary))
    known: Alert | None = session.scalar(again.returning(Alert))
    if known is not None:
        touch(session, tenant_id, "alerts")
        return known
    default: Severity = RULES[rule].severity if rule in RULES else "warning"
    alert = Alert(
        tenant_id=tenant_id,
        rule=rule,
        object=object_,
        host_id=host_id,
        severity=severity or default,
        summary=_line(summary),
        since=at,
        first_seen=at,
        last_seen=at,
    )
    session.add(alert)
    session.flush()
    announce(session, [_event(alert, "opened", alert.summary)])
    touch(session, tenant_id, "alerts")
    return alert


def resolve_alert(session: Session, tenant_id: uuid.UUID, rule: str, object_: str, how: str = "") -> bool:
    """Say that a cause is gone; return whether there was an unresolved alert. `how` is one sentence."""
    before = session.scalar(select(Alert.state).where(*_cause(tenant_id, rule, object_)))
    if before is None:
        return False
    closed = update(Alert).where(*_cause(tenant_id, rule, object_)).values(state="resolved", resolved_at=now())
    alert = session.scalar(closed.returning(Alert))
    if alert is None:
        return False
    if before != "muted":
        announce(session, [_event(alert, "resolved", _line(how) or alert.summary)])
    touch(session, tenant_id, "alerts")
    return True


def get_alert(session: Session, tenant_id: uuid.UUID, alert_id: uuid.UUID) -> Alert:
    """Return an alert. Raises NotFound."""
    alert = session.scalar(select(Alert).where(Alert.tenant_id == tenant_id, Alert.id == alert_id))
    if alert is None:
        raise NotFound("there is no such alert: see GET /api/v1/alerts")
    return alert


def list_alerts(
    session: Session,
    tenant_id: uuid.UUID,
    *,
    state: str = "",
    rule: str = "",
    severity: str = "",
    host: str = "",
    before: uuid.UUID | None = None,
    limit: int,
) -> list[Alert]:
    """Return up to `limit` alerts, newest first; without `state` the unresolved. Raises NotFound for a host."""
    query = select(Alert).where(Alert.tenant_id == tenant_id).order_by(Alert.id.desc()).limit(limit)
    if state != "all":
        query = query.where(Alert.state == state if state else Alert.state != "resolved")
    if rule:
        query = query.where(Alert.rule == rule)
    if severity:
        query = query.where(Alert.severity == severity)
    if host:
        query = query.where(Alert.host_id == get_host(session, tenant_id, host).id)
    return list(session.scalars(query.where(Alert.id < before) if before else query))


def describe_alerts(session: Session, alerts: Sequence[Alert]) -> list[AlertOut]:
    """Return alerts as they travel, with their hosts' names; one query whatever their number."""
    ids = {alert.host_id for alert in alerts if alert.host_id}
    query = select(Host.id, Host.name).where(Host.id.in_(ids))
    names = {row.id: row.name for row in session.execute(query)}
    columns = [name for name in AlertOut.model_fields if name in Alert.__mapper__.columns]
    return [
        AlertOut(
            **{name: getattr(alert, name) for name in columns},
            host=names.get(alert.host_id) if alert.host_id else None,
            title=rules.title(alert.rule),
        )
        for alert in alerts
    ]


def acknowledge(session: Session, tenant_id: uuid.UUID, alert_id: uuid.UUID, who: str) -> Alert:
    """Note that someone takes care; a second one changes nothing. Raises NotFound, Conflict when resolved."""
    values = {"acknowledged_at": now(), "acknowledged_by": who[:150], "muted_until": None}
    return _move(session, (tenant_id, alert_id), ("open", "muted"), "acknowledged", values)


def mute(session: Session, tenant_id: uuid.UUID, alert_id: uuid.UUID, until: datetime) -> Alert:
    """Tell nothing of an alert until then; it opens again if its cause holds. Raises Invalid, Conflict."""
    if not now() < until <= now() + LONGEST_MUTE:
        raise Invalid("choose a time in the future, within a year", field="until")
    return _move(session, (tenant_id, alert_id), UNRESOLVED, "muted", {"muted_until": until})


def unmute(session: Session, tenant_id: uuid.UUID, alert_id: uuid.UUID) -> Alert:
    """Open a muted alert again. Raises NotFound, Conflict when resolved."""
    return _move(session, (tenant_id, alert_id), ("muted",), "open", {"muted_until": None})


def forget(session: Session, at: datetime | None = None) -> None:
    """Delete alerts resolved a year ago, and ended deliveries of a month ago."""
    at = at or now()
    session.execute(delete(Delivery).where(Delivery.finished_at < at - KEEP_DELIVERIES))
    session.execute(delete(Alert).where(Alert.resolved_at < at - KEEP_ALERTS))


def _move(
    session: Session,
    which: tuple[uuid.UUID, uuid.UUID],
    sources: Sequence[str],
    target: str,
    values: dict[str, Any],
) -> Alert:
    """Compare and set the state of (tenant, alert); one that is at the target, or past it, stays as it is."""
    tenant_id, alert_id = which
    change = update(Alert).where(Alert.tenant_id == tenant_id, Alert.id == alert_id, Alert.state.in_(sources))
    alert: Alert | None = session.scalar(change.values(state=target, **values).returning(Alert))
    if alert is not None:
        touch(session, tenant_id, "alerts")
        return alert
    alert = get_alert(session, tenant_id, alert_id)
    if alert.state == "resolved":
        raise Conflict("the alert is resolved already: its cause is gone", type_="alert-resolved")
    return alert


def _open_new(session: Session, at: datetime) -> list[Event]:
    """Open an alert for each host whose rule has none yet."""
    host = rules.judged(at)
    same = and_(Alert.host_id == host.c.id, Alert.rule == host.c.rule, Alert.state != "resolved")
    query = select(host).outerjoin(Alert, same).where(host.c.rule.is_not(None), Alert.id.is_(None))
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
            "state": "open",
            "summary": _line(rule.sentence(facts)),
            "count": 1,
            "since": rule.since(facts) or at,
            "evidence_at": facts.last_run_at,
            "first_seen": at,
            "last_seen": at,
            "acknowledged_by": "",
        }
        rows.append(row)
        told = Event(
            facts.tenant_id,
            row["id"],
            "opened",
            facts.rule,
            rule.severity,
            facts.id,
            facts.name,
            row["summary"],
        )
        events.append(told)
    if rows:
        session.execute(insert(Alert), rows)
    return events


def _resolve_gone(session: Session, at: datetime) -> tuple[list[Event], list[Event]]:
    """Resolve host alerts whose rule holds no more; second those that another rule took over, told by that."""
    host = rules.judged(at)
    query = (
        select(Alert.id, Alert.tenant_id, Alert.rule, Alert.severity, Alert.state, Alert.host_id)
        .add_columns(
            host.c.name, host.c.state.label("host_state"), host.c.last_backup_at, host.c.rule.label("now")
        )
        .join(host, host.c.id == Alert.host_id)
        .where(Alert.state != "resolved", Alert.rule.in_(HOST_RULES))
        .where(or_(host.c.rule.is_(None), host.c.rule != Alert.rule))
    )
    rows = {row.id: row for row in session.execute(query)}
    gone: set[uuid.UUID] = set()
    for part in _chunks(list(rows)):
        close = update(Alert).where(Alert.id.in_(part), Alert.state != "resolved")
        close = close.values(state="resolved", resolved_at=at, muted_until=None)
        gone |= set(session.scalars(close.returning(Alert.id)))
    told: list[Event] = []
    quiet: list[Event] = []
    for row in (rows[each] for each in rows if each in gone):
        event = Event(
            row.tenant_id, row.id, "resolved", row.rule, row.severity, row.host_id, row.name, _how(row)
        )
        (quiet if row.now or row.state == "muted" else told).append(event)
    return told, quiet


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
    return [_event(alert, "reopened", alert.summary) for alert in alerts]


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


def _event(alert: Alert, kind: str, text_: str) -> Event:
    return Event(
        alert.tenant_id, alert.id, kind, alert.rule, alert.severity, alert.host_id, alert.object, text_
    )


def _cause(tenant_id: uuid.UUID, rule: str, object_: str) -> tuple[Any, ...]:
    return (
        Alert.tenant_id == tenant_id,
        Alert.rule == rule,
        Alert.object == object_,
        Alert.state != "resolved",
    )


def _line(sentence: str) -> str:
    """Return a sentence on one line, without control characters, bounded."""
    return "".join(each if each.isprintable() else " " for each in sentence)[:500]


def _chunks(ids: Sequence[uuid.UUID]) -> Iterable[Sequence[uuid.UUID]]:
    return (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))
