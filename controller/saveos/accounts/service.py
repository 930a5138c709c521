"""Verbs of accounts: first set-up, users, log-in, tokens, audit."""

import secrets
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from saveos.accounts.keys import data_key, make_tenant, seal_for, ssh_private_key, unseal_for
from saveos.accounts.models import Audit, Login, Tenant, Token, User
from saveos.accounts.throttle import login_throttle, one_hash
from saveos.core import security
from saveos.core.clock import now
from saveos.core.database import Database
from saveos.core.errors import Conflict, Forbidden, Invalid, NotFound, Unauthenticated

__all__ = ["RIGHTS", "bootstrap", "data_key", "seal_for", "ssh_private_key", "unseal_for"]

READ = frozenset(
    f"{noun}:read"
    for noun in (
        "hosts",
        "policies",
        "repositories",
        "archives",
        "runs",
        "jobs",
        "restores",
        "schedules",
        "alerts",
        "users",
        "tokens",
        "audit",
        "system",
    )
) | {"tokens:own"}  # everyone may make tokens that act for themselves
OPERATE = READ | {"jobs:write", "restores:write", "schedules:write", "alerts:write", "archives:write"}
RIGHTS = {
    "viewer": READ,
    "operator": OPERATE,
    "admin": OPERATE
    | {
        "hosts:write",
        "repositories:write",
        "policies:write",
        "channels:write",
        "secrets:read",
        "secrets:write",
        "users:write",
        "tokens:write",
        "inventory:secrets",
        "settings:write",
        "download",
        "restores:in_place",
        "repositories:approve",
        "repositories:undo",
        "restores:other_host",
        "archives:delete",
    },
}
AGENT_RIGHTS = frozenset({"checkins:write"})
LOGIN_DAYS = 7
UNKNOWN = "unknown user"  # in the audit trail, for a name that no user has: people type passwords there
FIRST_LOGIN_FILE = "admin-password"  # below the home: the first admin's one-time password


@dataclass(frozen=True)
class Bootstrap:
    """What the first set-up made; `password` is set only by the call that made the admin."""

    tenant_id: uuid.UUID
    user_id: uuid.UUID
    password: str | None


def bootstrap(session: Session) -> Bootstrap:
    """Make the tenant `default` and its user `admin` with a one-time password, where there are none."""
    tenant = first_tenant(session)
    if tenant is None:
        tenant = make_tenant(session, "default")
    admin = session.scalar(
        select(User).where(User.tenant_id == tenant.id, User.role == "admin").order_by(User.id).limit(1)
    )
    if admin is not None:
        return Bootstrap(tenant.id, admin.id, None)
    admin, password = create_user(session, tenant.id, "admin", "admin")
    return Bootstrap(tenant.id, admin.id, password)


def first_tenant(session: Session) -> Tenant | None:
    """Return the tenant that the installation was made with; None before there is one."""
    return session.scalar(select(Tenant).order_by(Tenant.created_at, Tenant.id).limit(1))


def create_user(
    session: Session, tenant_id: uuid.UUID, name: str, role: str, password: str | None = None
) -> tuple[User, str | None]:
    """Make a user. Returns the one-time password too when none was given. Raises Conflict on a taken name."""
    if session.scalar(select(User.id).where(User.name == name)):
        raise Conflict(f"there is a user {name} already: choose another name", field="name")
    one_time = None if password else secrets.token_urlsafe(12)
    user = User(
        tenant_id=tenant_id,
        name=name,
        role=role,
        password_hash=_hash(password or one_time or ""),
        must_change_password=one_time is not None,
    )
    session.add(user)
    session.flush()
    return user, one_time


def get_user(session: Session, tenant_id: uuid.UUID, user_id: uuid.UUID) -> User:
    """Return a user. Raises NotFound."""
    user = session.scalar(select(User).where(User.id == user_id, User.tenant_id == tenant_id))
    if user is None:
        raise NotFound("there is no such user")
    return user


