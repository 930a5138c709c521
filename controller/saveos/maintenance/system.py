"""How the controller itself is: database, queue, workers, sweeps, certificates, disk, its own backup."""

import json
import shutil
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from saveos import __version__
from saveos.core import tls
from saveos.core.clock import now
from saveos.core.settings import Settings
from saveos.jobs import workers
from saveos.jobs.models import ACTIVE, Job

State = Literal["ok", "warning", "critical"]
SLOW = 1000.0  # milliseconds that the database may take for nothing
WAITED = 600  # seconds that a job may wait while a worker is free
SWEPT = 180  # seconds since hosts were last judged
NEAR = timedelta(days=14)
SETTLED = timedelta(hours=2)  # a worker that runs so long has made the controller's backup


class SystemFinding(BaseModel):
    """What is not as it must be at the controller."""

    id: str
    severity: Literal["info", "warning", "critical"]
    title: str
    evidence: str = ""
    fix: str


class DatabaseState(BaseModel):
    """The database: how long it takes for nothing, and how large it is (SQLite only)."""

    kind: str
    milliseconds: float
    bytes: int | None


class QueueState(BaseModel):
    """Jobs of all tenants that wait or run."""

    queued: int
    running: int
    oldest_seconds: int = Field(description="How long the oldest one has waited")


class WorkerState(BaseModel):
    """A worker that was heard of in the last 90 seconds."""

    name: str
    version: str
    slots: int
    running: int
    seen_seconds: int
    swept_seconds: int | None = Field(description="Since it last judged hosts for alerts")
    up_seconds: int


class CertificateState(BaseModel):
    """An end of a certificate that the controller shows."""

    name: Literal["server", "ca"]
    ends_at: datetime


class DiskState(BaseModel):
    """The file system of the controller's home, in bytes."""

    free: int
    total: int


class OwnBackup(BaseModel):
    """The controller's own export, which its machine's agent backs up."""

    at: datetime | None
    every_hours: int = Field(description="0: it makes none")


class SystemHealth(BaseModel):
    """How the controller is; `status` is the worst of its findings."""

    status: State
    version: str
    at: datetime
    database: DatabaseState
    queue: QueueState
    workers: list[WorkerState]
    certificates: list[CertificateState]
    disk: DiskState
    own_backup: OwnBackup
    findings: list[SystemFinding]


def system_health(session: Session, settings: Settings) -> SystemHealth:
    """Return how the controller is now. Reads only; costs a few queries."""
    found = SystemHealth(
        status="ok",
        version=__version__,
        at=now(),
        database=_database(session),
        queue=_queue(session),
        workers=_workers(session),
        certificates=_certificates(settings),
        disk=_disk(settings.home),
        own_backup=OwnBackup(at=_exported(settings.home), every_hours=settings.export_hours),
        findings=[],
    )
    found.findings = _judge(found)
    severities = {each.severity for each in found.findings}
    found.status = "critical" if "critical" in severities else "warning" if "warning" in severities else "ok"
    return found


def _database(session: Session) -> DatabaseState:
    began = time.perf_counter()
    session.execute(text("SELECT 1"))
    elapsed = (time.perf_counter() - began) * 1000
    bind = session.get_bind()
    size = None
    if bind.dialect.name == "sqlite":
        pages = session.execute(text("PRAGMA page_count")).scalar_one()
        size = pages * session.execute(text("PRAGMA page_size")).scalar_one()
    return DatabaseState(kind=bind.dialect.name, milliseconds=round(elapsed, 1), bytes=size)


def _queue(session: Session) -> QueueState:
    query = select(Job.state, func.count()).where(Job.state.in_(ACTIVE)).group_by(Job.state)
    counts = dict(session.execute(query).all())
    created = session.scalar(select(func.min(Job.created_at)).where(Job.state == "queued"))
    return QueueState(
        queued=counts.get("queued", 0),
        running=counts.get("running", 0) + counts.get("canceling", 0),
        oldest_seconds=_since(created) if created else 0,
    )


def _workers(session: Session) -> list[WorkerState]:
    return [
        WorkerState(
            name=each.name,
            version=each.version,
            slots=each.slots,
            running=each.running,
            seen_seconds=_since(each.seen_at),
            swept_seconds=_since(each.swept_at) if each.swept_at else None,
            up_seconds=_since(each.started_at),
        )
        for each in workers.alive(session)
    ]


