"""Routes of alerts and channels. Those that let Apprise look at a URL hold no transaction meanwhile."""

import uuid
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path

from saveos.accounts.access import Actor, describe, require
from saveos.accounts.service import record
from saveos.alerts import channels, delivery, service
from saveos.alerts.models import Alert
from saveos.alerts.rules import Severity
from saveos.alerts.schemas import (
    AlertOut,
    AlertState,
    ChannelIn,
    ChannelOut,
    ChannelPatch,
    DeliveryOut,
    MuteIn,
    RuleName,
)
from saveos.core.database import write_lock
from saveos.core.inputs import Text
from saveos.core.pagination import DEFAULT_LIMIT, Cursor, Limit, Page, decode_id, decode_text, split
from saveos.core.web import SessionDep, StateDep

router = APIRouter(tags=["alerts"])

Reader = Annotated[Actor, Depends(require("alerts:read"))]
Writer = Annotated[Actor, Depends(require("alerts:write"))]
ChannelWriter = Annotated[Actor, Depends(require("channels:write"))]
# Notes its act itself, in the transaction that does it
ChannelKeeper = Annotated[Actor, Depends(require("channels:write", audit=False))]
ChannelRef = Annotated[str, Path(max_length=100, description="Id or name")]


@router.get("/alerts")
def list_alerts(
    *,
    session: SessionDep,
    actor: Reader,
    state: AlertState | Literal["all"] | None = None,
    rule: RuleName | None = None,
    severity: Severity | None = None,
    host: Text = "",
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[AlertOut]:
    """List alerts, newest first; without `state` those that are not resolved."""
    rows = service.list_alerts(
        session,
        actor.tenant_id,
        state=state or "",
        rule=rule or "",
        severity=severity or "",
        host=host,
        before=decode_id(cursor),
        limit=limit + 1,
    )
    alerts, following = split(rows, limit, lambda alert: [str(alert.id)])
    return Page(items=service.describe_alerts(session, alerts), next=following)


@router.get("/alerts/{alert_id}")
def get_alert(session: SessionDep, actor: Reader, alert_id: uuid.UUID) -> AlertOut:
    """Show an alert."""
    return service.describe_alerts(session, [service.get_alert(session, actor.tenant_id, alert_id)])[0]


@router.post("/alerts/{alert_id}/acknowledge")
def acknowledge_alert(session: SessionDep, actor: Writer, alert_id: uuid.UUID) -> AlertOut:
    """Say that someone takes care of an alert."""
    return _changed(session, service.acknowledge(session, actor.tenant_id, alert_id, actor.name))


@router.post("/alerts/{alert_id}/mute")
def mute_alert(session: SessionDep, actor: Writer, alert_id: uuid.UUID, body: MuteIn) -> AlertOut:
    """Tell nothing of an alert until a time."""
    return _changed(session, service.mute(session, actor.tenant_id, alert_id, body.until))


@router.post("/alerts/{alert_id}/unmute")
def unmute_alert(session: SessionDep, actor: Writer, alert_id: uuid.UUID) -> AlertOut:
    """Open a muted alert again."""
    return _changed(session, service.unmute(session, actor.tenant_id, alert_id))


@router.get("/channels")
def list_channels(
    session: SessionDep, actor: Reader, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Page[ChannelOut]:
    """List channels by name, without their URLs."""
    rows = channels.list_channels(session, actor.tenant_id, decode_text(cursor), limit + 1)
    found, following = split(rows, limit, lambda channel: [channel.name])
    return Page(items=[ChannelOut.model_validate(channel) for channel in found], next=following)


@router.post("/channels", status_code=201)
def create_channel(state: StateDep, actor: ChannelKeeper, body: ChannelIn) -> ChannelOut:
    """Make a channel. Its address must be public, or be allowed with SAVEOS_OUTGOING_ALLOW."""
    delivery.check_url(state.settings, body.url)
    with state.database.session() as session:
        write_lock(session)
        channel = channels.create_channel(session, actor.tenant_id, body)
        act = record(session, actor.tenant_id, actor.name, "create channel", "", address=actor.address)
        act.object, act.detail = f"channel:{channel.name}", {"address": channel.address}
        return ChannelOut.model_validate(channel)


@router.get("/channels/{channel}")
def get_channel(session: SessionDep, actor: Reader, channel: ChannelRef) -> ChannelOut:
    """Show a channel, without its URL."""
    return ChannelOut.model_validate(channels.get_channel(session, actor.tenant_id, channel))


@router.patch("/channels/{channel}")
def change_channel(
    state: StateDep, actor: ChannelKeeper, channel: ChannelRef, body: ChannelPatch
) -> ChannelOut:
    """Change a channel. Switching it off ends what waits to be delivered."""
    with state.database.session() as session:
        channel_id = channels.get_channel(session, actor.tenant_id, channel).id
    if body.url is not None:
        delivery.check_url(state.settings, body.url)
    with state.database.session() as session:
        write_lock(session)
        found = channels.get_channel(session, actor.tenant_id, channel_id)
        channels.change_channel(session, found, body)
        act = record(session, actor.tenant_id, actor.name, "change channel", "", address=actor.address)
        act.object, act.detail = f"channel:{found.name}", {"changed": sorted(body.model_fields_set)}
        return ChannelOut.model_validate(found)


@router.delete("/channels/{channel}", status_code=204)
def delete_channel(session: SessionDep, actor: ChannelWriter, channel: ChannelRef) -> None:
    """Delete a channel and its delivery log."""
    found = channels.get_channel(session, actor.tenant_id, channel)
    describe(session, f"channel:{found.name}")
    service.resolve_alert(session, actor.tenant_id, "channel_failing", f"channel:{found.id}")
    session.delete(found)


@router.post("/channels/{channel}/test")
def test_channel(state: StateDep, actor: ChannelKeeper, channel: ChannelRef) -> DeliveryOut:
    """Send a test message now and say what became of it: `state` is delivered or failed."""
    with state.database.session() as session:
        found = channels.get_channel(session, actor.tenant_id, channel)
        record(
            session, actor.tenant_id, actor.name, "test channel", f"channel:{found.name}", address=actor.address
        )
    sent = delivery.test_channel(state.database, state.settings, actor.tenant_id, found.id)
    return DeliveryOut.model_validate(sent)


@router.get("/channels/{channel}/deliveries")
def list_deliveries(
    session: SessionDep,
    actor: Reader,
    channel: ChannelRef,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[DeliveryOut]:
    """List what was told to a channel, newest first, and what waits."""
    found = channels.get_channel(session, actor.tenant_id, channel)
    rows = channels.list_deliveries(session, found, decode_id(cursor), limit + 1)
    page, following = split(rows, limit, lambda each: [str(each.id)])
    return Page(items=[DeliveryOut.model_validate(each) for each in page], next=following)


def _changed(session: SessionDep, alert: Alert) -> AlertOut:
    out = service.describe_alerts(session, [alert])[0]
    describe(session, f"alert:{out.rule}:{out.host or out.object}", state=out.state)
    return out
