"""Tables of policies, their versions, and which groups use them."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from saveos.core.clock import now
from saveos.core.database import Base, HasId


class Policy(HasId, Base):
    """What a host backs up, when, and how long archives are kept.

    `schedule` is a five-field cron expression in `zone`; `hooks` is sealed JSON {before, after, on_error},
    because commands may carry secrets, and `passwords` is sealed JSON {position in `databases`: password}.
    `is_default` applies where neither the host nor a group of its names another. `version` numbers what
    `current_version_id` keeps; both are empty for a policy that nobody changed since versions exist.
    """

    __tablename__ = "policies"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str] = mapped_column(String(100))
    is_default: Mapped[bool] = mapped_column(default=False)
    sources: Mapped[list[Any]] = mapped_column(default=list)
    excludes: Mapped[list[Any]] = mapped_column(default=list)
    schedule: Mapped[str] = mapped_column(String(100), default="0 2 * * *")
    zone: Mapped[str] = mapped_column(String(60), default="UTC")  # IANA
    jitter_minutes: Mapped[int] = mapped_column(default=30)  # the fleet's starts are spread over so many
    window_minutes: Mapped[int] = mapped_column(default=0)  # a later start is left out; 0 is no such limit
    grace_minutes: Mapped[int] = mapped_column(default=360)
    retention: Mapped[dict[str, Any]] = mapped_column(default=dict)
    compression: Mapped[str] = mapped_column(String(40), default="zstd,3")
    upload_rate_limit: Mapped[int] = mapped_column(default=0)  # KiB/s; 0 is none
    catalogue: Mapped[str] = mapped_column(String(10), default="full", server_default="full")  # full | off
    drill_every_days: Mapped[int] = mapped_column(default=0, server_default="0")  # 0: only others start drills
    drill_sample: Mapped[int] = mapped_column(default=20, server_default="20")  # files of a drill
    drill_sandbox: Mapped[str] = mapped_column(String(253), default="", server_default="")  # a host; "": none
    hooks: Mapped[bytes | None] = mapped_column(LargeBinary)
    databases: Mapped[list[Any]] = mapped_column(default=list)  # without passwords
    passwords: Mapped[bytes | None] = mapped_column(LargeBinary)
    servers: Mapped[list[Any]] = mapped_column(default=list)  # names; a repository on each; empty: the only one
    overrides: Mapped[dict[str, Any]] = mapped_column(default=dict)  # merged last into borgmatic's config
    version: Mapped[int] = mapped_column(default=0)
    current_version_id: Mapped[uuid.UUID | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)


class PolicyVersion(HasId, Base):
    """A policy as it was from `created_at` on: `document`, and hooks and passwords in sealed `secrets`."""

    __tablename__ = "policy_versions"
    __table_args__ = (UniqueConstraint("policy_id", "number"),)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    policy_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("policies.id", ondelete="CASCADE"))
    number: Mapped[int]
    document: Mapped[dict[str, Any]]
    secrets: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(default=now)
    created_by: Mapped[str] = mapped_column(String(150), default="")
    note: Mapped[str] = mapped_column(String(500), default="")


class GroupPolicy(Base):
    """The policy of a group's hosts that choose none themselves; the lowest `priority` wins, then the name."""

    __tablename__ = "group_policies"
    group_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("groups.id", ondelete="CASCADE"), primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"), index=True)
    policy_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("policies.id"), index=True)
    priority: Mapped[int] = mapped_column(default=100)