def _since(moment: datetime) -> int:
    return max(0, round((now() - moment).total_seconds()))


def _certificates(settings: Settings) -> list[CertificateState]:
    identity = tls.current(settings.home) if settings.serves_tls else None
    if identity is None:
        return []
    return [
        CertificateState(name="server", ends_at=identity.not_after),
        CertificateState(name="ca", ends_at=identity.ca_not_after),
    ]


def _disk(home: Path) -> DiskState:
    usage = shutil.disk_usage(home)
    return DiskState(free=usage.free, total=usage.total)


def _exported(home: Path) -> datetime | None:
    """Return when the controller's own export was made (upkeep writes it to the home's `export`)."""
    try:
        told: Any = json.loads((home / "export" / "manifest.json").read_text(encoding="utf-8"))
        return datetime.fromisoformat(told["at"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _judge(found: SystemHealth) -> list[SystemFinding]:
    return [each for judge in (_judge_work, _judge_store, _judge_ends) for each in judge(found)]


def _judge_work(found: SystemHealth) -> list[SystemFinding]:
    told = []
    if not found.workers:
        told.append(
            SystemFinding(
                id="worker-none",
                severity="critical",
                title="No worker is alive: no job runs, no alert is raised, no schedule fires.",
                fix="Start `saveos serve`, or `saveos worker` beside `saveos serve --no-worker`.",
            )
        )
        return told
    free = sum(each.slots - each.running for each in found.workers)
    if found.queue.oldest_seconds > WAITED and free > 0:
        told.append(
            SystemFinding(
                id="queue-waits",
                severity="warning",
                title="A job has waited for more than ten minutes although a worker is free.",
                evidence=f"{found.queue.oldest_seconds} s; {found.queue.queued} wait",
                fix="saveos jobs list --state queued says what each waits for.",
            )
        )
    settled = [each for each in found.workers if each.up_seconds > SWEPT]
    swept = [each.swept_seconds for each in found.workers if each.swept_seconds is not None]
    if settled and (not swept or min(swept) > SWEPT):
        told.append(
            SystemFinding(
                id="sweep-late",
                severity="critical",
                title="Hosts have not been judged for minutes: no alert would be raised.",
                evidence=f"last sweep {min(swept)} s ago" if swept else "no sweep since the worker started",
                fix="See the controller's log (the alerts' loop), and start it again.",
            )
        )
    return told


def _judge_store(found: SystemHealth) -> list[SystemFinding]:
    told = []
    if found.database.milliseconds > SLOW:
        told.append(
            SystemFinding(
                id="database-slow",
                severity="warning",
                title="The database took more than a second to answer.",
                evidence=f"{found.database.milliseconds} ms",
                fix="See what loads its machine or its disk.",
            )
        )
    share = found.disk.free / found.disk.total if found.disk.total else 1.0
    if share < 0.1:
        told.append(
            SystemFinding(
                id="disk-full",
                severity="critical" if share < 0.03 else "warning",
                title="The disk of the controller's home is nearly full.",
                evidence=f"{found.disk.free} of {found.disk.total} bytes free",
                fix="saveos controller clean, or a larger disk.",
            )
        )
    every = found.own_backup.every_hours
    settled = any(each.up_seconds > SETTLED.total_seconds() for each in found.workers)
    made = found.own_backup.at
    if every and ((made and now() - made > 2 * timedelta(hours=every)) or (made is None and settled)):
        told.append(
            SystemFinding(
                id="own-backup-late",
                severity="warning",
                title="The controller's own backup is missing or old.",
                evidence=f"made {made.isoformat()}" if made else "never made",
                fix="See the controller's log, or run: saveos controller export.",
            )
        )
    return told


def _judge_ends(found: SystemHealth) -> list[SystemFinding]:
    told = []
    for each in found.certificates:
        left = each.ends_at - now()
        if left < NEAR:
            told.append(
                SystemFinding(
                    id="certificate-ends",
                    severity="critical" if left < timedelta(days=3) else "warning",
                    title=f"The controller's {'certificate' if each.name == 'server' else 'CA'} ends soon.",
                    evidence=f"{each.ends_at.isoformat()}",
                    fix="It is renewed by itself while the controller runs; see its log.",
                )
            )
    return told
