"""Verbs of channels: keep them, and queue what is told to whom."""

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Update, insert, select, text, update
from sqlalchemy.orm import Session

from saveos.accounts.service import seal_for, unseal_for
from saveos.alerts import rules
from saveos.alerts.models import Alert, Channel, Delivery
from saveos.alerts.rules import SEVERITIES
from saveos.alerts.schemas import ChannelIn, ChannelPatch
from saveos.alerts.urls import judge_url, shown
from saveos.core.clock import now
from saveos.core.database import lookup, new_id, touch
from saveos.core.errors import Conflict, NotFound
from saveos.hosts import groups as host_groups
from saveos.hosts.groups import find_groups, group_names
from saveos.hosts.models import Group, Host

DIGEST_OVER = 5
DIGEST_LINES = 20
REMINDER, REMIND_AFTER = "reminder", timedelta(days=7)
LOCK = 0x5A7E07  # of PostgreSQL's advisory locks: ours


@dataclass(frozen=True)
class Event:
    """Something about an alert that is told. `kind` is opened, reopened or resolved."""

    tenant_id: uuid.UUID
    alert_id: uuid.UUID
    kind: str
    rule: str
    severity: str
    object: str
    host_id: uuid.UUID | None
    host: str  # its name; empty when the alert is about something else
    text: str


def get_channel(session: Session, tenant_id: uuid.UUID, ref: str | uuid.UUID) -> Channel:
    """Return a channel by id or name. Raises NotFound."""
    channel = lookup(session, select(Channel).where(Channel.tenant_id == tenant_id), Channel, ref)
    if channel is None:
        raise NotFound(f"there is no channel {str(ref)[:100]}: see GET /api/v1/channels")
    return channel


def list_channels(session: Session, tenant_id: uuid.UUID, after: str | None, limit: int) -> list[Channel]:
    """Return up to `limit` channels by name."""
    query = select(Channel).where(Channel.tenant_id == tenant_id).order_by(Channel.name).limit(limit)
    return list(session.scalars(query.where(Channel.name > after) if after else query))


def create_channel(session: Session, tenant_id: uuid.UUID, asked: ChannelIn) -> Channel:
    """Make a channel; its URL was judged before. Raises Conflict on a taken name, Invalid on URL and groups."""
    _refuse_taken(session, tenant_id, asked.name)
    find_groups(session, tenant_id, asked.groups)
    channel = Channel(id=new_id(), tenant_id=tenant_id, **asked.model_dump(exclude={"url"}))
    _set_url(session, channel, asked.url)
    session.add(channel)
    session.flush()
    touch(session, tenant_id, "alerts")
    return channel


def change_channel(session: Session, channel: Channel, asked: ChannelPatch) -> None:
    """Change what is named in `asked`. Raises Conflict, Invalid."""
    given = asked.model_dump(exclude_unset=True, exclude_none=True, exclude={"url"})
    if given.get("name", channel.name) != channel.name:
        _refuse_taken(session, channel.tenant_id, given["name"])
    find_groups(session, channel.tenant_id, set(given.get("groups", [])) - set(channel.groups))
    for key, value in given.items():
        setattr(channel, key, value)
    if asked.url is not None:
        _set_url(session, channel, asked.url)
    if asked.enabled is False:
        ended = {"state": "failed", "error": "the channel was switched off", "finished_at": now()}
        session.execute(_waiting(channel).values(**ended), execution_options={"synchronize_session": False})
    session.flush()
    touch(session, channel.tenant_id, "alerts")


def url_of(session: Session, channel: Channel) -> str:
    """Return a channel's URL, opened; it goes to the sending process only."""
    return unseal_for(session, channel.tenant_id, ("channels", channel.id, "url"), channel.url).decode()


def list_deliveries(session: Session, channel: Channel, before: uuid.UUID | None, limit: int) -> list[Delivery]:
    """Return up to `limit` deliveries to a channel, newest first."""
    query = select(Delivery).where(Delivery.channel_id == channel.id).order_by(Delivery.id.desc()).limit(limit)
    return list(session.scalars(query.where(Delivery.id < before) if before else query))


