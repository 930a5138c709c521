"""Table of policies."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from saveos.core.clock import now
from saveos.core.database import Base, HasId


class Policy(HasId, Base):
    """What a host backs up, when, and how long archives are kept.

    `schedule` is a five-field cron expression; `hooks` is sealed JSON {before, after, on_error},
    because commands may carry secrets. `is_default` applies where a host names none.
    """

    __tablename__ = "policies"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str] = mapped_column(String(100))
    is_default: Mapped[bool] = mapped_column(default=False)
    sources: Mapped[list[Any]] = mapped_column(default=list)
    excludes: Mapped[list[Any]] = mapped_column(default=list)
    schedule: Mapped[str] = mapped_column(String(100), default="0 2 * * *")
    jitter_minutes: Mapped[int] = mapped_column(default=30)
    grace_minutes: Mapped[int] = mapped_column(default=360)
    retention: Mapped[dict[str, Any]] = mapped_column(default=dict)
    compression: Mapped[str] = mapped_column(String(40), default="zstd,3")
    upload_rate_limit: Mapped[int] = mapped_column(default=0)  # KiB/s; 0 is none
    hooks: Mapped[bytes | None] = mapped_column(LargeBinary)
    overrides: Mapped[dict[str, Any]] = mapped_column(default=dict)  # merged last into borgmatic's config
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)
