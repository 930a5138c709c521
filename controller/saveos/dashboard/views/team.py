"""The team: who may use the controller, with which role; adding people, their roles, state and passwords."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Query
from fastapi.responses import Response
from pydantic import ValidationError

from saveos.accounts import service
from saveos.accounts.access import describe
from saveos.accounts.models import User
from saveos.accounts.schemas import Role, UserIn
from saveos.core.errors import Problem
from saveos.core.i18n import gettext
from saveos.core.pagination import decode_id, split
from saveos.dashboard import forms
from saveos.dashboard.rendering import View, redirect, url, view

router = APIRouter(include_in_schema=False)
Reader = Annotated[View, Depends(view("users:read"))]
Keeper = Annotated[View, Depends(view("users:write"))]
Typed = Annotated[str, Form(max_length=1000)]
LIMIT = 50
MAX_TOKENS = 100


@router.get("/team")
def list_users(page: Reader, cursor: Annotated[str, Query(max_length=1000)] = "") -> Response:
    """List the people, in the order of their making."""
    return _list(page, cursor)


def _list(page: View, cursor: str, sent: dict[str, str] | None = None, problem: str = "") -> Response:
    rows = service.list_users(page.session, page.tenant_id, decode_id(cursor or None), LIMIT + 1)
    users, following = split(rows, LIMIT, lambda user: [str(user.id)])
    return page.render(
        "team/list.html",
        422 if problem else 200,
        users=users,
        may_write=page.actor.may("users:write"),
        sent=sent or {"name": "", "role": "viewer"},
        problems={"name": problem} if problem else {},
        first_page="/team" if cursor else "",
        next_page=url("/team", cursor=following) if following else "",
    )


@router.post("/team")
def create_user(page: Keeper, name: Typed = "", role: Typed = "viewer") -> Response:
    """Add a person, and show their one-time password, this once."""
    try:
        asked = UserIn.model_validate({"name": name, "role": role})
        user, password = service.create_user(page.session, page.tenant_id, asked.name, asked.role)
    except (ValidationError, Problem) as error:
        found, rest = forms.problems(error, ("name",))
        return _list(page, "", {"name": name, "role": role}, found.get("name") or rest)
    describe(page.session, f"user:{user.name}", role=user.role)
    return _show(page, user, password=password or "")


@router.get("/team/{user_id}")
def show_user(page: Reader, user_id: uuid.UUID) -> Response:
    """Show one person: role, state, log-in, and their API tokens to who may see them."""
    return _show(page, service.get_user(page.session, page.tenant_id, user_id))


def _show(page: View, user: User, *, password: str = "", error: str = "", form: str = "") -> Response:
    tokens = []
    if page.actor.may("tokens:write") or user.id == page.actor.user_id:
        tokens = service.list_tokens(page.session, page.tenant_id, None, MAX_TOKENS, owner=user.id)
    answer = page.render(
        "team/user.html",
        422 if error else 200,
        user=user,
        tokens=tokens,
        password=password,
        error=error,
        form=form,
        is_self=user.id == page.actor.user_id,
        may_write=page.actor.may("users:write"),
        may_revoke=page.actor.may("tokens:write"),
    )
    answer.headers["Cache-Control"] = "no-store"
    return answer


@router.post("/team/{user_id}/role")
def change_user(page: Keeper, user_id: uuid.UUID, role: Annotated[Role, Form()]) -> Response:
    """Give a person another role."""
    return _change(page, service.get_user(page.session, page.tenant_id, user_id), role=role)


@router.post("/team/{user_id}/switch")
def switch_user(
    page: Keeper, user_id: uuid.UUID, active: Annotated[bool, Form()], name: Typed = ""
) -> Response:
    """Let a person log in again; or, with their name typed, no more: sessions and tokens end at once."""
    user = service.get_user(page.session, page.tenant_id, user_id)
    if not active and name.strip() != user.name:
        return _show(page, user, error=_mistyped(user), form="off")
    return _change(page, user, active=active)


def _change(page: View, user: User, *, role: str | None = None, active: bool | None = None) -> Response:
    try:
        service.change_user(page.session, user, role=role, active=active, language=None)
    except Problem as problem:
        if problem.status != 409:
            raise
        return _show(page, user, error=forms.problems(problem, ())[1])
    changed = {"role": role} if active is None else {"active": active}
    describe(page.session, f"user:{user.name}", **changed)
    return redirect(f"/team/{user.id}", "saved" if active is None else "enabled" if active else "disabled")


@router.post("/team/{user_id}/password")
def reset_password(page: Keeper, user_id: uuid.UUID, name: Typed = "") -> Response:
    """Give a person a new one-time password, with their name typed, and show it, this once."""
    user = service.get_user(page.session, page.tenant_id, user_id)
    if name.strip() != user.name:
        return _show(page, user, error=_mistyped(user), form="password")
    password = service.reset_password(page.session, user)
    describe(page.session, f"user:{user.name}", reset_password=True)
    return _show(page, user, password=password)


@router.post("/team/{user_id}/tokens/{token_id}/revoke")
def revoke_token(
    page: Annotated[View, Depends(view("tokens:write"))], user_id: uuid.UUID, token_id: uuid.UUID
) -> Response:
    """End an API token of a person."""
    token = service.revoke_token(page.session, page.tenant_id, token_id, owner=user_id)
    describe(page.session, f"token:{token.name}")
    return redirect(f"/team/{user_id}#tokens", "revoked")


def _mistyped(user: User) -> str:
    return gettext("Type %(name)s to confirm") % {"name": user.name} + "."
