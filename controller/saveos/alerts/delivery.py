"""Delivers what is queued: claim in one transaction, send in a process of its own, record in another.

A message is told at least once: a controller that is killed between sending and recording sends it
again. Messages of a channel go in order, so one that waits for its next attempt holds the later ones.
"""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import exists, select, update
from sqlalchemy.orm import Session, aliased

from saveos.alerts import channels
from saveos.alerts.models import Channel, Delivery
from saveos.alerts.service import open_alert, resolve_alert
from saveos.alerts.urls import judge_url
from saveos.core.clock import now
from saveos.core.database import Database, touch, write_lock
from saveos.core.errors import Invalid
from saveos.core.outgoing import parse_networks
from saveos.core.security import CannotOpen
from saveos.core.settings import Settings

BATCH = 50
LIFE = 40.0  # seconds for one batch
CLAIM = timedelta(minutes=3)  # a claimed message is tried again after this, should its worker die
FIRST_WAIT, LONGEST_WAIT = timedelta(seconds=15), timedelta(hours=1)
ATTEMPTS = 12  # over about four hours: then an alert says so
GIVE_UP = ATTEMPTS + 7 * 24  # after a week of attempts, one an hour
KEPT_ENVIRONMENT = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")

Started = Callable[["subprocess.Popen[str]"], None]


