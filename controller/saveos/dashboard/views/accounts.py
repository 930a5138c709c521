"""Log-in, log-out, one-time password, settings of the reader."""

import uuid
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import ValidationError

from saveos.accounts import service
from saveos.accounts.access import CurrentActor, client_address, cookie_name, describe
from saveos.accounts.models import Tenant, User
from saveos.accounts.schemas import TokenIn, TokenRotateIn
from saveos.checkins import service as checkins
from saveos.core import i18n, tls
from saveos.core.errors import Forbidden, Invalid, Problem
from saveos.core.inputs import Filter
from saveos.core.pagination import OTHER_LIST, decode_cursor, split
from saveos.core.web import StateDep, check_same_origin
from saveos.dashboard import forms, queries
from saveos.dashboard.rendering import THEMES, YEAR, View, bare, redirect, url, view
from saveos.dashboard.sentences import sentence
from saveos.secrets import service as secrets

router = APIRouter(include_in_schema=False)
Text = Annotated[str, Form(max_length=1000)]
Cursor = Annotated[str, Query(max_length=1000)]
Owner = Annotated[View, Depends(view("tokens:own"))]
MIN_PASSWORD = 10
MAX_TOKENS = 100
LIMIT = 50
LIVES = ("30", "90", "365", "")  # days of an API token; none: without end


@router.get("/login")
def show_login(request: Request, next: str = "") -> Response:
    """Show the log-in form."""
    answer = bare(request, "accounts/login.html", error="", name="", next=_local(next))
    if request.query_params.get("lang") in i18n.LANGUAGES:
        answer.set_cookie("lang", i18n.language(), max_age=YEAR, path="/", samesite="lax")
    return answer


@router.post("/login")
def log_in(
    request: Request,
    state: StateDep,
    name: Text = "",
    password: Text = "",
    next: Text = "",
) -> Response:
    """Check name and password, open a session, go where the person wanted to."""
    check_same_origin(request, required=False)
    address = client_address(request)
    try:
        user = service.check_password(state.database, name, password, address)
    except Problem as problem:
        if problem.status not in (401, 429):
            raise
        wrong = (
            i18n.gettext("Name or password is wrong.") if problem.status == 401 else sentence(problem.detail)
        )
        values = {"error": wrong, "name": name, "next": _local(next)}
        return bare(request, "accounts/login.html", problem.status, **values)
    with state.database.session() as session:
        cookie = service.open_login(session, user, address)
    answer = RedirectResponse("/password" if user.must_change_password else _local(next) or "/", 303)
    answer.set_cookie(
        cookie_name(state.settings),
        cookie,
        max_age=service.LOGIN_DAYS * 86400,
        path="/",
        secure=state.settings.secure_cookies,
        httponly=True,
        samesite="lax",
    )
    if user.language in i18n.LANGUAGES:
        answer.set_cookie("lang", user.language, max_age=YEAR, path="/", samesite="lax")
    return answer


def _local(path: str) -> str:
    """Return a path of this site, or nothing: never send a person elsewhere."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else ""


@router.post("/logout")
def log_out(request: Request, state: StateDep, actor: CurrentActor) -> Response:
    """End the session."""
    check_same_origin(request)
    if actor.cookie:
        with state.database.session() as session:
            service.close_login(session, actor.tenant_id, actor.name, actor.cookie, actor.address)
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(cookie_name(state.settings), path="/", secure=state.settings.secure_cookies)
    return answer


@router.get("/password")
def show_one_time_password(request: Request, actor: CurrentActor) -> Response:
    """Ask for a password of one's own."""
    if not actor.must_change_password:
        return RedirectResponse("/settings", 303)
    return bare(request, "accounts/password.html", error="", problems={})


