"""Channels: where alerts are told. List, editor, test message, log of deliveries; and the page of rules.

Writes that let Apprise look at a URL hold no transaction meanwhile, as those of the API.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi import Form as FormData
from fastapi.responses import Response
from pydantic import BaseModel, Field, ValidationError
from sqlalchemy.orm import Session

from saveos.accounts.access import Actor, describe, require
from saveos.accounts.service import record
from saveos.alerts import channels, delivery, service
from saveos.alerts.models import Channel
from saveos.alerts.rules import RULES, SEVERITIES
from saveos.alerts.schemas import ChannelIn, ChannelOut, ChannelPatch
from saveos.core.database import write_lock
from saveos.core.errors import Invalid, Problem
from saveos.core.i18n import gettext
from saveos.core.pagination import decode_id, decode_text, split
from saveos.core.web import StateDep
from saveos.dashboard import forms, queries, words
from saveos.dashboard.rendering import View, redirect, url, view

router = APIRouter(include_in_schema=False)
Reader = Annotated[View, Depends(view("alerts:read"))]
Writer = Annotated[View, Depends(view("channels:write"))]
# Notes its act itself, in the transaction that does it
Keeper = Annotated[Actor, Depends(require("channels:write", audit=False))]
Cursor = Annotated[str, Query(max_length=1000)]
Short = Annotated[str, Field(max_length=4096)]
Column = Annotated[list[Short], Field(max_length=500)]
LIMIT = 50
EMPTY: dict[str, Any] = {
    "name": "",
    "url": "",
    "rules": [],
    "severities": [],
    "groups": [],
    "tell_resolved": "true",
    "enabled": "true",
}


@dataclass(frozen=True)
class Asker:
    """Who asks for a write that opens its transactions itself."""

    request: Request
    state: StateDep
    actor: Keeper


Keeps = Annotated[Asker, Depends()]


class Form(BaseModel):
    """What the editor sends; text as typed, checked by ChannelIn."""

    name: Short = ""
    url: Short = ""
    rules: Column = []
    severities: Column = []
    groups: Column = []
    tell_resolved: Short = ""
    enabled: Short = ""

    def values(self) -> dict[str, Any]:
        """Return what ChannelIn takes; an empty URL is left out."""
        found = self.model_dump() | {"name": self.name.strip()}
        found |= {"tell_resolved": bool(self.tell_resolved), "enabled": bool(self.enabled)}
        return {key: value for key, value in found.items() if key != "url"} | (
            {"url": self.url.strip()} if self.url.strip() else {}
        )


Sent = Annotated[Form, FormData()]


@router.get("/alerts/rules")
def list_rules(page: Reader) -> Response:
    """Show what is judged, how grave it is, and how many alerts of it are not resolved."""
    counts: dict[str, int] = {}
    for _, rule, _, _, count in service.count_alerts(page.session, page.tenant_id):
        counts[rule] = counts.get(rule, 0) + count
    return page.render("alerts/rules.html", rules=RULES, counts=counts)


@router.get("/alerts/channels")
def list_channels(page: Reader, cursor: Cursor = "") -> Response:
    """List channels: where, what they are told, and what became of the last message."""
    rows = channels.list_channels(page.session, page.tenant_id, decode_text(cursor or None), LIMIT + 1)
    found, following = split(rows, LIMIT, lambda channel: [channel.name])
    return page.render(
        "alerts/channels.html",
        rows=[(ChannelOut.model_validate(each), _told(each)) for each in found],
        can_keep=page.actor.may("channels:write"),
        first_page="/alerts/channels" if cursor else "",
        next_page=url("/alerts/channels", cursor=following) if following else "",
    )


def _told(channel: Channel) -> str:
    """Return what a channel is told, in words."""
    parts = [gettext(words.severities[each]) for each in channel.severities]
    parts += [gettext(words.rules[each][0]) for each in channel.rules if each in words.rules]
    parts += [gettext("group %(name)s") % {"name": name} for name in channel.groups]
    return ", ".join(parts) or gettext("everything")


@router.get("/alerts/channels/new")
def new_channel(page: Writer) -> Response:
    """Show the editor, empty."""
    return _editor(page, None, EMPTY)


@router.post("/alerts/channels/new")
def create_channel(by: Keeps, sent: Sent) -> Response:
    """Make a channel when its address may be told, or show the form again."""
    try:
        asked = ChannelIn(**sent.values())
        delivery.check_url(by.state.settings, asked.url)
    except (ValidationError, Problem) as error:
        return _again(by, None, sent, error)

    def make(session: Session) -> Channel:
        return channels.create_channel(session, by.actor.tenant_id, asked)

    return _write(by, None, sent, make, "create channel")


@router.get("/alerts/channels/{channel}")
def show_channel(page: Reader, channel: str, cursor: Cursor = "") -> Response:
    """Show a channel and what was told to it, newest first."""
    found = channels.get_channel(page.session, page.tenant_id, channel)
    rows = channels.list_deliveries(page.session, found, decode_id(cursor or None), LIMIT + 1)
    deliveries, following = split(rows, LIMIT, lambda each: [str(each.id)])
    here = f"/alerts/channels/{found.id}"
    return page.render(
        "alerts/channel.html",
        channel=ChannelOut.model_validate(found),
        told=_told(found),
        can_keep=page.actor.may("channels:write"),
        deliveries=deliveries,
        first_page=here if cursor else "",
        next_page=url(here, cursor=following) if following else "",
    )


@router.get("/alerts/channels/{channel}/edit")
def edit_channel(page: Writer, channel: str) -> Response:
    """Show the editor with a channel; its URL is never shown."""
    found = channels.get_channel(page.session, page.tenant_id, channel)
    form = {key: getattr(found, key) for key in EMPTY if key != "url"} | {"url": ""}
    return _editor(page, found, form)


@router.post("/alerts/channels/{channel}/edit")
def change_channel(by: Keeps, channel: str, sent: Sent) -> Response:
    """Change a channel, or show the form again. Without a URL the one that it has stays."""
    with by.state.database.session() as session:
        channel_id = channels.get_channel(session, by.actor.tenant_id, channel).id
    try:
        asked = ChannelPatch(**sent.values())
        if asked.url is not None:
            delivery.check_url(by.state.settings, asked.url)
    except (ValidationError, Problem) as error:
        return _again(by, str(channel_id), sent, error)

    def change(session: Session) -> Channel:
        found = channels.get_channel(session, by.actor.tenant_id, channel_id)
        channels.change_channel(session, found, asked)
        return found

    return _write(by, str(channel_id), sent, change, "change channel")


@router.post("/alerts/channels/{channel}/test")
def test_channel(by: Keeps, channel: str) -> Response:
    """Send a test message now; the channel's page shows what became of it."""
    with by.state.database.session() as session:
        found = channels.get_channel(session, by.actor.tenant_id, channel)
        what = f"channel:{found.name}"
        record(session, by.actor.tenant_id, by.actor.name, "test channel", what, address=by.actor.address)
    sent = delivery.test_channel(by.state.database, by.state.settings, by.actor.tenant_id, found.id)
    told = "test-delivered" if sent.state == "delivered" else "test-failed"
    return redirect(f"/alerts/channels/{found.id}", told)


