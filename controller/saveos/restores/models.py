"""Table of restore requests."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, ForeignKey, Index, String, false
from sqlalchemy.orm import Mapped, mapped_column

from saveos.core.clock import now
from saveos.core.database import Base, HasId


class Restore(HasId, Base):
    """What a person asked back: paths of an archive to a directory of a host, by one job."""

    __tablename__ = "restores"
    __table_args__ = (Index("ix_restores_tenant_id_id", "tenant_id", "id"),)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    archive_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("archives.id"))
    host_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("hosts.id"))
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id"), index=True)
    paths: Mapped[list[Any]] = mapped_column(default=list)  # empty: the whole archive
    refs: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")  # more paths, of any bytes
    excludes: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")
    exclude_refs: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")
    destination: Mapped[str] = mapped_column(String(4096), default="")  # empty: the staging directory
    in_place: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    conflict: Mapped[str] = mapped_column(String(10), default="refuse", server_default="refuse")
    kind: Mapped[str] = mapped_column(String(10), default="host", server_default="host")  # see schemas.Kind
    target_host_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("hosts.id")
    )  # of kind other_host, drill
    preview: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())  # changed nothing
    outcome: Mapped[dict[str, Any] | None] = mapped_column(default=None)  # what the host told: see schemas
    requested_by: Mapped[str] = mapped_column(String(150), default="")
    created_at: Mapped[datetime] = mapped_column(default=now)
