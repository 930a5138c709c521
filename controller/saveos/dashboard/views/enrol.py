"""Enrolment: method, token, command, the hosts that ask, their first backup; and the list of tokens."""

import uuid
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Query
from fastapi import Form as FormData
from fastapi.responses import Response
from pydantic import BaseModel, Field, ValidationError

from saveos.accounts.access import describe
from saveos.accounts.models import Tenant
from saveos.core.errors import Problem
from saveos.core.i18n import gettext
from saveos.core.inputs import Filter
from saveos.core.pagination import decode_id, split
from saveos.core.web import StateDep
from saveos.dashboard import queries
from saveos.dashboard.rendering import View, redirect, url, view
from saveos.dashboard.sentences import sentence
from saveos.enrolment import door, service
from saveos.enrolment.models import EnrolmentToken
from saveos.enrolment.schemas import TokenIn

router = APIRouter(include_in_schema=False)
Reader = Annotated[View, Depends(view("hosts:read"))]
Writer = Annotated[View, Depends(view("hosts:write"))]
Short = Annotated[str, Field(max_length=4096)]
Cursor = Annotated[str, Query(max_length=1000)]
LIMIT = 50
LIVES = ("60", "480", "1440", "10080", "43200")  # minutes
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@router.get("/hosts/enrol")
def choose_method(page: Writer) -> Response:
    """Show the ways by which hosts come in."""
    tenant = page.session.get_one(Tenant, page.tenant_id)
    return page.render("enrol/method.html", step=1, public_key=tenant.ssh_public_key)


class Form(BaseModel):
    """What the token's form sends; text as typed, checked by TokenIn."""

    name: Short = ""
    minutes: Short = "60"
    max_uses: Short = "1"
    policy: Short = ""
    group: Short = ""
    tags: Short = ""
    pre_approved: Short = ""


@router.get("/hosts/enrol/token")
def ask_token(page: Writer) -> Response:
    """Show the form of a token."""
    return _ask(page, Form(name=gettext("new hosts")))


@router.post("/hosts/enrol/token")
def make_token(page: Writer, state: StateDep, form: Annotated[Form, FormData()]) -> Response:
    """Make a token and show, this once, the line to paste on hosts; below it, who asks."""
    place = door.door(state.settings)
    try:
        asked = _asked(form)
        row, text = service.create_token(
            page.session, page.tenant_id, asked, created_by=page.actor.name, place=place
        )
    except (ValidationError, Problem) as error:
        return _ask(page, form, error)
    describe(page.session, f"enrolment token:{row.name}", max_uses=row.max_uses, pre_approved=row.pre_approved)
    answer = page.render(
        "enrol/command.html",
        step=3,
        token=service.describe_token(row),
        command=door.one_line(place, text),
        secret=text,
        is_pinned=bool(place.ca_pin),
        is_loopback=urlsplit(place.url).hostname in LOOPBACK,
        url=place.url,
        **_waiting(page, row.id, "", ""),
    )
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _asked(form: Form) -> TokenIn:
    return TokenIn.model_validate(
        {
            "name": form.name.strip(),
            "minutes": form.minutes,
            "max_uses": form.max_uses,
            "policy": form.policy or None,
            "groups": [form.group] if form.group else [],
            "tags": [tag for tag in form.tags.replace(",", " ").split() if tag],
            "pre_approved": bool(form.pre_approved),
        }
    )


def _ask(page: View, form: Form, error: ValidationError | Problem | None = None) -> Response:
    problems, rest = _problems(error) if error else ({}, "")
    return page.render(
        "enrol/token.html",
        422 if error else 200,
        step=2,
        form=form,
        lives=LIVES,
        problems=problems,
        error=rest,
        policies=queries.policies(page.session, page.tenant_id),
        groups=queries.groups(page.session, page.tenant_id),
    )


def _problems(error: ValidationError | Problem) -> tuple[dict[str, str], str]:
    """Return the first sentence for each field of the form, and what belongs to none of them."""
    if isinstance(error, Problem):
        found = [((error.field or "").partition(".")[0], error.detail)]
    else:
        found = [
            (str(each["loc"][0]) if each["loc"] else "", str(each["msg"]).removeprefix("Value error, "))
            for each in error.errors()
        ]
    problems: dict[str, str] = {}
    rest = ""
    for place, message in found:
        key = "group" if place == "groups" else place
        if key in Form.model_fields:
            problems.setdefault(key, sentence(message))
        else:
            rest = sentence(message)
    return problems, rest