def list_users(session: Session, tenant_id: uuid.UUID, after: uuid.UUID | None, limit: int) -> list[User]:
    """Return up to `limit` users in order of their making."""
    query = select(User).where(User.tenant_id == tenant_id).order_by(User.id).limit(limit)
    return list(session.scalars(query.where(User.id > after) if after else query))


def ids_of_users(session: Session, tenant_id: uuid.UUID, names: Collection[str]) -> dict[str, uuid.UUID]:
    """Return the ids of those of a tenant's users that have these names, as many as a statement can name."""
    query = select(User.name, User.id).where(User.tenant_id == tenant_id, User.name.in_(names))
    return {row.name: row.id for row in session.execute(query)}


def change_user(
    session: Session, user: User, *, role: str | None, active: bool | None, language: str | None
) -> None:
    """Change role, state or language. Raises Conflict when no active admin would be left."""
    if user.role == "admin" and user.active and (role not in (None, "admin") or active is False):
        # All of them locked, in one order: two admins who demote each other at once would leave none
        admins = select(User.id).where(User.tenant_id == user.tenant_id, User.role == "admin", User.active)
        if not set(session.scalars(admins.order_by(User.id).with_for_update())) - {user.id}:
            raise Conflict("this is the last admin: make another one first", field="role")
    user.role = role or user.role
    user.active = user.active if active is None else active
    user.language = user.language if language is None else language
    if not user.active:
        end_logins(session, user.id)


def reset_password(session: Session, user: User) -> str:
    """Give a user a new one-time password, end their sessions, and return it."""
    password = secrets.token_urlsafe(12)
    user.password_hash, user.must_change_password = _hash(password), True
    end_logins(session, user.id)
    return password


def end_logins(session: Session, user_id: uuid.UUID, but: str | None = None) -> None:
    """End a user's dashboard sessions, but the one whose cookie is `but`."""
    query = delete(Login).where(Login.user_id == user_id)
    session.execute(query.where(Login.hash != security.token_hash(but)) if but else query)


def check_password(
    database: Database, name: str, password: str, address: str, *, action: str = "log in"
) -> User:
    """Return the active user with this name and password; the audit trail is told that `action` failed.

    Opens its own short sessions, so that no transaction waits for argon2. The answer and its time
    are the same for an unknown name and a wrong password. Raises Unauthenticated, TooMany.
    """
    login_throttle.check(name, address)
    with database.session() as session:
        user = session.scalar(select(User).where(User.name == name))
    with one_hash():
        right = security.verify_password(password, user.password_hash if user else _dummy_hash())
    if user is None or not right or not user.active:
        reached = login_throttle.failed(name, address)
        if reached is not None:
            _note_failure(database, user, f"fail {action}", address, reached)
        raise Unauthenticated("name or password is wrong", type_="wrong-password")
    login_throttle.succeeded(name, address)
    return user


def _note_failure(
    database: Database, user: User | None, action: str, address: str, reached: Collection[str]
) -> None:
    """Note a failed password, and the limits that it `reached`, in a transaction of its own.

    Does the same reads and writes for a name that no user has, so that its time does not tell.
    """
    with database.session(writes=True) as session:
        tenant = first_tenant(session)
        if tenant is None:
            return
        tenant_id, name, object_ = tenant.id, UNKNOWN, ""
        if user is not None:
            tenant_id, name, object_ = user.tenant_id, user.name, f"user:{user.name}"
        record(session, tenant_id, name, action, object_, address=address)
        if reached:
            limited = record(session, tenant_id, name, "limit log in", object_, address=address)
            limited.detail = {"limits": list(reached)}


def change_password(
    database: Database, home: Path, user: User, current: str, new: str, *, address: str, cookie: str | None
) -> None:
    """Set a user's own password and end their other sessions. Raises Invalid when `current` is wrong.

    The file in `home` that told the first one-time password goes with that password.
    """
    try:
        check_password(database, user.name, current, address, action="change password")
    except Unauthenticated as error:
        raise Invalid("the current password is wrong", field="current") from error
    if current == new:
        raise Invalid("the new password must be another one", field="new")
    hashed = _hash(new)
    with database.session() as session:
        row = session.get_one(User, user.id)
        row.password_hash, row.must_change_password = hashed, False
        end_logins(session, user.id, but=cookie)
        record(session, user.tenant_id, user.name, "change password", f"user:{user.name}", address=address)
    told = home / FIRST_LOGIN_FILE
    if told.is_file() and told.read_text().strip() == current:
        told.unlink()


