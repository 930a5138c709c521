"""Tables of jobs, their hosts, their log chunks and the leases that keep two jobs off one host."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from saveos.core.clock import now
from saveos.core.database import Base, HasId, new_id

ACTIVE = ("queued", "running", "canceling")
FINAL = ("succeeded", "partial", "failed", "canceled", "timed_out", "lost")


class Job(HasId, Base):
    """One tracked run of an operation. The truth about it is this row, its hosts and its leases."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_tenant_id_id", "tenant_id", "id"),
        Index("ix_jobs_state_id", "state", "id"),
        Index("ix_jobs_tenant_id_operation_id", "tenant_id", "operation", "id"),
    )
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    operation: Mapped[str] = mapped_column(String(40))
    mode: Mapped[str] = mapped_column(String(10), default="run")  # run | check
    state: Mapped[str] = mapped_column(String(12), default="queued")
    trigger: Mapped[str] = mapped_column(String(20), default="api")  # api cli dashboard schedule hand timer
    requested_by: Mapped[str] = mapped_column(String(150), default="")
    targets: Mapped[dict[str, Any]] = mapped_column(default=dict)  # as asked: {hosts, groups, all}
    parameters: Mapped[dict[str, Any]] = mapped_column(default=dict)  # validated; never holds a secret
    resources: Mapped[list[Any]] = mapped_column(default=list)  # "host:<id>", "repository:<id>", sorted
    attempt: Mapped[int] = mapped_column(default=0)
    retry_of: Mapped[uuid.UUID | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    timeout: Mapped[int] = mapped_column(default=86400)  # seconds
    cancel_requested_at: Mapped[datetime | None]
    canceled_by: Mapped[str] = mapped_column(String(150), default="")
    hosts_total: Mapped[int] = mapped_column(default=0)
    hosts_done: Mapped[int] = mapped_column(default=0)
    hosts_failed: Mapped[int] = mapped_column(default=0)
    events: Mapped[int] = mapped_column(default=0)  # number of the last stored event
    log_bytes: Mapped[int] = mapped_column(default=0)
    error: Mapped[str] = mapped_column(String(2000), default="")  # a sentence: what, and what to do
    error_type: Mapped[str] = mapped_column(String(60), default="")
    blocked_by: Mapped[str] = mapped_column(String(200), default="")  # queued: what it waits for
    result: Mapped[dict[str, Any]] = mapped_column(default=dict)


class JobHost(Base):
    """One host in a job: its state, Ansible's counts and the operation's result for it."""

    __tablename__ = "job_hosts"
    __table_args__ = (Index("ix_job_hosts_host_id_job_id", "host_id", "job_id"),)
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(253), primary_key=True)
    host_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("hosts.id", ondelete="SET NULL"))
    state: Mapped[str] = mapped_column(String(12), default="queued")  # queued running ok changed failed …
    is_target: Mapped[bool] = mapped_column(default=True)  # false: a storage server that came along
    counts: Mapped[dict[str, Any]] = mapped_column(default=dict)
    tasks: Mapped[list[Any]] = mapped_column(default=list)  # [[task, state], …] for the grid, capped
    result: Mapped[dict[str, Any]] = mapped_column(default=dict)
    error: Mapped[str] = mapped_column(String(2000), default="")
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class JobLog(Base):
    """Many events in one compressed chunk (zlib of newline-joined JSON), so the table grows slowly."""

    __tablename__ = "job_log"
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    first: Mapped[int] = mapped_column(primary_key=True)  # number of the first event in it, from 1
    last: Mapped[int]
    at: Mapped[datetime] = mapped_column(default=now)
    data: Mapped[bytes] = mapped_column(LargeBinary)


class Lease(Base):
    """A job attempt's right to a resource until `expires_at`, by the database's clock; `fence` only grows."""

    __tablename__ = "leases"
    resource: Mapped[str] = mapped_column(String(100), primary_key=True)
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    attempt: Mapped[int]
    fence: Mapped[uuid.UUID] = mapped_column(default=new_id)  # UUIDv7: a later lease has a greater one
    worker: Mapped[str] = mapped_column(String(150))
    expires_at: Mapped[datetime]


class WorkerSeen(Base):
    """A worker that runs somewhere, as it says of itself every few seconds."""

    __tablename__ = "workers"
    name: Mapped[str] = mapped_column(String(150), primary_key=True)
    version: Mapped[str] = mapped_column(String(40))
    slots: Mapped[int]  # jobs that it runs at once
    running: Mapped[int]
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    swept_at: Mapped[datetime | None]  # when it last judged hosts for alerts
