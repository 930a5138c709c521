"""Tables of runs: those that ended, as agents told them, and those that go on."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from saveos.core.clock import now
from saveos.core.database import Base


class Run(Base):
    """One run of a backup or restore on a host. The agent chose the id, so telling twice changes nothing."""

    __tablename__ = "runs"
    __table_args__ = (
        Index("ix_runs_host_id_started_at", "host_id", "started_at"),
        Index("ix_runs_tenant_id_started_at", "tenant_id", "started_at"),
        Index("ix_runs_job_id", "job_id"),
    )
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    host_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("hosts.id"))
    kind: Mapped[str] = mapped_column(String(20))
    trigger: Mapped[str] = mapped_column(String(20))  # timer | job | playbook | host
    job_id: Mapped[uuid.UUID | None]  # the job that started it, or the job made of it
    state: Mapped[str] = mapped_column(String(20))  # succeeded | warning | failed | canceled
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime]
    results: Mapped[list[Any]] = mapped_column(default=list)
    error_code: Mapped[str] = mapped_column(String(40), default="")
    error: Mapped[str] = mapped_column(String(2000), default="")
    log: Mapped[bytes | None] = mapped_column(LargeBinary)  # zlib of the log's tail
    received_at: Mapped[datetime] = mapped_column(default=now)


class RunningBackup(Base):
    """The run that goes on at a host, as the agent told last; gone when its record comes.

    A row whose `updated_at` is old is of an agent that died or lost its way here: readers pass it over.
    """

    __tablename__ = "running_backups"
    host_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("hosts.id", ondelete="CASCADE"), primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"), index=True)
    run_id: Mapped[uuid.UUID]
    kind: Mapped[str] = mapped_column(String(20))  # backup | restore
    trigger: Mapped[str] = mapped_column(String(20))
    job_id: Mapped[uuid.UUID | None]
    repository_id: Mapped[uuid.UUID | None]
    phase: Mapped[str] = mapped_column(String(20))  # start | create | finish | extract
    started_at: Mapped[datetime]
    files: Mapped[int | None] = mapped_column(BigInteger)
    original_size: Mapped[int | None] = mapped_column(BigInteger)  # bytes, as the two below
    compressed_size: Mapped[int | None] = mapped_column(BigInteger)
    deduplicated_size: Mapped[int | None] = mapped_column(BigInteger)
    updated_at: Mapped[datetime]
