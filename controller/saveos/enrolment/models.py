"""Tables of enrolment: tokens that let hosts ask, and the hosts that asked."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from saveos.core.clock import now
from saveos.core.database import Base, HasId


class EnrolmentToken(HasId, Base):
    """Lets so many hosts ask to join, until a time. Its secret is stored hashed.

    Policy and groups are kept by name: they are judged again when a host is approved.
    """

    __tablename__ = "enrolment_tokens"
    __table_args__ = (Index("ix_enrolment_tokens_tenant_id_id", "tenant_id", "id"),)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str] = mapped_column(String(100))
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    expires_at: Mapped[datetime]
    max_uses: Mapped[int]
    uses: Mapped[int] = mapped_column(default=0)
    groups: Mapped[list[Any]] = mapped_column(default=list)
    policy: Mapped[str] = mapped_column(String(100), default="")
    tags: Mapped[list[Any]] = mapped_column(default=list)
    pre_approved: Mapped[bool] = mapped_column(default=False)
    created_by: Mapped[str] = mapped_column(String(150), default="")
    created_at: Mapped[datetime] = mapped_column(default=now)
    revoked_at: Mapped[datetime | None]


class Registration(HasId, Base):
    """A host that asked to join: waiting, approved, provisioning, done, refused or failed.

    It is known by the hash of the token that it made for itself. Approved, it is provisioned once it
    says that it lets the controller in (`ready_at`).
    """

    __tablename__ = "registrations"
    __table_args__ = (
        UniqueConstraint("agent_token_sha256"),
        Index("ix_registrations_tenant_id_id", "tenant_id", "id"),
        Index("ix_registrations_state", "state"),
    )
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    token_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("enrolment_tokens.id"))
    host_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("hosts.id", ondelete="SET NULL"))
    name: Mapped[str] = mapped_column(String(253))
    address: Mapped[str] = mapped_column(String(253))
    port: Mapped[int] = mapped_column(default=22)
    user: Mapped[str] = mapped_column(String(64), default="root")
    ssh_host_keys: Mapped[list[Any]] = mapped_column(default=list)  # "type base64"
    agent_public_key: Mapped[str] = mapped_column(String(1000), default="")  # Borg's SSH key
    agent_token_sha256: Mapped[str] = mapped_column(String(64))
    os: Mapped[str] = mapped_column(String(60), default="")
    versions: Mapped[dict[str, Any]] = mapped_column(default=dict)
    peer: Mapped[str] = mapped_column(String(64), default="")  # address that the request came from
    state: Mapped[str] = mapped_column(String(15), default="waiting")
    reason: Mapped[str] = mapped_column(String(2000), default="")  # of a refusal or failure, a sentence
    job_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"))
    created_at: Mapped[datetime] = mapped_column(default=now)
    decided_at: Mapped[datetime | None]
    decided_by: Mapped[str] = mapped_column(String(150), default="")
    ready_at: Mapped[datetime | None]  # when the host said that it lets the controller in
