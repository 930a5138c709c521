"""Secrets: which there are, how old, who uses them, and giving hosts new ones. Values are never here."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, Query
from fastapi.responses import Response

from saveos.core.i18n import gettext
from saveos.core.inputs import Filter
from saveos.core.pagination import decode_id, split
from saveos.core.settings import get_settings
from saveos.dashboard import actions, words
from saveos.dashboard.rendering import View, redirect, url, view
from saveos.maintenance import secrets

router = APIRouter(include_in_schema=False)
LIMIT = 50
OLD = 365  # days
Keeper = Annotated[View, Depends(view("secrets:read"))]
Kind = Literal["passphrase", "ssh-key", "agent-token", "escrow"]


@router.get("/secrets")
def list_secrets(
    page: Keeper,
    kind: Kind | Literal[""] = "",
    host: Filter = "",
    cursor: Annotated[str, Query(max_length=1000)] = "",
) -> Response:
    """List what hosts hold and the controller's own keys."""
    rows = secrets.list_secrets(
        page.session, page.tenant_id, kind=kind, host=host, after=decode_id(cursor or None), limit=LIMIT + 1
    )
    shown, following = split(rows, LIMIT, lambda row: [str(row.id)])
    filters = {"kind": kind, "host": host}
    return page.render(
        "secrets/list.html",
        rows=shown,
        own=secrets.controller_secrets(page.session, get_settings(), page.tenant_id) if not cursor else [],
        chips=_chips(kind, host),
        host=host,
        may_rotate=page.actor.may("jobs:write"),
        first_page=url("/secrets", **filters) if cursor else "",
        next_page=url("/secrets", **filters, cursor=following) if following else "",
    )


@router.post("/secrets/rotate")
def rotate(
    page: Annotated[View, Depends(view("jobs:write"))],
    host: Annotated[str, Form(max_length=253)],
    kind: Annotated[Literal["passphrase", "ssh-key", "agent-token"], Form()],
    repository: Annotated[str, Form(max_length=40)] = "",
) -> Response:
    """Give a host a new secret, and come back with a toast."""
    parameters: dict[str, Any] = {"rotate": kind}
    if repository:
        parameters["repository_id"] = repository
    job = actions.start(page, "secrets", [host], parameters=parameters)
    return redirect("/secrets", actions.flash(job))


@router.post("/secrets/rotate-controller-key")
def rotate_controller_key(page: Annotated[View, Depends(view("jobs:write"))]) -> Response:
    """Give all hosts a new SSH key of the controller, or finish that where hosts were not reached."""
    return redirect("/secrets", actions.flash(actions.start(page, "rekey", everything=True)))


@router.post("/secrets/examine")
def examine(page: Annotated[View, Depends(view("jobs:write"))]) -> Response:
    """Ask all hosts what they hold."""
    return redirect("/secrets", actions.flash(actions.start(page, "secrets", everything=True)))


def _chips(chosen: str, host: str) -> list[dict[str, Any]]:
    choices = [("", gettext("All kinds")), *((kind, gettext(label)) for kind, label in words.secrets.items())]
    return [
        {"label": label, "href": url("/secrets", kind=kind, host=host), "current": kind == chosen}
        for kind, label in choices
    ]
