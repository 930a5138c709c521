"""Verbs of alerts: open and resolve, acknowledge, mute, list; `sweep` judges all hosts."""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from saveos.accounts.models import Tenant
from saveos.alerts import rules
from saveos.alerts.channels import announce, events_of, host_names
from saveos.alerts.models import Alert
from saveos.alerts.rules import RULES, Severity, one_line
from saveos.alerts.schemas import AlertOut
from saveos.alerts.sweep import Swept, sweep
from saveos.core.clock import now
from saveos.core.database import touch
from saveos.core.errors import Conflict, Invalid, NotFound
from saveos.hosts.service import get_host

__all__ = ["Swept", "sweep"]

UNRESOLVED = ("open", "acknowledged", "muted")
LONGEST_MUTE = timedelta(days=366)


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
    again = seen.values(count=Alert.count + 1, last_seen=at, summary=one_line(summary))
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
        summary=one_line(summary),
        since=at,
        first_seen=at,
        last_seen=at,
    )
    session.add(alert)
    session.flush()
    announce(session, events_of(session, [alert], "opened"))
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
        event = events_of(session, [alert], "resolved")[0]
        announce(session, [replace(event, text=one_line(how)) if how else event])
    touch(session, tenant_id, "alerts")
    return True


def count_alerts(session: Session, tenant_id: uuid.UUID | None) -> Sequence[Any]:
    """Return (tenant's name, rule, severity, state, number) of unresolved alerts, of one tenant or all."""
    kind = (Tenant.name, Alert.rule, Alert.severity, Alert.state)
    query = select(*kind, func.count()).join(Tenant, Tenant.id == Alert.tenant_id)
    query = query.where(Alert.state != "resolved").group_by(*kind).order_by(*kind)
    return session.execute(query.where(Alert.tenant_id == tenant_id) if tenant_id else query).all()


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
    names = host_names(session, alerts)
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


def _cause(tenant_id: uuid.UUID, rule: str, object_: str) -> tuple[Any, ...]:
    return (
        Alert.tenant_id == tenant_id,
        Alert.rule == rule,
        Alert.object == object_,
        Alert.state != "resolved",
    )