def events_of(session: Session, alerts: Sequence[Alert], kind: str) -> list[Event]:
    """Return what is told of alerts."""
    names = host_names(session, alerts)
    return [
        Event(
            tenant_id=alert.tenant_id,
            alert_id=alert.id,
            kind=kind,
            rule=alert.rule,
            severity=alert.severity,
            object=alert.object,
            host_id=alert.host_id,
            host=names.get(alert.host_id, "") if alert.host_id else "",
            text=alert.summary,
        )
        for alert in alerts
    ]


def host_names(session: Session, alerts: Sequence[Alert]) -> dict[uuid.UUID, str]:
    """Return the names of the hosts that alerts are about; one query whatever their number."""
    ids = {alert.host_id for alert in alerts if alert.host_id}
    if not ids:
        return {}
    return {row.id: row.name for row in session.execute(select(Host.id, Host.name).where(Host.id.in_(ids)))}


def announce(session: Session, events: Sequence[Event]) -> None:
    """Queue what each channel is to be told; many events at once become one message."""
    if not events:
        return
    tenants = {event.tenant_id for event in events}
    query = select(Channel).where(Channel.tenant_id.in_(tenants), Channel.enabled).order_by(Channel.id)
    channels = session.scalars(query).all()
    groups: dict[uuid.UUID, list[str]] = {}
    if any(channel.groups for channel in channels):
        groups = group_names(session, list({event.host_id for event in events if event.host_id}))
    rows: list[dict[str, Any]] = []
    for channel in channels:
        mine = [event for event in events if _is_for(channel, event, groups)]
        messages = [_digest(mine)] if len(mine) > DIGEST_OVER else [_message(event) for event in mine]
        rows += [_row(channel, message) for message in messages]
    if rows:
        session.execute(insert(Delivery), rows)


def remind(session: Session, at: datetime) -> int:
    """Queue for each channel, once a week, what is open for longer than that; returns for how many.

    Each alert is told once when it opens, and that one message may have been overlooked. What somebody
    acknowledged or muted is not told again.
    """
    since = at - REMIND_AFTER
    if session.get_bind().dialect.name == "postgresql":  # one worker at a time, so that none reminds twice
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
    told = select(Delivery.channel_id).where(Delivery.kind == REMINDER, Delivery.created_at > since)
    query = select(Channel).where(Channel.enabled, Channel.id.not_in(told)).order_by(Channel.id)
    return sum(tell_open(session, channel, before=since) for channel in session.scalars(query).all())


def tell_open(session: Session, channel: Channel, *, before: datetime | None = None) -> bool:
    """Queue one message with all open alerts that a channel is told of; returns whether there are any.

    With `before` as a reminder, of those that are open since then.
    """
    query = select(Alert).where(Alert.tenant_id == channel.tenant_id, Alert.state == "open").order_by(Alert.id)
    if before is not None:
        query = query.where(Alert.first_seen < before)
    events = events_of(session, session.scalars(query).all(), "opened")
    groups = group_names(session, list({event.host_id for event in events if event.host_id}))
    mine = [event for event in events if _is_for(channel, event, groups)]
    if mine:
        message = _digest(mine)
        if before is not None:
            message |= {"kind": REMINDER, "title": message["title"].replace(": ", ": still open: ", 1)[:300]}
            message["fields"] |= {"event": REMINDER}
        session.execute(insert(Delivery), [_row(channel, message)])
    return bool(mine)


def queue_test(session: Session, channel: Channel) -> Delivery:
    """Queue a test message."""
    text = f"This is a test of the channel {channel.name}. Alerts will arrive like this."
    message = {
        "kind": "test",
        "severity": "info",
        "title": "SaveOS: test",
        "body": text,
        "fields": {"event": "test", "link": "/alerts"},
    }
    delivery = Delivery(**_row(channel, message))
    session.add(delivery)
    session.flush()
    return delivery


