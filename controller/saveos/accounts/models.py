"""Tables of tenants, users, sessions, tokens and the audit trail."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, LargeBinary, String, UniqueConstraint, true
from sqlalchemy.orm import Mapped, mapped_column

from saveos.core.clock import now
from saveos.core.database import Base, HasId


class Tenant(HasId, Base):
    """An owner of hosts, repositories and jobs; every other row belongs to one."""

    __tablename__ = "tenants"
    name: Mapped[str] = mapped_column(String(100), unique=True)
    data_key: Mapped[bytes] = mapped_column(LargeBinary)  # wrapped by the installation's KEK
    ssh_public_key: Mapped[str] = mapped_column(String(1000), default="")
    ssh_private_key: Mapped[bytes | None] = mapped_column(LargeBinary)  # sealed
    ssh_key_made_at: Mapped[datetime | None]  # none: with the tenant
    # While the key is rotated: the one before, which hosts that were not reached yet still know
    former_ssh_public_key: Mapped[str] = mapped_column(String(1000), default="", server_default="")
    former_ssh_private_key: Mapped[bytes | None] = mapped_column(LargeBinary)  # sealed
    content_through_controller: Mapped[bool] = mapped_column(default=True, server_default=true())
    created_at: Mapped[datetime] = mapped_column(default=now)


class User(HasId, Base):
    """A person. `role` is viewer, operator or admin; see accounts.service.RIGHTS."""

    __tablename__ = "users"
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"), index=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    password_hash: Mapped[str] = mapped_column(String(200))
    must_change_password: Mapped[bool] = mapped_column(default=False)
    role: Mapped[str] = mapped_column(String(20), default="viewer")
    language: Mapped[str] = mapped_column(String(5), default="")
    active: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    last_login_at: Mapped[datetime | None]  # with name and password; a token's use is the token's


class Login(HasId, Base):
    """A dashboard session: the cookie's hash and when it ends."""

    __tablename__ = "logins"
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime]
    address: Mapped[str] = mapped_column(String(64), default="")


class Token(HasId, Base):
    """A bearer token, stored hashed. Of kind `api` (acts for a user) or `agent` (speaks for a host)."""

    __tablename__ = "tokens"
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"), index=True)
    kind: Mapped[str] = mapped_column(String(10), default="api")
    user_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    host_id: Mapped[uuid.UUID | None] = mapped_column(index=True)
    name: Mapped[str] = mapped_column(String(100), default="")
    scopes: Mapped[list[Any]] = mapped_column(default=list)  # rights of RIGHTS; ["*"] is all of the role's
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class Audit(HasId, Base):
    """One act: who did what to which object, and how it ended."""

    __tablename__ = "audit"
    __table_args__ = (
        Index("ix_audit_tenant_id_id", "tenant_id", "id"),
        Index("ix_audit_tenant_id_object_id", "tenant_id", "object", "id"),  # a host's acts, on its page
    )
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    at: Mapped[datetime] = mapped_column(default=now)
    actor: Mapped[str] = mapped_column(String(150))
    action: Mapped[str] = mapped_column(String(60))
    object: Mapped[str] = mapped_column(String(200), default="")
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)
    address: Mapped[str] = mapped_column(String(64), default="")


class IdempotencyKey(HasId, Base):
    """An Idempotency-Key that a client sent, and the object it made."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (UniqueConstraint("tenant_id", "key"),)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    key: Mapped[str] = mapped_column(String(200))
    fingerprint: Mapped[str] = mapped_column(String(64))  # of the request, so that a reuse is refused
    object_id: Mapped[uuid.UUID]
    created_at: Mapped[datetime] = mapped_column(default=now)
