"""Tables of recovery keys, escrow, and which secrets hosts hold."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, LargeBinary, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from saveos.core.clock import now
from saveos.core.database import Base, HasId

CURRENT = text("retired_at IS NULL")


class RecoveryKey(HasId, Base):
    """The public half that hosts seal to; a tenant has one that is not retired.

    Of mode `offline`: the private half was never here. Of mode `managed`: it is in `private_key`, sealed, so
    the controller can open every escrow of this key.
    """

    __tablename__ = "recovery_keys"
    __table_args__ = (
        Index(
            "uq_recovery_keys_current",
            "tenant_id",
            unique=True,
            sqlite_where=CURRENT,
            postgresql_where=CURRENT,
        ),
        Index("ix_recovery_keys_tenant_id_fingerprint", "tenant_id", "fingerprint"),
    )
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    public_key: Mapped[str] = mapped_column(String(64))
    fingerprint: Mapped[str] = mapped_column(String(64))
    mode: Mapped[str] = mapped_column(String(10))
    private_key: Mapped[bytes | None] = mapped_column(LargeBinary)  # sealed
    created_at: Mapped[datetime] = mapped_column(default=now)
    retired_at: Mapped[datetime | None]


class Escrow(HasId, Base):
    """What a host sealed about one repository: passphrase and key export, for the recovery key's holder only.

    `url` and `host_keys` are how the host reaches the repository, which is no secret. The newest row of a
    repository counts; older ones are kept.
    """

    __tablename__ = "escrows"
    __table_args__ = (Index("ix_escrows_repository_id_id", "repository_id", "id"),)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    repository_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("repositories.id", ondelete="CASCADE"))
    host_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("hosts.id"), index=True)
    recovery_key_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("recovery_keys.id"))
    sealed: Mapped[bytes] = mapped_column(LargeBinary)
    digest: Mapped[str] = mapped_column(String(64))  # SHA-256 of `sealed`
    url: Mapped[str] = mapped_column(String(5000), default="")
    host_keys: Mapped[list[Any]] = mapped_column(default=list)
    created_at: Mapped[datetime] = mapped_column(default=now)


class HeldSecret(HasId, Base):
    """A secret that a host holds, as the host told: of which kind, how old, never a value.

    `subject` is the repository's id of a passphrase, else empty. `private` says that only root can read it,
    `open` that a rotation of it was interrupted and waits to be finished.
    """

    __tablename__ = "held_secrets"
    __table_args__ = (
        UniqueConstraint("host_id", "kind", "subject"),
        Index("ix_held_secrets_tenant_id_id", "tenant_id", "id"),
    )
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    host_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("hosts.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(20))
    subject: Mapped[str] = mapped_column(String(64), default="")
    made_at: Mapped[datetime | None]
    private: Mapped[bool] = mapped_column(default=True)
    open: Mapped[bool] = mapped_column(default=False)
    rotated_at: Mapped[datetime | None]
    told_at: Mapped[datetime] = mapped_column(default=now)
