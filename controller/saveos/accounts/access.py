"""Who is asking: the actor behind a bearer token or session cookie, and the rights that a route requires."""

import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, cast

from fastapi import Depends, Request
from fastapi.security import APIKeyCookie, HTTPBearer
from sqlalchemy import Table, or_, select, update
from sqlalchemy.orm import Session

from saveos.accounts.models import Login, Token, User
from saveos.accounts.service import AGENT_RIGHTS, RIGHTS, record
from saveos.core import security
from saveos.core.clock import now
from saveos.core.database import Database
from saveos.core.errors import Forbidden, Problem, Unauthenticated
from saveos.core.settings import Settings
from saveos.core.web import SAFE_METHODS, SessionDep, StateDep, check_same_origin

TOUCH_EVERY = timedelta(minutes=1)
TOKENS = cast(Table, Token.__table__)
AGENT_FIELDS = ("hash", "tenant_id", "host_id", "id", "expires_at", "last_used_at")

bearer_scheme = HTTPBearer(auto_error=False, description="An API or agent token")
cookie_scheme = APIKeyCookie(name="saveos_session", auto_error=False, description="A dashboard session")


@dataclass(frozen=True)
class Actor:
    """The one who asks. `name` is what the audit trail says."""

    tenant_id: uuid.UUID
    user_id: uuid.UUID | None
    host_id: uuid.UUID | None
    name: str
    rights: frozenset[str]
    address: str
    cookie: str | None = field(default=None, repr=False)
    must_change_password: bool = False

    def may(self, right: str) -> bool:
        """Whether the actor has a right."""
        return right in self.rights


def cookie_name(settings: Settings) -> str:
    """Return the session cookie's name; `__Host-` binds it to this host and to TLS."""
    return "__Host-saveos_session" if settings.secure_cookies else "saveos_session"


def client_address(request: Request) -> str:
    """Return the address of the peer."""
    return request.client.host[:64] if request.client else ""


def find_actor(request: Request, state: StateDep) -> Actor | None:
    """Return the actor, or None without a credential. Raises Unauthenticated on one that does not hold.

    Uses a short session of its own: who has no rights takes no write lock.
    """
    address = client_address(request)
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme:
        if scheme.lower() != "bearer":
            raise Unauthenticated("send the token as: Authorization: Bearer TOKEN")
        return _by_token(state.database, token.strip(), address)
    cookie = request.cookies.get(cookie_name(state.settings))
    return _by_cookie(state.database, cookie, address) if cookie else None


def current_actor(
    actor: Annotated[Actor | None, Depends(find_actor)],
    _bearer: Annotated[object, Depends(bearer_scheme)] = None,
    _cookie: Annotated[object, Depends(cookie_scheme)] = None,
) -> Actor:
    """Return the actor. Raises Unauthenticated when nobody is logged in."""
    if actor is None:
        raise Unauthenticated("log in, or send an API token as: Authorization: Bearer TOKEN")
    return actor


CurrentActor = Annotated[Actor, Depends(current_actor)]


def require(right: str, *, audit: bool = True) -> Callable[..., Actor]:
    """Return a dependency that gives the actor when it has `right`, and notes each write in the audit trail.

    The note is in the route's own transaction, so it says what was done, not what was tried;
    `describe` adds to it. With `audit=False` no transaction is opened.
    """

    def check(request: Request, actor: CurrentActor) -> Actor:
        if request.method not in SAFE_METHODS and actor.cookie:
            check_same_origin(request)
        if actor.must_change_password:
            raise Forbidden("change your one-time password first", type_="password-change-needed")
        if right not in actor.rights:
            raise _lacks(right)
        return actor

    if not audit:
        return check

    def check_and_note(request: Request, actor: Annotated[Actor, Depends(check)], session: SessionDep) -> Actor:
        if request.method not in SAFE_METHODS and actor.host_id is None:
            route = request.scope.get("route")
            action = str(getattr(route, "name", "write")).replace("_", " ")
            path = request.url.path.removeprefix("/api/v1/")
            session.info["audit"] = record(
                session, actor.tenant_id, actor.name, action, path, address=actor.address
            )
        return actor

    return check_and_note