def open_login(session: Session, user: User, address: str) -> str:
    """Open a dashboard session and return its cookie; ended ones are swept on the way."""
    session.execute(delete(Login).where(Login.expires_at < now()))
    cookie = security.new_token("saveos_login")
    expires = now() + timedelta(days=LOGIN_DAYS)
    session.add(
        Login(user_id=user.id, hash=security.token_hash(cookie), expires_at=expires, address=address[:64])
    )
    session.execute(update(User).where(User.id == user.id).values(last_login_at=now()))
    record(session, user.tenant_id, user.name, "log in", f"user:{user.name}", address=address)
    return cookie


def close_login(session: Session, tenant_id: uuid.UUID, name: str, cookie: str, address: str) -> None:
    """End the session that a user of this name has by a cookie."""
    session.execute(delete(Login).where(Login.hash == security.token_hash(cookie)))
    record(session, tenant_id, name, "log out", f"user:{name}", address=address)


def create_token(
    session: Session,
    tenant_id: uuid.UUID,
    user: User,
    name: str,
    scopes: list[str],
    *,
    expires_in_days: int | None = None,
    within: frozenset[str] | None = None,
) -> tuple[Token, str]:
    """Make an API token for a user and return it with its secret.

    `within` are the rights of who asks. Raises Invalid on an unknown scope, Forbidden on one beyond `within`.
    """
    rights = RIGHTS[user.role]
    if within is not None and not _meant(user.role, scopes) <= within:
        raise Forbidden("a token cannot have more rights than who makes it: name fewer scopes")
    for scope in scopes:
        if scope != "*" and scope not in rights:
            known = ", ".join(sorted(rights))
            raise Invalid(f"{scope!r} is not a right of {user.role}: choose of *, {known}", field="scopes")
    secret = security.new_token("saveos")
    token = Token(
        tenant_id=tenant_id,
        user_id=user.id,
        name=name,
        scopes=sorted(set(scopes)),
        hash=security.token_hash(secret),
        expires_at=now() + timedelta(days=expires_in_days) if expires_in_days else None,
    )
    session.add(token)
    session.flush()
    return token, secret


def rotate_token(
    session: Session,
    tenant_id: uuid.UUID,
    user: User,
    token_id: uuid.UUID,
    overlap: timedelta,
    *,
    within: frozenset[str],
) -> tuple[Token, str]:
    """Make a successor of a user's own API token, with its name, rights and life; the old one ends after
    `overlap`. Raises NotFound, and Forbidden where it has more rights than who asks (`within`).
    """
    own = (Token.tenant_id == tenant_id, Token.user_id == user.id, Token.id == token_id)
    old = session.scalar(select(Token).where(*own))
    if old is None:
        raise NotFound("there is no such token of yours")
    if not _meant(user.role, old.scopes) <= within:
        raise Forbidden("this token may not make one with more rights than it has: log in instead")
    made, secret = create_token(session, tenant_id, user, old.name, list(old.scopes))
    if old.expires_at is not None:
        made.expires_at = now() + (old.expires_at - old.created_at)
    end = now() + overlap
    old.expires_at = min(end, old.expires_at) if old.expires_at else end
    return made, secret


def _meant(role: str, scopes: Sequence[str]) -> frozenset[str]:
    """Return the rights that a token with these scopes has while its user has this role."""
    return RIGHTS[role] if "*" in scopes else RIGHTS[role] & frozenset(scopes)


