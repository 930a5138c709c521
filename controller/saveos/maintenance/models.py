"""Tables of what maintenance operations found on hosts."""

import json
import uuid
import zlib
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from saveos.core.clock import now
from saveos.core.database import Base, HasId

SEVERITIES = ("critical", "warning", "info")  # a rank is a place in it


class MaintenanceResult(HasId, Base):
    """What one run of an operation came to on a host; the last 100 per host and operation are kept.

    `state` is ok, warning or critical; the counts are of findings that the run left open. `findings`
    is zlib of a JSON list: most of them are read once, when somebody opens the result.
    """

    __tablename__ = "maintenance_results"
    __table_args__ = (
        UniqueConstraint("job_id", "host_id"),
        Index("ix_maintenance_results_tenant_id_id", "tenant_id", "id"),
        Index("ix_maintenance_results_tenant_id_operation_id", "tenant_id", "operation", "id"),
        Index("ix_maintenance_results_host_id_operation_id", "host_id", "operation", "id"),
    )
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    host_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("hosts.id", ondelete="CASCADE"))
    job_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"))
    operation: Mapped[str] = mapped_column(String(40))
    mode: Mapped[str] = mapped_column(String(10), default="run")  # run | check
    at: Mapped[datetime] = mapped_column(default=now)
    state: Mapped[str] = mapped_column(String(10))
    critical: Mapped[int] = mapped_column(default=0)
    warning: Mapped[int] = mapped_column(default=0)
    info: Mapped[int] = mapped_column(default=0)
    fixed: Mapped[int] = mapped_column(default=0)
    summary: Mapped[dict[str, Any]] = mapped_column(default=dict)
    data: Mapped[bytes] = mapped_column(LargeBinary)

    @property
    def findings(self) -> list[dict[str, Any]]:
        """What was found, as told."""
        found: list[dict[str, Any]] = json.loads(zlib.decompress(self.data))
        return found

    def keep(self, found: list[dict[str, Any]]) -> None:
        """Store what was found."""
        self.data = zlib.compress(json.dumps(found, separators=(",", ":"), sort_keys=True).encode())


class MaintenanceLatest(HasId, Base):
    """What stands now of an operation on a host: its last result and how many findings are open.

    `critical_since` is since when a critical one is open; `worst` the title of the worst open one.
    """

    __tablename__ = "maintenance_latest"
    __table_args__ = (
        UniqueConstraint("host_id", "operation"),
        Index("ix_maintenance_latest_tenant_id_operation", "tenant_id", "operation", "state"),
    )
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    host_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("hosts.id", ondelete="CASCADE"))
    operation: Mapped[str] = mapped_column(String(40))
    result_id: Mapped[uuid.UUID]
    at: Mapped[datetime]
    mode: Mapped[str] = mapped_column(String(10))
    state: Mapped[str] = mapped_column(String(10))
    critical: Mapped[int] = mapped_column(default=0)
    warning: Mapped[int] = mapped_column(default=0)
    info: Mapped[int] = mapped_column(default=0)
    critical_since: Mapped[datetime | None]
    worst: Mapped[str] = mapped_column(String(500), default="")
    summary: Mapped[dict[str, Any]] = mapped_column(default=dict)


class Finding(HasId, Base):
    """One thing that an operation found on a host; (operation, kind, subject) is what it is.

    `kind` is the finding's id as told. `first_seen` is since when it is open; one that comes back
    after it was resolved begins anew.
    """

    __tablename__ = "findings"
    __table_args__ = (
        UniqueConstraint("host_id", "operation", "key"),
        Index("ix_findings_tenant_id_rank_id", "tenant_id", "rank", "id"),
        Index("ix_findings_tenant_id_operation_rank_id", "tenant_id", "operation", "rank", "id"),
    )
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    host_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("hosts.id", ondelete="CASCADE"))
    operation: Mapped[str] = mapped_column(String(40))
    key: Mapped[str] = mapped_column(String(64))  # SHA-256 of kind and subject
    kind: Mapped[str] = mapped_column(String(80))
    subject: Mapped[str] = mapped_column(Text)
    rank: Mapped[int]  # of SEVERITIES: the worst come first
    title: Mapped[str] = mapped_column(String(500))
    evidence: Mapped[str] = mapped_column(Text)
    fix: Mapped[str] = mapped_column(Text)
    fixable: Mapped[bool] = mapped_column(default=False)
    result_id: Mapped[uuid.UUID]  # the last result that told of it
    first_seen: Mapped[datetime] = mapped_column(default=now)
    last_seen: Mapped[datetime] = mapped_column(default=now)
    resolved_at: Mapped[datetime | None]

    @property
    def severity(self) -> str:
        """How grave it is."""
        return SEVERITIES[self.rank]

    @property
    def reference(self) -> str:
        """What names it in an operation's `fix_parameter`."""
        return f"{self.kind}:{self.subject}" if self.subject else self.kind


class HostDrift(Base):
    """How a host differs from what provisioning would make of it: what the last look found, where it did.

    `diff` is unified text of 64 KiB at most; the roles hide values that may be secret. Since when, and when
    it was looked at, is in the host's own row.
    """

    __tablename__ = "host_drifts"
    host_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("hosts.id", ondelete="CASCADE"), primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    job_id: Mapped[uuid.UUID | None]
    at: Mapped[datetime] = mapped_column(default=now)
    changes: Mapped[int] = mapped_column(default=0)
    diff: Mapped[str] = mapped_column(Text, default="")


class Rebuild(HasId, Base):
    """A full drill: a host's newest archive brought to a sandbox that was provisioned for it, and timed.

    Its steps are jobs, one after another; `step` and `job_id` say which one goes on. What the steps took
    and what the checks found stays here when their jobs are forgotten.
    """

    __tablename__ = "rebuilds"
    __table_args__ = (
        Index("ix_rebuilds_tenant_id_id", "tenant_id", "id"),
        Index("ix_rebuilds_host_id_id", "host_id", "id"),
        Index("ix_rebuilds_state", "state"),
    )
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    host_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("hosts.id"))
    sandbox_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("hosts.id"))
    archive_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("archives.id"))
    destination: Mapped[str] = mapped_column(String(4096), default="")  # empty: below the agent's directory
    state: Mapped[str] = mapped_column(String(10), default="running")  # running | proven | failed
    step: Mapped[str] = mapped_column(String(20), default="")  # the operation that goes on; empty: none
    job_id: Mapped[uuid.UUID | None]
    restore_id: Mapped[uuid.UUID | None]
    steps: Mapped[list[Any]] = mapped_column(default=list)  # those that ended: see rebuilds.Step
    checks: Mapped[list[Any]] = mapped_column(default=list)  # see rebuilds.Check
    error: Mapped[str] = mapped_column(String(2000), default="")  # what failed, by name
    trigger: Mapped[str] = mapped_column(String(20), default="api")
    requested_by: Mapped[str] = mapped_column(String(150), default="")
    created_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]
