"""Table of Borg repositories."""

import uuid
from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from saveos.core.clock import now
from saveos.core.database import Base, HasId


class Repository(HasId, Base):
    """Borg's store of one host's archives; its directory's name is its id.

    Of kind `ssh` (on `server_id`, a storage server) or `local` (a directory on the host itself).
    `claimed_*` is what its host says about it, `size` to `fault` what its server saw for itself.
    """

    __tablename__ = "repositories"
    __table_args__ = (Index("ix_repositories_tenant_id_id", "tenant_id", "id"),)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    host_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("hosts.id"), index=True)
    server_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("hosts.id"), index=True)
    kind: Mapped[str] = mapped_column(String(10), default="ssh")
    path: Mapped[str] = mapped_column(String(4096), default="")  # kind local; else below the server's root
    quota: Mapped[str] = mapped_column(String(20), default="")  # Borg's form, "100G"; empty is none
    initialised_at: Mapped[datetime | None]
    key_exported_at: Mapped[datetime | None]
    size: Mapped[int | None] = mapped_column(BigInteger)  # bytes on the server's disk
    created_at: Mapped[datetime] = mapped_column(default=now)
    quota_bytes: Mapped[int | None] = mapped_column(BigInteger)
    claimed_at: Mapped[datetime | None]  # start of the newest archive the host told of, less its clock's error
    claimed_told_at: Mapped[datetime | None]  # when it told, by the controller's clock
    last_commit_at: Mapped[datetime | None]
    checked_at: Mapped[datetime | None]  # when the server looked
    missing_since: Mapped[datetime | None]  # since then the server lacks what the host claims
    fault: Mapped[str] = mapped_column(
        String(200), default=""
    )  # what is wrong with its directory; empty is nothing
