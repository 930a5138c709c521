"""Alerts: what needs a person; acknowledge, mute, unmute. Channels and rules have a page of their own."""

import uuid
from datetime import timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, Query
from fastapi.responses import HTMLResponse, Response

from saveos.accounts.access import describe
from saveos.alerts import service
from saveos.alerts.models import Alert
from saveos.alerts.schemas import AlertOut
from saveos.core.clock import now
from saveos.core.errors import NotFound
from saveos.core.i18n import gettext
from saveos.core.inputs import Filter
from saveos.core.pagination import decode_id, split
from saveos.dashboard import queries, told, words
from saveos.dashboard.rendering import View, environment, url, view

router = APIRouter(include_in_schema=False)
Reader = Annotated[View, Depends(view("alerts:read"))]
Writer = Annotated[View, Depends(view("alerts:write"))]
Hours = Annotated[Literal["1", "24", "168"], Form()]
LIMIT = 50


@router.get("/alerts")
def list_alerts(
    page: Reader,
    *,
    state: Literal["", "open", "acknowledged", "muted", "resolved"] = "",
    severity: Literal["", "critical", "warning", "info"] = "",
    rule: Filter = "",
    host: Filter = "",
    cursor: Annotated[str, Query(max_length=1000)] = "",
) -> Response:
    """List alerts of a state, or all that are not resolved, newest first."""
    filters = {"rule": rule, "severity": severity, "host": host.strip()}
    found = _find(page, state, filters, cursor)
    alerts, following = split(found, LIMIT, lambda alert: [str(alert.id)])
    counts = queries.count_alerts(page.session, page.tenant_id)
    return page.render(
        "alerts/list.html",
        alerts=[_row(alert) for alert in service.describe_alerts(page.session, alerts)],
        can_mute=page.actor.may("alerts:write"),
        chips=_chips(counts, state, filters),
        filters=filters,
        state=state,
        rules=[(name, gettext(shown[0])) for name, shown in words.rules.items()],
        severities=[(name, gettext(label)) for name, label in words.severities.items()],
        mutes=[
            (1, gettext("1 h"), gettext("Mute for an hour")),
            (24, gettext("1 d"), gettext("Mute for a day")),
            (168, gettext("7 d"), gettext("Mute for a week")),
        ],
        quiet=state in ("", "open") and not cursor and not any(filters.values()),
        first_page=url("/alerts", state=state, **filters) if cursor else "",
        next_page=url("/alerts", state=state, **filters, cursor=following) if following else "",
    )


def _find(page: View, state: str, filters: dict[str, str], cursor: str) -> list[Alert]:
    """Return a page of alerts and one more; none for a host that there is not."""
    before = decode_id(cursor or None)
    try:
        return service.list_alerts(
            page.session, page.tenant_id, state=state, **filters, before=before, limit=LIMIT + 1
        )
    except NotFound:
        return []


def _row(alert: AlertOut) -> dict[str, Any]:
    """Return an alert in the reader's language, as far as its rule is one that we know."""
    title = words.rules.get(alert.rule, ("", ""))[0]
    title = gettext(title) if title else alert.title.capitalize()
    name = f"{title}, {alert.host}" if alert.host else title
    return {
        "alert": alert,
        "title": title,
        "text": told.alert(alert.rule, alert.summary),
        "name": name,
        "href": _about(alert),
    }


def _about(alert: AlertOut) -> str:
    """Return the page of what an alert is about, where that is not only a host."""
    kind, _, identity = alert.object.partition(":")
    if kind == "repository":
        return f"/storage/{identity}"
    pages = {"schedule": f"/schedules/{identity}", "channel": f"/alerts/channels/{identity}"}
    return "" if alert.host else pages.get(kind, "/settings" if alert.rule == "certificate" else "")


def _chips(counts: dict[str, int], chosen: str, filters: dict[str, str]) -> list[dict[str, Any]]:
    unresolved = sum(count for state, count in counts.items() if state != "resolved")
    choices = [("", "none", gettext("Unresolved"), unresolved)] + [
        (state, shown.tone, gettext(shown.label), counts.get(state, 0)) for state, shown in words.alerts.items()
    ]
    return [
        {
            "tone": tone,
            "label": label,
            "count": count,
            "href": url("/alerts", state=state, **filters),
            "current": state == chosen,
        }
        for state, tone, label, count in choices
    ]


@router.get("/alerts/open")
def show_open(page: Reader) -> Response:
    """Return the menu's number of open alerts, alone."""
    count = queries.count_open_alerts(page.session, page.tenant_id)
    return HTMLResponse(environment().get_template("_partials/open_alerts.html").render(open_alerts=count))


@router.post("/alerts/{alert_id}/acknowledge")
def acknowledge(page: Writer, alert_id: uuid.UUID) -> Response:
    """Note that the asker takes care of an alert."""
    alert = service.acknowledge(page.session, page.tenant_id, alert_id, page.actor.name)
    return _back(page, alert, "acknowledged")


@router.post("/alerts/{alert_id}/mute")
def mute(page: Writer, alert_id: uuid.UUID, hours: Hours) -> Response:
    """Tell nothing of an alert for so many hours."""
    until = now() + timedelta(hours=int(hours))
    return _back(page, service.mute(page.session, page.tenant_id, alert_id, until), "muted")


@router.post("/alerts/{alert_id}/unmute")
def unmute(page: Writer, alert_id: uuid.UUID) -> Response:
    """Open a muted alert again."""
    return _back(page, service.unmute(page.session, page.tenant_id, alert_id), "unmuted")


def _back(page: View, alert: Alert, flash: str) -> Response:
    told = service.describe_alerts(page.session, [alert])[0]
    describe(page.session, f"alert:{told.rule}:{told.host or told.object}", state=told.state)
    return page.back("/alerts", flash)
