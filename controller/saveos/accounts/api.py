"""Routes of log-in, users, tokens and the audit trail."""

import uuid
from datetime import timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse

from saveos.accounts import service, trail
from saveos.accounts.access import (
    Actor,
    CurrentActor,
    client_address,
    cookie_name,
    describe,
    require,
)
from saveos.accounts.schemas import (
    AuditOut,
    LoggedIn,
    LoginIn,
    Me,
    PasswordIn,
    TenantSettings,
    TenantSettingsPatch,
    TokenCreated,
    TokenIn,
    TokenOut,
    TokenRotateIn,
    UserCreated,
    UserIn,
    UserOut,
    UserPatch,
)
from saveos.core.clock import now
from saveos.core.errors import Forbidden
from saveos.core.inputs import Filter, Moment
from saveos.core.pagination import DEFAULT_LIMIT, Cursor, Limit, Page, decode_id, encode_cursor, split
from saveos.core.web import SessionDep, StateDep, check_same_origin

router = APIRouter(tags=["accounts"])


@router.post("/auth/login", operation_id="login")
def log_in(request: Request, response: Response, state: StateDep, body: LoginIn) -> LoggedIn:
    """Check name and password and set the session cookie."""
    check_same_origin(request, required=False)
    address = client_address(request)
    user = service.check_password(state.database, body.name, body.password, address)
    with state.database.session() as session:
        cookie = service.open_login(session, user, address)
    response.set_cookie(
        cookie_name(state.settings),
        cookie,
        max_age=service.LOGIN_DAYS * 86400,
        path="/",
        secure=state.settings.secure_cookies,
        httponly=True,
        samesite="lax",
    )
    return LoggedIn(user=UserOut.model_validate(user))


@router.post("/auth/logout", status_code=204)
def log_out(request: Request, response: Response, state: StateDep, actor: CurrentActor) -> None:
    """End the session and drop its cookie."""
    if actor.cookie:
        check_same_origin(request)
        with state.database.session() as session:
            service.close_login(session, actor.tenant_id, actor.name, actor.cookie, actor.address)
    response.delete_cookie(cookie_name(state.settings), path="/", secure=state.settings.secure_cookies)


@router.get("/auth/me")
def get_me(state: StateDep, actor: CurrentActor) -> Me:
    """Say who is asking and what they may do."""
    user = None
    if actor.user_id:
        with state.database.session() as session:
            user = UserOut.model_validate(service.get_user(session, actor.tenant_id, actor.user_id))
    return Me(
        name=actor.name,
        tenant_id=actor.tenant_id,
        user_id=actor.user_id,
        host_id=actor.host_id,
        rights=sorted(actor.rights),
        must_change_password=actor.must_change_password,
        user=user,
    )


@router.post("/auth/password", status_code=204)
def change_password(request: Request, state: StateDep, actor: CurrentActor, body: PasswordIn) -> None:
    """Change one's own password; other sessions end."""
    if not actor.cookie or not actor.user_id:
        raise Forbidden("log in with name and password to change the password: a token cannot")
    check_same_origin(request)
    with state.database.session() as session:
        user = service.get_user(session, actor.tenant_id, actor.user_id)
    service.change_password(
        state.database,
        state.settings.home,
        user,
        body.current,
        body.new,
        address=actor.address,
        cookie=actor.cookie,
    )


@router.get("/settings")
def get_settings(
    session: SessionDep, actor: Annotated[Actor, Depends(require("system:read"))]
) -> TenantSettings:
    """Show what holds for all of the tenant."""
    return TenantSettings.model_validate(service.get_tenant(session, actor.tenant_id))


@router.patch("/settings")
def change_settings(
    session: SessionDep,
    actor: Annotated[Actor, Depends(require("settings:write"))],
    body: TenantSettingsPatch,
) -> TenantSettings:
    """Change what holds for all of the tenant."""
    tenant = service.get_tenant(session, actor.tenant_id)
    if body.content_through_controller is not None:
        tenant.content_through_controller = body.content_through_controller
    describe(session, "settings", **body.model_dump(exclude_unset=True))
    return TenantSettings.model_validate(tenant)