@router.get("/hosts/enrol/waiting")
def list_registrations(page: Reader, token: Filter = "", state: Filter = "", cursor: Cursor = "") -> Response:
    """List the hosts that asked to join, newest first; of one token, or of all."""
    try:
        token_id = uuid.UUID(token) if token else None
    except ValueError:
        token_id = None
    shown = _waiting(page, token_id, state, cursor)
    is_in = any(row.state == "done" for row in shown["registrations"])
    return page.render("enrol/waiting.html", step=5 if is_in else 4, **shown)


def _waiting(page: View, token_id: uuid.UUID | None, state: str, cursor: str) -> dict[str, Any]:
    """Return what the list of hosts that asked shows."""
    rows = queries.registrations(
        page.session,
        page.tenant_id,
        token_id=token_id,
        state=state,
        before=decode_id(cursor or None),
        limit=LIMIT + 1,
    )
    shown, following = split(rows, LIMIT, lambda row: [str(row.id)])
    path = "/hosts/enrol/waiting"
    filters = {"token": str(token_id) if token_id else "", "state": state}
    return {
        "registrations": service.describe_registrations(page.session, shown),
        "joined": queries.hosts_by_id(page.session, [row.host_id for row in shown if row.host_id]),
        "waiting_url": url(path, **filters, cursor=cursor),
        "filters": filters,
        "chips": _chips(filters),
        "first_page": url(path, **filters) if cursor else "",
        "next_page": url(path, **filters, cursor=following) if following else "",
    }


def _chips(filters: dict[str, str]) -> list[dict[str, Any]]:
    choices = [
        ("", "none", gettext("All")),
        ("waiting", "warn", gettext("Waiting")),
        ("failed", "bad", gettext("Failed")),
        ("done", "good", gettext("Enrolled")),
        ("refused", "idle", gettext("Refused")),
    ]
    return [
        {
            "tone": tone,
            "label": label,
            "href": url("/hosts/enrol/waiting", **filters | {"state": state}),
            "current": filters["state"] == state,
        }
        for state, tone, label in choices
    ]


@router.post("/hosts/enrol/registrations/{registration_id}/approve")
def approve_registration(page: Writer, registration_id: uuid.UUID) -> Response:
    """Let a host in."""
    row = service.get_registration(page.session, page.tenant_id, str(registration_id))
    service.approve(page.session, row, page.actor.name)
    describe(page.session, f"registration:{row.name}", address=row.address)
    return redirect(url("/hosts/enrol/waiting", token=str(row.token_id)), "approved")


@router.post("/hosts/enrol/registrations/{registration_id}/refuse")
def refuse_registration(
    page: Writer, registration_id: uuid.UUID, reason: Annotated[str, FormData(max_length=500)] = ""
) -> Response:
    """Send a host away, and tell it why."""
    row = service.get_registration(page.session, page.tenant_id, str(registration_id))
    service.refuse(page.session, row, page.actor.name, " ".join(reason.split()))
    describe(page.session, f"registration:{row.name}", reason=row.reason)
    return redirect(url("/hosts/enrol/waiting", token=str(row.token_id)), "refused")


@router.get("/hosts/enrol/tokens")
def list_tokens(page: Reader, cursor: Cursor = "") -> Response:
    """List enrolment tokens, newest first; never their secrets."""
    rows = service.list_tokens(page.session, page.tenant_id, decode_id(cursor or None), LIMIT + 1)
    tokens, following = split(rows, LIMIT, lambda token: [str(token.id)])
    path = "/hosts/enrol/tokens"
    return page.render(
        "enrol/tokens.html",
        tokens=[service.describe_token(token) for token in tokens],
        first_page=path if cursor else "",
        next_page=url(path, cursor=following) if following else "",
    )


@router.post("/hosts/enrol/tokens/{token_id}/revoke")
def revoke_enrolment_token(page: Writer, token_id: uuid.UUID) -> Response:
    """End a token; hosts that used it already go on."""
    row: EnrolmentToken = service.revoke_token(page.session, page.tenant_id, token_id)
    describe(page.session, f"enrolment token:{row.name}")
    return redirect("/hosts/enrol/tokens", "revoked")
