"""Tables of Borg repositories, of what guards say about them, and of how they grow."""

import uuid
from datetime import date, datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from saveos.core.clock import now
from saveos.core.database import Base, HasId


class Repository(HasId, Base):
    """Borg's store of one host's archives; its directory's name is its id.

    Of kind `ssh` (on `server_id`, a storage server) or `local` (a directory on the host itself).
    `claimed_*` is what its host says about it, `size` to `fault` what its server saw for itself.
    """

    __tablename__ = "repositories"
    __table_args__ = (Index("ix_repositories_tenant_id_id", "tenant_id", "id"),)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    host_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("hosts.id"), index=True)
    server_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("hosts.id"), index=True)
    kind: Mapped[str] = mapped_column(String(10), default="ssh")
    path: Mapped[str] = mapped_column(String(4096), default="")  # kind local; else below the server's root
    quota: Mapped[str] = mapped_column(String(20), default="")  # Borg's form, "100G"; empty is none
    initialised_at: Mapped[datetime | None]
    key_exported_at: Mapped[datetime | None]
    size: Mapped[int | None] = mapped_column(BigInteger)  # bytes on the server's disk
    created_at: Mapped[datetime] = mapped_column(default=now)
    quota_bytes: Mapped[int | None] = mapped_column(BigInteger)
    claimed_at: Mapped[datetime | None]  # start of the newest archive the host told of, less its clock's error
    claimed_told_at: Mapped[datetime | None]  # when it told, by the controller's clock
    last_commit_at: Mapped[datetime | None]
    checked_at: Mapped[datetime | None]  # when the server looked
    missing_since: Mapped[datetime | None]  # since then the server lacks what the host claims
    fault: Mapped[str] = mapped_column(
        String(200), default=""
    )  # what is wrong with its directory; empty is nothing


class Guard(Base):
    """The guard of a storage server, as it last reported; `reported_at` is by the controller's clock.

    `refused` says what the controller asked and the guard would not do; empty is nothing.
    """

    __tablename__ = "guards"
    server_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("hosts.id", ondelete="CASCADE"), primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"), index=True)
    reported_at: Mapped[datetime]
    at: Mapped[str] = mapped_column(String(40), default="")  # a hash of that report, to take it once
    version: Mapped[str] = mapped_column(String(60), default="")
    hold_days: Mapped[int]
    interval_seconds: Mapped[int] = mapped_column(default=3600)
    clock_synced: Mapped[bool | None]
    free: Mapped[int | None] = mapped_column(BigInteger)
    total: Mapped[int | None] = mapped_column(BigInteger)
    refused: Mapped[str] = mapped_column(String(300), default="")


class GuardState(Base):
    """What a server's guard says of one repository, and when it was last checked, by whom and how it went.

    `state` is ok, held, approved, compacted, damaged or missing; `digest` names exactly what compact
    would destroy. Checks are keyless (by the guard), of archives or of data (by the host).
    """

    __tablename__ = "guard_states"
    __table_args__ = (Index("ix_guard_states_tenant_id_state", "tenant_id", "state", "repository_id"),)
    repository_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("repositories.id", ondelete="CASCADE"), primary_key=True
    )
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    reported_at: Mapped[datetime | None]  # null while only checks were told
    state: Mapped[str] = mapped_column(String(12), default="")
    held_since: Mapped[datetime | None]
    reasons: Mapped[list[Any]] = mapped_column(default=list)
    detail: Mapped[str] = mapped_column(String(500), default="")  # the reasons in one sentence
    digest: Mapped[str] = mapped_column(String(64), default="")
    archives_expected: Mapped[int | None]
    bytes: Mapped[int | None] = mapped_column(BigInteger)
    freeable_bytes: Mapped[int | None] = mapped_column(BigInteger)
    freeable_share: Mapped[float | None]
    held_bytes: Mapped[int | None] = mapped_column(BigInteger)  # what the copies keep beside the repository
    copies: Mapped[list[Any]] = mapped_column(default=list)
    last_compact_at: Mapped[datetime | None]
    guard_seconds: Mapped[float | None]
    keyless_at: Mapped[datetime | None]
    keyless_told_at: Mapped[datetime | None]  # by the guard's clock, which may be ahead
    keyless_state: Mapped[str] = mapped_column(String(10), default="")  # ok | damaged | failed
    archives_at: Mapped[datetime | None]
    archives_state: Mapped[str] = mapped_column(String(10), default="")
    data_at: Mapped[datetime | None]
    data_state: Mapped[str] = mapped_column(String(10), default="")
    check_detail: Mapped[str] = mapped_column(String(500), default="")  # of the check that failed


class Approval(HasId, Base):
    """A person's word that a guard may compact a repository in spite of one reason.

    It holds for the digest that was shown, until `until`, or until it is revoked; the guard still
    keeps its copies.
    """

    __tablename__ = "guard_approvals"
    __table_args__ = (Index("ix_guard_approvals_repository_id_id", "repository_id", "id"),)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    repository_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("repositories.id", ondelete="CASCADE"))
    reason: Mapped[str] = mapped_column(String(40))
    digest: Mapped[str] = mapped_column(String(64))
    note: Mapped[str] = mapped_column(String(500), default="")
    created_at: Mapped[datetime] = mapped_column(default=now)
    created_by: Mapped[str] = mapped_column(String(150))
    until: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    revoked_by: Mapped[str] = mapped_column(String(150), default="")


class Check(HasId, Base):
    """One check of a repository: keyless, archives or data; `archives` are those it names."""

    __tablename__ = "repository_checks"
    __table_args__ = (Index("ix_repository_checks_repository_id_id", "repository_id", "id"),)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    repository_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("repositories.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(10))
    state: Mapped[str] = mapped_column(String(10))
    at: Mapped[datetime]
    seconds: Mapped[float | None]
    detail: Mapped[str] = mapped_column(String(2000), default="")
    archives: Mapped[list[Any]] = mapped_column(default=list)


class FormerId(Base):
    """An id that an archive had until a person had it renamed or protected: its guard sees that id end."""

    __tablename__ = "former_archive_ids"
    repository_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("repositories.id", ondelete="CASCADE"), primary_key=True
    )
    borg_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str] = mapped_column(String(400))
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime] = mapped_column(default=now)


class Sample(Base):
    """How large a repository was on a day, or how full a storage server; sizes in bytes."""

    __tablename__ = "storage_samples"
    __table_args__ = (Index("ix_storage_samples_tenant_id_day", "tenant_id", "day"),)
    subject_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # a repository's or server's
    day: Mapped[date] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    used: Mapped[int] = mapped_column(BigInteger)
    held: Mapped[int] = mapped_column(BigInteger, default=0)
    free: Mapped[int | None] = mapped_column(BigInteger)  # of a server's file system