def _is_for(channel: Channel, event: Event, groups: dict[uuid.UUID, list[str]]) -> bool:
    if channel.tenant_id != event.tenant_id or event.object == f"channel:{channel.id}":
        return False
    if event.kind == "resolved" and not channel.tell_resolved:
        return False
    if channel.rules and event.rule not in channel.rules:
        return False
    if channel.severities and event.severity not in channel.severities:
        return False
    own = groups.get(event.host_id, []) if event.host_id else []
    return not channel.groups or not set(channel.groups).isdisjoint(own)


def _message(event: Event) -> dict[str, Any]:
    word = "" if event.kind == "opened" else f"{event.kind}: "
    about = f"{event.host}: " if event.host else ""
    fields = {
        "event": event.kind,
        "alert": str(event.alert_id),
        "rule": event.rule,
        "severity": event.severity,
        "object": event.object,
        "host": event.host,
        "link": f"/hosts/{event.host}" if event.host else "/alerts",
    }
    return {
        "alert_id": event.alert_id,
        "kind": event.kind,
        "severity": event.severity,
        "title": f"SaveOS: {word}{about}{rules.title(event.rule)}"[:300],
        "body": event.text,
        "fields": fields,
    }


def _digest(events: Sequence[Event]) -> dict[str, Any]:
    """Return one message about many events, the gravest first."""
    ordered = sorted(events, key=lambda event: (event.kind == "resolved", SEVERITIES.index(event.severity)))
    counts = Counter((event.kind, event.rule) for event in ordered)
    parts = [
        f"{count} {rules.title(rule)}" + f" ({kind})" * (kind != "opened")
        for (kind, rule), count in counts.items()
    ]
    lines = [f"{event.kind}: {event.text}" for event in ordered[:DIGEST_LINES]]
    if more := len(ordered) - DIGEST_LINES:
        lines += [f"… and {more} more: saveos alerts list"] * (more > 0)
    return {
        "kind": "digest",
        "severity": ordered[0].severity,
        "title": f"SaveOS: {', '.join(parts)}"[:300],
        "body": "\n".join(lines),
        "fields": {
            "event": "digest",
            "count": str(len(ordered)),
            "severity": ordered[0].severity,
            "link": "/alerts",
        },
    }


def _row(channel: Channel, message: dict[str, Any]) -> dict[str, Any]:
    at = now()
    return {
        "id": new_id(),
        "tenant_id": channel.tenant_id,
        "channel_id": channel.id,
        "alert_id": None,
        "state": "pending",
        "attempts": 0,
        "next_at": at,
        "error": "",
        "created_at": at,
        **message,
    }


def _set_url(session: Session, channel: Channel, url: str) -> None:
    url = judge_url(url)
    channel.kind, channel.address = urlsplit(url).scheme, shown(url)
    channel.url = seal_for(session, channel.tenant_id, ("channels", channel.id, "url"), url.encode())
    # What waits was held up by the old address
    session.execute(_waiting(channel).values(next_at=now()), execution_options={"synchronize_session": False})


def _waiting(channel: Channel) -> Update:
    return update(Delivery).where(Delivery.channel_id == channel.id, Delivery.state == "pending")


def _refuse_taken(session: Session, tenant_id: uuid.UUID, name: str) -> None:
    if session.scalar(select(Channel.id).where(Channel.tenant_id == tenant_id, Channel.name == name)):
        raise Conflict(f"there is a channel {name} already: choose another name", field="name")


def _follow_group(session: Session, group: Group, name: str | None) -> None:
    """Let channels follow a group's new name: one that names no group there is would tell nothing, unnoticed.

    Raises Conflict where the group goes.
    """
    for channel in session.scalars(select(Channel).where(Channel.tenant_id == group.tenant_id)):
        if group.name not in channel.groups:
            continue
        if name is None:
            raise Conflict(
                f"the channel {channel.name} tells of the hosts of {group.name}: take the group off it first"
            )
        channel.groups = [name if each == group.name else each for each in channel.groups]


host_groups.on_name.append(_follow_group)