@router.post("/password")
def replace_one_time_password(
    request: Request,
    state: StateDep,
    actor: CurrentActor,
    *,
    current: Text = "",
    new: Text = "",
    again: Text = "",
) -> Response:
    """Set the password of one's own."""
    problems = _change(request, state, actor, current=current, new=new, again=again)
    if problems:
        return bare(request, "accounts/password.html", 422, error="", problems=problems)
    return redirect("/", "password")


def _change(
    request: Request, state: StateDep, actor: CurrentActor, *, current: str, new: str, again: str
) -> dict[str, str]:
    """Change the asker's password; return what is wrong, by field."""
    check_same_origin(request)
    if not actor.cookie or not actor.user_id:
        raise Forbidden("log in with name and password to change the password: a token cannot")
    if len(new) < MIN_PASSWORD or new.isspace():
        return {"new": i18n.gettext("A password has at least 10 characters.")}
    if new != again:
        return {"again": i18n.gettext("The two new passwords differ.")}
    with state.database.session() as session:
        user = service.get_user(session, actor.tenant_id, actor.user_id)
    try:
        home = state.settings.home
        service.change_password(
            state.database, home, user, current, new, address=actor.address, cookie=actor.cookie
        )
    except Problem as problem:
        if not problem.field:
            raise
        texts = {
            "current": i18n.gettext("The current password is wrong."),
            "new": i18n.gettext("The new password must be another one."),
        }
        return {problem.field: texts.get(problem.field) or sentence(problem.detail)}
    return {}


Reader = Annotated[View, Depends(view("hosts:read"))]


@router.get("/settings")
def show_settings(page: Reader, state: StateDep) -> Response:
    """Show language, theme, password, and how the installation is trusted."""
    return _settings(page, state, {})


def _settings(
    page: View,
    state: StateDep,
    problems: dict[str, str],
    *,
    secret: str = "",
    sent: dict[str, Any] | None = None,
) -> Response:
    """Render the settings; with the `secret` of a token just made, which no other page shows."""
    tenant = page.session.get_one(Tenant, page.tenant_id)
    own = service.list_tokens(page.session, page.tenant_id, None, MAX_TOKENS, owner=page.actor.user_id)
    system: dict[str, Any] = {}
    if page.actor.may("system:read"):
        system = {
            "identity": tls.current(state.settings.home) if state.settings.serves_tls else None,
            "public_url": state.settings.public_url,
            "recovery": secrets.current_key(page.session, page.tenant_id),
            "escrows": queries.count_escrows(page.session, page.tenant_id),
            "stats": checkins.agent_stats(page.session, page.tenant_id),
            "public_key": tenant.ssh_public_key,
            "content": tenant.content_through_controller,
            "may_change": page.actor.may("settings:write"),
        }
    answer = page.render(
        "settings/page.html",
        422 if problems else 200,
        user=_user(page),
        error="",
        problems=problems,
        own_tokens=own,
        secret=secret,
        sent=sent or {"name": "", "days": "90", "scopes": []},
        lives=LIVES,
        rights=sorted(page.actor.rights),
        may_make=page.actor.may("tokens:own"),
        system=system,
    )
    answer.headers["Cache-Control"] = "no-store"
    return answer


@router.get("/settings/recovery")
def list_escrows(
    page: Annotated[View, Depends(view("system:read"))], state: Filter = "", cursor: Cursor = ""
) -> Response:
    """List repositories with the state of their escrow, by host."""
    found = queries.escrows(page.session, page.tenant_id, state=state, after=_after(cursor), limit=LIMIT + 1)
    rows, following = split(found, LIMIT, lambda row: [row.host, str(row.repository_id)])
    return page.render(
        "settings/recovery.html",
        rows=rows,
        recovery=secrets.current_key(page.session, page.tenant_id),
        counts=queries.count_escrows(page.session, page.tenant_id),
        state=state,
        first_page=url("/settings/recovery", state=state) if cursor else "",
        next_page=url("/settings/recovery", state=state, cursor=following) if following else "",
    )


