"""Tables of schedules and of what became of each of their times."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from saveos.core.clock import now
from saveos.core.database import Base, HasId


class Schedule(HasId, Base):
    """An operation that runs by itself: on what, with what, when.

    `due_at` is the next time that the expression names; `next_at` is that time with its share of the
    jitter, and is what the worker looks for: null where nothing is to come.
    """

    __tablename__ = "schedules"
    __table_args__ = (
        UniqueConstraint("tenant_id", "name"),
        Index("ix_schedules_next_at", "next_at"),
    )
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str] = mapped_column(String(100))
    operation: Mapped[str] = mapped_column(String(40))
    targets: Mapped[dict[str, Any]] = mapped_column(default=dict)  # {hosts, groups, all}, resolved at each run
    parameters: Mapped[dict[str, Any]] = mapped_column(default=dict)  # checked; never holds a secret
    mode: Mapped[str] = mapped_column(String(10), default="run")  # run | check
    cron: Mapped[str] = mapped_column(String(100))  # five fields
    zone: Mapped[str] = mapped_column(String(60), default="UTC")  # IANA
    jitter_seconds: Mapped[int] = mapped_column(default=0)
    catch_up: Mapped[bool] = mapped_column(default=False)  # one run for what a stopped controller missed
    enabled: Mapped[bool] = mapped_column(default=True)
    built_in: Mapped[bool] = mapped_column(default=False)  # can be switched off and changed, not deleted
    due_at: Mapped[datetime | None]
    next_at: Mapped[datetime | None]
    last_at: Mapped[datetime | None]
    last_job_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"))
    created_by: Mapped[str] = mapped_column(String(150), default="")
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)


class ScheduleRun(HasId, Base):
    """What became of a time at which a schedule was due: started, skipped or failed, and why.

    A long row of missed times is one row: `count` of them, from `due_at` on.
    """

    __tablename__ = "schedule_runs"
    __table_args__ = (Index("ix_schedule_runs_schedule_id_id", "schedule_id", "id"),)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    schedule_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("schedules.id", ondelete="CASCADE"))
    due_at: Mapped[datetime]
    fired_at: Mapped[datetime]
    job_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"))
    outcome: Mapped[str] = mapped_column(String(10))  # started | skipped | failed
    reason: Mapped[str] = mapped_column(String(500), default="")
    count: Mapped[int] = mapped_column(default=1)