@router.get("/users")
def list_users(
    session: SessionDep,
    actor: Annotated[Actor, Depends(require("users:read"))],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[UserOut]:
    """List users."""
    rows = service.list_users(session, actor.tenant_id, decode_id(cursor), limit + 1)
    items, following = split(rows, limit, lambda user: [str(user.id)])
    return Page(items=[UserOut.model_validate(user) for user in items], next=following)


@router.post("/users", status_code=201)
def create_user(
    session: SessionDep, actor: Annotated[Actor, Depends(require("users:write"))], body: UserIn
) -> UserCreated:
    """Make a user."""
    user, password = service.create_user(session, actor.tenant_id, body.name, body.role, body.password)
    describe(session, f"user:{user.name}", role=user.role)
    return UserCreated(**UserOut.model_validate(user).model_dump(), one_time_password=password)


@router.patch("/users/{user_id}")
def change_user(
    session: SessionDep,
    actor: Annotated[Actor, Depends(require("users:write"))],
    user_id: uuid.UUID,
    body: UserPatch,
) -> UserCreated:
    """Change a user's role or state, or give them a new one-time password."""
    user = service.get_user(session, actor.tenant_id, user_id)
    service.change_user(session, user, role=body.role, active=body.active, language=body.language)
    password = service.reset_password(session, user) if body.reset_password else None
    describe(session, f"user:{user.name}", **body.model_dump(exclude_unset=True))
    return UserCreated(**UserOut.model_validate(user).model_dump(), one_time_password=password)


@router.get("/tokens")
def list_tokens(
    session: SessionDep,
    actor: Annotated[Actor, Depends(require("tokens:read"))],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[TokenOut]:
    """List tokens, without their secrets: an admin sees all, others their own."""
    owner = None if actor.may("tokens:write") else actor.user_id
    rows = service.list_tokens(session, actor.tenant_id, decode_id(cursor), limit + 1, owner)
    items, following = split(rows, limit, lambda token: [str(token.id)])
    return Page(items=[TokenOut.model_validate(token) for token in items], next=following)


@router.post("/tokens", status_code=201)
def create_token(
    session: SessionDep, actor: Annotated[Actor, Depends(require("tokens:own"))], body: TokenIn
) -> TokenCreated:
    """Make an API token that acts for the caller; its secret is in this answer only."""
    if actor.user_id is None:
        raise Forbidden("only a user can make a token")
    user = service.get_user(session, actor.tenant_id, actor.user_id)
    token, secret = service.create_token(
        session,
        actor.tenant_id,
        user,
        body.name,
        body.scopes,
        expires_in_days=body.expires_in_days,
        within=actor.rights,
    )
    describe(session, f"token:{token.name}", scopes=token.scopes)
    return TokenCreated(**TokenOut.model_validate(token).model_dump(), token=secret)


@router.post("/tokens/{token_id}/rotate", status_code=201)
def rotate_token(
    session: SessionDep,
    actor: Annotated[Actor, Depends(require("tokens:own"))],
    token_id: uuid.UUID,
    body: TokenRotateIn | None = None,
) -> TokenCreated:
    """Make a successor of one's own token with the same rights; the old one ends after the overlap."""
    if actor.user_id is None:
        raise Forbidden("only a user can rotate a token")
    user = service.get_user(session, actor.tenant_id, actor.user_id)
    overlap = timedelta(hours=(body or TokenRotateIn()).overlap_hours)
    token, secret = service.rotate_token(session, actor.tenant_id, user, token_id, overlap, within=actor.rights)
    describe(session, f"token:{token.name}", rotated=str(token_id))
    return TokenCreated(**TokenOut.model_validate(token).model_dump(), token=secret)


@router.delete("/tokens/{token_id}", status_code=204)
def revoke_token(
    session: SessionDep, actor: Annotated[Actor, Depends(require("tokens:own"))], token_id: uuid.UUID
) -> None:
    """End a token at once: one's own, or anyone's with the right tokens:write."""
    owner = None if actor.may("tokens:write") else actor.user_id
    token = service.revoke_token(session, actor.tenant_id, token_id, owner)
    describe(session, f"token:{token.name}")


def _wanted(
    actor: Annotated[Filter, Query(description="A user, with their tokens; or as the trail says it")] = "",
    action: Annotated[Filter, Query(description="The action, such as `add host`")] = "",
    object: Annotated[Filter, Query(description="A part of the object, such as `host:web1`")] = "",
    address: Annotated[Filter, Query(description="The address it came from")] = "",
    since: Moment | None = None,
    until: Moment | None = None,
) -> trail.Wanted:
    return trail.Wanted(actor, action, object, address, since, until)


WantedActs = Annotated[trail.Wanted, Depends(_wanted)]


@router.get("/audit")
def list_audit(
    session: SessionDep,
    actor: Annotated[Actor, Depends(require("audit:read"))],
    wanted: WantedActs,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[AuditOut]:
    """List acts, newest first. A page of a filtered list may be short or empty: only `next` tells its end."""
    rows, following = trail.list_acts(session, actor.tenant_id, wanted, decode_id(cursor), limit)
    return Page(
        items=[AuditOut.model_validate(act) for act in rows],
        next=encode_cursor([str(following)]) if following else None,
    )


@router.get("/audit/export", response_class=StreamingResponse)
def export_audit(
    state: StateDep,
    actor: Annotated[Actor, Depends(require("audit:read", audit=False))],
    wanted: WantedActs,
    format: Literal["csv", "jsonl"] = "csv",
) -> StreamingResponse:
    """Give all acts, newest first, as CSV or a JSON object a line. An answer that breaks off is not whole."""
    name = f"saveos-audit-{now():%Y-%m-%d}.{format}"
    return StreamingResponse(
        trail.export(state.database, actor.tenant_id, wanted, format),
        media_type=trail.FORMATS[format],
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )
