"""Tables of alerts, channels and deliveries."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from saveos.core.clock import now
from saveos.core.database import Base, HasId

UNRESOLVED = text("state != 'resolved'")


class Alert(HasId, Base):
    """One cause that needs a person: a rule that holds for an object ("host:ID", "channel:ID").

    `subject_id` is the object's id where the sweep judges it; `host_id` the host it belongs to.

    `state` is open, acknowledged, muted or resolved; there is one unresolved alert per cause. A
    cause that comes back makes a new row. `since` is when the cause began, `evidence_at` when it
    was last proven anew (the last failed run), `count` how often that was.
    """

    __tablename__ = "alerts"
    __table_args__ = (
        Index(
            "uq_alerts_cause",
            "tenant_id",
            "rule",
            "object",
            unique=True,
            sqlite_where=UNRESOLVED,
            postgresql_where=UNRESOLVED,
        ),
        Index("ix_alerts_tenant_id_id", "tenant_id", "id"),
        Index("ix_alerts_host_id_rule", "host_id", "rule"),
        Index("ix_alerts_subject_id_rule", "subject_id", "rule"),
    )
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    rule: Mapped[str] = mapped_column(String(40))
    object: Mapped[str] = mapped_column(String(100))
    subject_id: Mapped[uuid.UUID | None]
    host_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("hosts.id"))
    severity: Mapped[str] = mapped_column(String(10))
    state: Mapped[str] = mapped_column(String(15), default="open")
    summary: Mapped[str] = mapped_column(String(500))
    count: Mapped[int] = mapped_column(default=1)
    since: Mapped[datetime]
    evidence_at: Mapped[datetime | None]
    first_seen: Mapped[datetime] = mapped_column(default=now)
    last_seen: Mapped[datetime] = mapped_column(default=now)
    muted_until: Mapped[datetime | None]
    acknowledged_at: Mapped[datetime | None]
    acknowledged_by: Mapped[str] = mapped_column(String(150), default="")
    resolved_at: Mapped[datetime | None]


class Channel(HasId, Base):
    """Where alerts are told. `url` is Apprise's, sealed: it holds tokens. Empty route lists mean all."""

    __tablename__ = "channels"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str] = mapped_column(String(100))
    url: Mapped[bytes] = mapped_column(LargeBinary)
    kind: Mapped[str] = mapped_column(String(20))  # the URL's scheme
    address: Mapped[str] = mapped_column(String(300))  # what may be shown of the URL
    enabled: Mapped[bool] = mapped_column(default=True)
    rules: Mapped[list[Any]] = mapped_column(default=list)
    severities: Mapped[list[Any]] = mapped_column(default=list)
    groups: Mapped[list[Any]] = mapped_column(default=list)
    tell_resolved: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    last_state: Mapped[str] = mapped_column(String(10), default="")  # delivered | retrying | failed
    last_at: Mapped[datetime | None]
    last_error: Mapped[str] = mapped_column(String(500), default="")


class Delivery(HasId, Base):
    """One message to one channel: pending, then delivered or failed. Ids give the order of sending."""

    __tablename__ = "deliveries"
    __table_args__ = (
        Index("ix_deliveries_state_next_at", "state", "next_at"),
        Index("ix_deliveries_channel_id_id", "channel_id", "id"),
    )
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    channel_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("channels.id", ondelete="CASCADE"))
    alert_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("alerts.id", ondelete="SET NULL"))
    kind: Mapped[str] = mapped_column(String(10))  # opened | reopened | resolved | digest | reminder | test
    severity: Mapped[str] = mapped_column(String(10))
    title: Mapped[str] = mapped_column(String(300))
    body: Mapped[str] = mapped_column(Text)
    fields: Mapped[dict[str, Any]] = mapped_column(
        default=dict
    )  # for webhooks, beside title and text; `link` is a path
    state: Mapped[str] = mapped_column(String(10), default="pending")
    attempts: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[datetime] = mapped_column(default=now)
    error: Mapped[str] = mapped_column(String(500), default="")
    created_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]