@router.post("/alerts/channels/{channel}/delete")
def delete_channel(page: Writer, channel: str, name: Annotated[str, FormData(max_length=200)] = "") -> Response:
    """Delete a channel and its log, when its name was typed."""
    found = channels.get_channel(page.session, page.tenant_id, channel)
    if name.strip() != found.name:
        raise Invalid(gettext("Type the name as it is written: %(name)s") % {"name": found.name}, field="name")
    describe(page.session, f"channel:{found.name}")
    service.resolve_alert(page.session, page.tenant_id, "channel_failing", f"channel:{found.id}")
    page.session.delete(found)
    return redirect("/alerts/channels", "deleted")


def _write(
    by: Asker,
    channel: str | None,
    sent: Form,
    act: Callable[[Session], Channel],
    name: str,
) -> Response:
    """Do a write and note it, or show the form again with why it cannot be."""
    try:
        with by.state.database.session() as session:
            write_lock(session)
            found = act(session)
            note = record(session, by.actor.tenant_id, by.actor.name, name, "", address=by.actor.address)
            note.object, note.detail = f"channel:{found.name}", {"address": found.address}
            target = f"/alerts/channels/{found.id}"
    except Problem as error:
        return _again(by, channel, sent, error)
    return redirect(target, "saved" if channel else "created")


def _again(
    by: Asker,
    channel: str | None,
    sent: Form,
    error: ValidationError | Problem,
) -> Response:
    with by.state.database.session() as session:
        found = channels.get_channel(session, by.actor.tenant_id, channel) if channel else None
        # The URL holds a password: it is not sent back
        return _editor(View(by.request, session, by.actor), found, sent.model_dump() | {"url": ""}, error)


def _editor(
    page: View,
    channel: Channel | None,
    form: dict[str, Any],
    error: ValidationError | Problem | None = None,
) -> Response:
    problems, sentence = forms.problems(error, EMPTY) if error else ({}, "")
    return page.render(
        "alerts/channel_edit.html",
        422 if error else 200,
        channel=channel,
        form=form,
        problems=problems,
        error=sentence,
        groups=queries.groups(page.session, page.tenant_id),
        severities=SEVERITIES,
        rules=[rule for rule in RULES if rule in words.rules],
    )
