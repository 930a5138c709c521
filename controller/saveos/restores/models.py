"""Table of restore requests."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String
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
    destination: Mapped[str] = mapped_column(String(4096), default="")  # empty: the staging directory
    requested_by: Mapped[str] = mapped_column(String(150), default="")
    created_at: Mapped[datetime] = mapped_column(default=now)