def describe(session: Session, object_: str, **detail: object) -> None:
    """Say in the audit trail what the current request's write was about; never a secret."""
    row = session.info.get("audit")
    if row is not None:
        row.object = object_[:200]
        row.detail = dict(detail)


def unsay(session: Session) -> None:
    """Take the note of the current request's write back: a form that is shown again has done nothing."""
    row = session.info.pop("audit", None)
    if row is not None:
        session.expunge(row) if row in session.new else session.delete(row)


def _by_token(database: Database, token: str, address: str) -> Actor:
    with database.session() as session:
        row = session.execute(
            select(Token, User)
            .outerjoin(User, User.id == Token.user_id)
            .where(Token.hash == security.token_hash(token))
        ).one_or_none()
    if row is None:
        raise Unauthenticated("the token is unknown or revoked: make a new one, or log in")
    found, user = row
    if found.expires_at is not None and found.expires_at <= now():
        raise Unauthenticated("the token has expired: make a new one")
    _touch(database, found.id, found.last_used_at)
    if found.kind == "agent":
        return Actor(found.tenant_id, None, found.host_id, f"agent:{found.name}", AGENT_RIGHTS, address)
    if user is None or not user.active:
        raise Unauthenticated("the token's user is no longer active")
    rights = RIGHTS.get(user.role, frozenset())
    if "*" not in found.scopes:
        rights = rights & frozenset(found.scopes)
    return Actor(found.tenant_id, user.id, None, f"{user.name} (token {found.name})", rights, address)


@dataclass(frozen=True)
class Agent:
    """The host that a token speaks for. `stale` says that the token's last use is to be noted again."""

    tenant_id: uuid.UUID
    host_id: uuid.UUID
    token_id: uuid.UUID
    stale: bool


def find_agents(session: Session, hashes: Collection[str]) -> dict[str, Agent]:
    """Return the agents behind hashed tokens; tokens of people, unknown and expired ones are left out."""
    at = now()
    query = select(*(TOKENS.c[name] for name in AGENT_FIELDS)).where(
        TOKENS.c.hash.in_(hashes), TOKENS.c.kind == "agent"
    )
    return {
        hash_: Agent(tenant_id, host_id, token_id, used is None or used <= at - TOUCH_EVERY)
        for hash_, tenant_id, host_id, token_id, expires_at, used in session.connection().execute(query)
        if host_id is not None and (expires_at is None or expires_at > at)
    }


def touch_agents(session: Session, agents: Collection[Agent]) -> None:
    """Note the use of these agents' tokens, where the last note is a minute old."""
    stale = {agent.token_id for agent in agents if agent.stale}
    if stale:
        session.execute(update(Token).where(Token.id.in_(stale)).values(last_used_at=now()))


def refuse(database: Database, token: str, address: str, right: str) -> Problem:
    """Return why a token that is no agent's may not do what needs `right`."""
    try:
        _by_token(database, token, address)
    except Unauthenticated as problem:
        return problem
    return _lacks(right)


def _lacks(right: str) -> Forbidden:
    return Forbidden(f"this needs the right {right}: ask an admin for it, or use another token")


def _by_cookie(database: Database, cookie: str, address: str) -> Actor | None:
    with database.session() as session:
        user = session.scalar(
            select(User)
            .join(Login, Login.user_id == User.id)
            .where(Login.hash == security.token_hash(cookie), Login.expires_at > now(), User.active)
        )
    if user is None:
        return None
    rights = RIGHTS.get(user.role, frozenset())
    return Actor(user.tenant_id, user.id, None, user.name, rights, address, cookie, user.must_change_password)


def _touch(database: Database, token_id: uuid.UUID, last_used_at: datetime | None) -> None:
    """Note a token's use, at most once a minute, in a transaction of its own."""
    threshold = now() - TOUCH_EVERY
    if last_used_at is not None and last_used_at > threshold:
        return
    with database.session() as session:
        session.execute(
            update(Token)
            .where(Token.id == token_id, or_(Token.last_used_at.is_(None), Token.last_used_at <= threshold))
            .values(last_used_at=now())
        )
