"""Who did what: the audit trail with its filters."""

import uuid
from datetime import date, datetime, time
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from saveos.accounts import service, trail
from saveos.core.i18n import gettext, zone
from saveos.core.inputs import Filter
from saveos.core.pagination import decode_id, encode_cursor
from saveos.dashboard import acts
from saveos.dashboard.rendering import View, url, view

router = APIRouter(include_in_schema=False)
LIMIT = 50


@router.get("/audit")
def list_audit(
    page: Annotated[View, Depends(view("audit:read"))],
    *,
    actor: Filter = "",
    action: Filter = "",
    object: Filter = "",
    address: Filter = "",
    after: Filter = "",
    before: Filter = "",
    cursor: Annotated[str, Query(max_length=1000)] = "",
) -> Response:
    """List acts, filtered and in pages; days are the reader's."""
    filters = {"actor": actor.strip(), "action": action, "object": object.strip(), "address": address.strip()}
    since, problem = _day(after)
    until, other = _day(before, end=True)
    wanted = trail.Wanted(**filters, since=since, until=until)
    rows, following = trail.list_acts(page.session, page.tenant_id, wanted, decode_id(cursor or None), LIMIT)
    filters |= {"after": after, "before": before}
    names = {row.object.removeprefix("user:") for row in rows if row.object.startswith("user:")}
    people = service.ids_of_users(page.session, page.tenant_id, names)
    span = {"since": since.isoformat() if since else "", "until": until.isoformat() if until else ""}
    chosen = {name: getattr(wanted, name) for name in ("actor", "action", "object", "address")} | span
    return page.render(
        "audit/list.html",
        acts=[(row, _page_of(row.object, people)) for row in rows],
        actions=sorted(((gettext(label), name) for name, label in acts.LABELS.items()), key=_plain),
        filters=filters,
        filtered=any(filters.values()),
        error=problem or other,
        goes_on=bool(following) and len(rows) < LIMIT,
        scan=trail.SCAN,
        export={kind: url("/api/v1/audit/export", format=kind, **chosen) for kind in trail.FORMATS},
        first_page=url("/audit", **filters) if cursor else "",
        next_page=url("/audit", **filters, cursor=encode_cursor([str(following)])) if following else "",
    )


def _plain(entry: tuple[str, str]) -> str:
    return entry[0].casefold().replace("é", "e")


def _page_of(object_: str, people: dict[str, uuid.UUID]) -> str:
    name = object_.removeprefix("user:")
    return f"/team/{people[name]}" if object_ != name and name in people else acts.page_of(object_)


def _day(text: str, *, end: bool = False) -> tuple[datetime | None, str]:
    """Return when a day begins, or ends, in the reader's zone; or why the text is none."""
    try:
        day = date.fromisoformat(text) if text else None
    except ValueError:
        return None, gettext("Write days as 2026-11-23.")
    if day is None or not 1990 <= day.year <= 2200:
        return None, ""
    return datetime.combine(day, time.max if end else time(), zone()), ""