def _after(cursor: str) -> tuple[str, uuid.UUID] | None:
    if not cursor:
        return None
    name, key = decode_cursor(cursor, 2)
    try:
        return str(name), uuid.UUID(key)
    except (ValueError, TypeError, AttributeError) as error:
        raise Invalid(OTHER_LIST, field="cursor") from error


@router.post("/settings/tokens")
def create_token(
    page: Owner,
    state: StateDep,
    name: Text = "",
    days: Text = "",
    scopes: Annotated[list[str] | None, Form(max_length=50)] = None,
) -> Response:
    """Make an API token of one's own, with all rights where none is named, and show it, this once."""
    sent = {"name": name.strip(), "scopes": scopes or [], "days": days}
    try:
        asked = TokenIn.model_validate(
            {"name": name, "scopes": scopes or ["*"], "expires_in_days": days or None}
        )
        token, secret = service.create_token(
            page.session,
            page.tenant_id,
            _user(page),
            asked.name,
            asked.scopes,
            expires_in_days=asked.expires_in_days,
            within=page.actor.rights,
        )
    except (ValidationError, Invalid) as error:
        found, rest = forms.problems(error, ("name", "scopes"))
        return _settings(page, state, found or {"days": rest}, sent=sent)
    describe(page.session, f"token:{token.name}", scopes=token.scopes)
    return _settings(page, state, {}, secret=secret)


@router.post("/settings/tokens/{token_id}/rotate")
def rotate_token(page: Owner, state: StateDep, token_id: uuid.UUID) -> Response:
    """Make a successor of one's own API token, and show it, this once; the old one counts a day longer."""
    overlap = timedelta(hours=TokenRotateIn().overlap_hours)
    token, secret = service.rotate_token(
        page.session, page.tenant_id, _user(page), token_id, overlap, within=page.actor.rights
    )
    describe(page.session, f"token:{token.name}", rotated=str(token_id))
    return _settings(page, state, {}, secret=secret)


@router.post("/settings/tokens/{token_id}/revoke")
def revoke_token(page: Owner, token_id: uuid.UUID) -> Response:
    """End an API token of one's own."""
    token = service.revoke_token(page.session, page.tenant_id, token_id, owner=_user(page).id)
    describe(page.session, f"token:{token.name}")
    return redirect("/settings#tokens", "revoked")


@router.post("/settings/content")
def change_content(
    page: Annotated[View, Depends(view("settings:write"))], on: Annotated[bool, Form()] = False
) -> Response:
    """Say whether content of archives may pass through the controller."""
    service.get_tenant(page.session, page.tenant_id).content_through_controller = on
    describe(page.session, "settings", content_through_controller=on)
    return redirect("/settings#content", "saved")


@router.post("/settings/display")
def change_display(page: Reader, language: Text = "en", theme: Text = "auto") -> Response:
    """Keep language and theme: in cookies, and the language with the user too."""
    answer = redirect("/settings", "saved")
    if language in i18n.LANGUAGES:
        answer.set_cookie("lang", language, max_age=YEAR, path="/", samesite="lax")
        service.change_user(page.session, _user(page), role=None, active=None, language=language)
    if theme in THEMES:
        answer.set_cookie("theme", theme, max_age=YEAR, path="/", samesite="lax")
    return answer


@router.post("/settings/password")
def change_password(
    request: Request,
    state: StateDep,
    actor: CurrentActor,
    *,
    current: Text = "",
    new: Text = "",
    again: Text = "",
) -> Response:
    """Change one's own password. Opens its own sessions, since argon2 takes its time."""
    problems = _change(request, state, actor, current=current, new=new, again=again)
    if not problems:
        return redirect("/settings", "password")
    with state.database.session() as session:
        return _settings(View(request, session, actor), state, problems)


def _user(page: View) -> User:
    if page.actor.user_id is None:
        raise Forbidden("settings belong to a person: log in with name and password")
    return service.get_user(page.session, page.tenant_id, page.actor.user_id)