@dataclass(frozen=True)
class Message:
    """What the sending process gets; its URL is secret and goes through a pipe only."""

    id: str
    channel: str
    url: str = field(repr=False)
    title: str = ""
    body: str = ""
    severity: str = "info"
    kind: str = "test"
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What became of a message; `refused` when its address is out of bounds, so that trying again is no use."""

    id: str
    ok: bool
    error: str = ""
    refused: bool = False


def check_url(settings: Settings, url: str) -> None:
    """Let Apprise read a URL, and judge its address. Raises Invalid; nothing is sent."""
    judged = judge_url(url)
    result = send(settings, [Message("url", "url", judged)])[0]
    if not result.ok:
        raise Invalid(result.error, field="url", type_="address-refused" if result.refused else None)


def send(settings: Settings, messages: Sequence[Message], started: Started | None = None) -> list[Result]:
    """Send messages and return what became of them; those behind one that failed are not tried, and missing."""
    document = {
        "allow": [str(network) for network in parse_networks(settings.outgoing_allow)],
        "messages": [asdict(message) for message in messages],
    }
    kept = {key: os.environ[key] for key in KEPT_ENVIRONMENT if key in os.environ}
    child = subprocess.Popen(
        [sys.executable, "-I", "-B", "-m", "saveos.alerts.sender"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # what libraries print may hold a URL
        env=kept | {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/nonexistent"},
        cwd="/",
        text=True,
        encoding="utf-8",
        start_new_session=True,
    )
    if started:
        started(child)
    try:
        output, _ = child.communicate(json.dumps(document), timeout=LIFE)
    except subprocess.TimeoutExpired:
        child.kill()
        output, _ = child.communicate()
    told = [Result(**json.loads(line)) for line in output.splitlines() if line.endswith("}")]
    return told + _unanswered(messages, told)


def _unanswered(messages: Sequence[Message], told: Sequence[Result]) -> list[Result]:
    """Return a failure for each channel whose message was under way when the process ended."""
    done = {result.id for result in told}
    over = {
        message.channel for message in messages for result in told if result.id == message.id and not result.ok
    }
    found: list[Result] = []
    for message in messages:
        if message.id not in done and message.channel not in over:
            over.add(message.channel)
            found.append(Result(message.id, False, f"no answer within {LIFE:.0f} seconds"))
    return found


def deliver(database: Database, settings: Settings, started: Started | None = None) -> int:
    """Send what is due, outside any transaction; return how many messages were tried."""
    with database.session() as session:
        if not _due(session):
            return 0
        write_lock(session)
        messages = _claim(session, settings.public_url)
    if not messages:
        return 0
    results = send(settings, messages, started)
    with database.session() as session:
        write_lock(session)
        record(session, messages, results)
    return len(results)


def test_channel(
    database: Database, settings: Settings, tenant_id: uuid.UUID, channel_id: uuid.UUID
) -> Delivery:
    """Send a test message now, once, and return its delivery. Raises NotFound."""
    with database.session() as session:
        write_lock(session)
        channel = channels.get_channel(session, tenant_id, channel_id)
        delivery = channels.queue_test(session, channel)
        delivery.attempts, delivery.next_at = 1, now() + CLAIM
        message = _message(session, delivery, channel, settings.public_url)
    results = send(settings, [message])
    with database.session() as session:
        write_lock(session)
        record(session, [message], results)
        return session.get_one(Delivery, delivery.id)


def record(session: Session, messages: Sequence[Message], results: Sequence[Result]) -> None:
    """Take over what became of claimed messages; those not tried wait as they did before.

    A channel that failed and delivers again is told what holds: messages to it may have been given up.
    """
    by_id = {result.id: result for result in results}
    for message in messages:
        delivery = session.get(Delivery, uuid.UUID(message.id))
        if delivery is None or delivery.state != "pending":
            continue  # its channel was deleted or switched off meanwhile
        result = by_id.get(message.id)
        if result is None:
            delivery.attempts, delivery.next_at = delivery.attempts - 1, now()
            continue
        channel = session.get_one(Channel, delivery.channel_id)
        _record(session, delivery, channel, result)
        touch(session, delivery.tenant_id, "alerts")


def wait_after(attempts: int) -> timedelta:
    """Return how long to wait after so many attempts: 15 s, doubled each time, an hour at most."""
    return min(FIRST_WAIT * (1 << min(attempts - 1, 20)), LONGEST_WAIT)


def _record(session: Session, delivery: Delivery, channel: Channel, result: Result) -> None:
    at = now()
    cause = (delivery.tenant_id, "channel_failing", f"channel:{channel.id}")
    delivery.error, channel.last_error, channel.last_at = result.error, result.error, at
    if result.ok:
        delivery.state, delivery.finished_at, channel.last_state = "delivered", at, "delivered"
        if resolve_alert(session, *cause, f"The channel {channel.name} delivers again."):
            channels.tell_open(session, channel)
        return
    over = result.refused or delivery.kind == "test" or delivery.attempts >= GIVE_UP
    failing = over or delivery.attempts >= ATTEMPTS
    channel.last_state = "failed" if failing else "retrying"
    if over:
        delivery.state, delivery.finished_at = "failed", at
    else:
        delivery.next_at = at + wait_after(delivery.attempts)
    if failing and delivery.kind != "test":
        open_alert(session, *cause, f"The channel {channel.name} does not deliver: {result.error}")


def _due(session: Session) -> list[uuid.UUID]:
    at = now()
    older = aliased(Delivery)
    held = exists().where(
        older.channel_id == Delivery.channel_id,
        older.state == "pending",
        older.id < Delivery.id,
        older.next_at > at,
    )
    query = (
        select(Delivery.id).join(Channel, Channel.id == Delivery.channel_id).order_by(Delivery.id).limit(BATCH)
    )
    query = query.where(Delivery.state == "pending", Delivery.next_at <= at, Channel.enabled, ~held)
    return list(session.scalars(query))


def _claim(session: Session, base: str) -> list[Message]:
    """Take what is due; a message that another worker took meanwhile is left to it."""
    at = now()
    take = update(Delivery).where(
        Delivery.id.in_(_due(session)), Delivery.state == "pending", Delivery.next_at <= at
    )
    taken = take.values(attempts=Delivery.attempts + 1, next_at=at + CLAIM).returning(Delivery)
    claimed = sorted(session.scalars(taken).all(), key=lambda delivery: delivery.id)
    messages = []
    for delivery in claimed:
        channel = session.get_one(Channel, delivery.channel_id)
        try:
            messages.append(_message(session, delivery, channel, base))
        except CannotOpen as error:
            _record(session, delivery, channel, Result(str(delivery.id), False, str(error), refused=True))
    return messages


def _message(session: Session, delivery: Delivery, channel: Channel, base: str) -> Message:
    """Return a delivery as the sender gets it, with the whole address of the page about it."""
    fields, body = dict(delivery.fields), delivery.body
    if path := fields.get("link"):
        fields["link"] = f"{base}{path}"
        body = f"{body}\n{fields['link']}"
    return Message(
        str(delivery.id),
        str(channel.id),
        channels.url_of(session, channel),
        delivery.title,
        body,
        delivery.severity,
        delivery.kind,
        fields,
    )