def set_agent_token(session: Session, tenant_id: uuid.UUID, host_id: uuid.UUID, name: str, hashed: str) -> None:
    """Accept the token that a host made for itself, by its hash; any earlier one of that host ends.

    Raises Conflict when another host or user has this hash.
    """
    existing = session.scalar(select(Token).where(Token.hash == hashed))
    if existing is not None and (existing.tenant_id, existing.host_id) == (tenant_id, host_id):
        return
    if existing is not None:
        raise Conflict(f"{name} reports a token that another host has: was it cloned? Provision it afresh")
    revoke_agent_tokens(session, tenant_id, [host_id])
    _add_agent_token(session, tenant_id, host_id, name, hashed)


def agent_token_beside(
    session: Session, tenant_id: uuid.UUID, host_id: uuid.UUID, name: str, *, current: str, hashed: str
) -> None:
    """Accept a host's new token beside the one it came with (both by hash); used by the new one, others end.

    Raises Conflict when another host or user has this hash.
    """
    if hashed == current:
        others = (Token.tenant_id == tenant_id, Token.host_id == host_id, Token.hash != current)
        session.execute(delete(Token).where(*others))
        return
    existing = session.scalar(select(Token).where(Token.hash == hashed))
    if existing is None:
        _add_agent_token(session, tenant_id, host_id, name, hashed)
    elif (existing.tenant_id, existing.host_id) != (tenant_id, host_id):
        raise Conflict(f"{name} reports a token that another host has: make another one")


def _add_agent_token(
    session: Session, tenant_id: uuid.UUID, host_id: uuid.UUID, name: str, hashed: str
) -> None:
    token = Token(tenant_id=tenant_id, kind="agent", host_id=host_id, name=name[:100], hash=hashed)
    token.scopes = sorted(AGENT_RIGHTS)
    session.add(token)
    session.flush()


def revoke_agent_tokens(session: Session, tenant_id: uuid.UUID, host_ids: Sequence[uuid.UUID]) -> None:
    """End the tokens of hosts, of as many as a statement can name."""
    session.execute(delete(Token).where(Token.tenant_id == tenant_id, Token.host_id.in_(host_ids)))


def list_tokens(
    session: Session,
    tenant_id: uuid.UUID,
    after: uuid.UUID | None,
    limit: int,
    owner: uuid.UUID | None = None,
) -> list[Token]:
    """Return up to `limit` tokens in order of their making, of all users or of `owner`."""
    query = select(Token).where(Token.tenant_id == tenant_id).order_by(Token.id).limit(limit)
    if owner:
        query = query.where(Token.user_id == owner)
    return list(session.scalars(query.where(Token.id > after) if after else query))


def revoke_token(
    session: Session, tenant_id: uuid.UUID, token_id: uuid.UUID, owner: uuid.UUID | None = None
) -> Token:
    """End a token, of anyone or of `owner`, and return what it was. Raises NotFound."""
    token = session.scalar(select(Token).where(Token.tenant_id == tenant_id, Token.id == token_id))
    if token is None or (owner is not None and token.user_id != owner):
        raise NotFound("there is no such token")
    session.delete(token)
    return token


def record(
    session: Session, tenant_id: uuid.UUID, actor: str, action: str, object_: str, *, address: str = ""
) -> Audit:
    """Add an act to the audit trail; it stands or falls with the session's transaction."""
    row = Audit(
        tenant_id=tenant_id, actor=actor[:150], action=action[:60], object=object_[:200], address=address[:64]
    )
    session.add(row)
    return row


def get_tenant(session: Session, tenant_id: uuid.UUID) -> Tenant:
    """Return a tenant, which holds its settings."""
    return session.get_one(Tenant, tenant_id)


def check_content(session: Session, tenant_id: uuid.UUID) -> None:
    """Raise Forbidden where a tenant lets no content of archives pass through the controller.

    That is downloads, restores to other hosts, previews of files and text differences.
    """
    if not get_tenant(session, tenant_id).content_through_controller:
        raise Forbidden(
            "content of archives may not pass through the controller (the setting content_through_controller "
            "is off): restore to a directory of the host, and copy it from there",
            type_="content-off",
        )


def _hash(password: str) -> str:
    with one_hash():
        return security.hash_password(password)


@cache
def _dummy_hash() -> str:
    return security.hash_password(secrets.token_urlsafe(12))
