"""Table of archives, as check-ins reported them."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, UniqueConstraint, false
from sqlalchemy.orm import Mapped, mapped_column

from saveos.core.clock import now
from saveos.core.database import Base, HasId


class Archive(HasId, Base):
    """The result of one `borg create`; sizes in bytes, duration in seconds, as Borg reported them."""

    __tablename__ = "archives"
    __table_args__ = (
        UniqueConstraint("repository_id", "borg_id"),
        Index("ix_archives_tenant_id_started_at_id", "tenant_id", "started_at", "id"),
        Index("ix_archives_host_id_started_at_id", "host_id", "started_at", "id"),
        Index("ix_archives_catalogue_started_at", "catalogue", "started_at"),
    )
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    host_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("hosts.id"))
    repository_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("repositories.id"))
    run_id: Mapped[uuid.UUID | None] = mapped_column(index=True)
    borg_id: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(400))
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    duration: Mapped[float | None]
    files: Mapped[int | None] = mapped_column(BigInteger)
    original_size: Mapped[int | None] = mapped_column(BigInteger)
    compressed_size: Mapped[int | None] = mapped_column(BigInteger)
    deduplicated_size: Mapped[int | None] = mapped_column(BigInteger)
    check_state: Mapped[str] = mapped_column(String(10), default="never")
    # none | wanted | waiting | indexed | failed | off: whether its files are in the catalogue, and why not
    catalogue: Mapped[str] = mapped_column(String(10), default="none", server_default="none")
    catalogue_error: Mapped[str] = mapped_column(String(500), default="", server_default="")
    note: Mapped[str] = mapped_column(String(500), default="", server_default="")
    tags: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")
    protected: Mapped[bool] = mapped_column(default=False, server_default=false())  # retention leaves it out
    # when and why it was marked for removal: retention | request; empty where nothing here explains it
    removed_at: Mapped[datetime | None]
    removed_why: Mapped[str] = mapped_column(String(20), default="", server_default="")
    removed_by: Mapped[str] = mapped_column(String(150), default="", server_default="")
    gone_at: Mapped[datetime | None]  # since when its host's repository is seen to have it no more
    reported_at: Mapped[datetime] = mapped_column(default=now)
