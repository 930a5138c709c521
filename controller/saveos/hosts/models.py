"""Tables of hosts and groups."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from saveos.core.clock import now
from saveos.core.database import Base, HasId


class Host(HasId, Base):
    """A managed machine. It can be an agent, a storage server, or both.

    `state` is pending, enrolled, paused or decommissioned. Its protection is computed and kept
    here when a run is recorded (`last_*`) so that lists need no join; `due_at` is when the next
    archive is expected at the latest.
    """

    __tablename__ = "hosts"
    __table_args__ = (
        UniqueConstraint("tenant_id", "name"),
        Index("ix_hosts_tenant_id_last_backup_at", "tenant_id", "last_backup_at"),
        Index("ix_hosts_tenant_id_due_at", "tenant_id", "due_at"),
        # Counts over a whole fleet read these alone, not the wide rows.
        Index(
            "ix_hosts_protection",
            *("tenant_id", "state", "is_agent", "last_run_state", "last_backup_at", "due_at", "seen_at"),
            "heartbeat_at",
        ),
        Index("ix_hosts_drift", "tenant_id", "state", "is_agent", "policy_id", "applied_version_id"),
    )
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str] = mapped_column(String(253))
    address: Mapped[str] = mapped_column(String(253))
    port: Mapped[int] = mapped_column(default=22)
    user: Mapped[str] = mapped_column(String(64), default="root")
    connection: Mapped[str] = mapped_column(String(10), default="ssh")  # ssh | local
    ssh_host_keys: Mapped[list[Any]] = mapped_column(default=list)  # "type base64", pinned
    is_agent: Mapped[bool] = mapped_column(default=True)
    is_storage_server: Mapped[bool] = mapped_column(default=False)
    tags: Mapped[list[Any]] = mapped_column(default=list)
    # policies/precedence.py keeps policy_id the one that holds: the host's own, a group's, the default
    policy_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("policies.id"))
    own_policy_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("policies.id"))
    policy_source: Mapped[str] = mapped_column(String(80), default="default")  # host | group:NAME | default
    applied_version_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("policy_versions.id"))
    state: Mapped[str] = mapped_column(String(20), default="pending")
    variables: Mapped[dict[str, Any]] = mapped_column(default=dict)  # extra role variables, agent_* or server_*
    agent_public_key: Mapped[str] = mapped_column(String(1000), default="")
    # The controller's newest SSH key, "type base64", that the host was proven to let in alone
    controller_key: Mapped[str] = mapped_column(String(1000), default="", server_default="")
    os: Mapped[str] = mapped_column(String(60), default="")
    versions: Mapped[dict[str, Any]] = mapped_column(default=dict)
    facts: Mapped[dict[str, Any]] = mapped_column(default=dict)  # what provisioning and health reported
    created_at: Mapped[datetime] = mapped_column(default=now)
    seen_at: Mapped[datetime | None]
    last_run_state: Mapped[str] = mapped_column(String(20), default="")  # of a run, or incomplete
    last_run_at: Mapped[datetime | None]
    last_backup_at: Mapped[datetime | None]
    last_size: Mapped[int | None] = mapped_column(BigInteger)  # bytes, original size of the last archive
    due_at: Mapped[datetime | None]
    heartbeat: Mapped[dict[str, Any]] = mapped_column(default=dict)  # the last one, as checkins keeps it
    heartbeat_at: Mapped[datetime | None]  # when it came, by the controller's clock
    clock_skew: Mapped[float | None]  # seconds that the host's clock is ahead, at the last heartbeat
    disk_free_share: Mapped[float | None]  # 0 to 1, the smallest over the host's disks, space or inodes
    last_proven_at: Mapped[datetime | None]  # when a drill last brought its newest archives back
    last_drill_at: Mapped[datetime | None]
    last_drill_state: Mapped[str] = mapped_column(String(20), default="")  # proven | partial | failed
    drill_error: Mapped[str] = mapped_column(String(500), default="")  # what failed, by name
    drill_due_at: Mapped[datetime | None] = mapped_column(index=True)  # by its policy; null: no frequency there
    proof_ends_at: Mapped[datetime | None]  # until when the last proof counts by its policy; null: two weeks
    storage_free_share: Mapped[float | None]  # 0 to 1, of a storage server's file system
    drifted_since: Mapped[datetime | None]  # since a look found it other than provisioning would make it
    drift_checked_at: Mapped[datetime | None]  # when it was looked at last; never is unknown
    # By name, because policies stand higher on the ladder; for reading, and only where a query asks for it.
    policy: Mapped[Any] = relationship("Policy", foreign_keys=[policy_id], viewonly=True, lazy="raise")


class Group(HasId, Base):
    """A named set of hosts."""

    __tablename__ = "groups"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str] = mapped_column(String(100))
    created_at: Mapped[datetime] = mapped_column(default=now)


class GroupMember(Base):
    """A host in a group."""

    __tablename__ = "group_members"
    group_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("groups.id", ondelete="CASCADE"), primary_key=True)
    host_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("hosts.id", ondelete="CASCADE"), primary_key=True, index=True
    )
