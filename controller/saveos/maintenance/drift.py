"""Drift: how hosts differ from what provisioning would make of them, as playbooks/drift.yml finds it."""

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from saveos.core.clock import now
from saveos.core.database import touch
from saveos.hosts.models import Host
from saveos.jobs.models import Job, JobHost
from saveos.maintenance import findings
from saveos.maintenance.models import HostDrift
from saveos.maintenance.results import converged, host_of, parsed

State = Literal["unknown", "clean", "drifted"]


class ToldDrift(BaseModel):
    """What a look at a host tells beside findings."""

    diff: Annotated[str, Field(max_length=70_000)] = ""


class DriftOut(BaseModel):
    """Whether a host is as provisioning would make it; `diff` is unified text, without secrets."""

    host: str
    host_id: uuid.UUID
    state: State
    since: datetime | None = Field(description="When the difference was first seen")
    checked_at: datetime | None
    job_id: uuid.UUID | None
    changes: int
    diff: str


def told(session: Session, job: Job, row: JobHost) -> None:
    """Take over what a look found; telling twice changes nothing."""
    findings.record(session, job, row)
    host, result = host_of(session, row), row.result.get("drift")
    if host is None or not isinstance(result, dict) or host.state == "decommissioned":
        return
    diff = parsed(ToldDrift, result).diff.replace("\0", "?")
    changes = len(result.get("findings") or [])
    host.drift_checked_at = now()
    if not changes:
        converged(session, host)
        touch(session, host.tenant_id, "hosts")
        return
    host.drifted_since = host.drifted_since or now()
    known = session.get(HostDrift, host.id)
    if known is None:
        known = HostDrift(host_id=host.id, tenant_id=host.tenant_id)
        session.add(known)
    known.job_id, known.at, known.changes, known.diff = job.id, now(), changes, diff
    session.flush()
    touch(session, host.tenant_id, "hosts")


def state_of(host: Host) -> State:
    """Return whether a host is as it should be, as far as was looked."""
    if host.drifted_since is not None:
        return "drifted"
    return "clean" if host.drift_checked_at is not None else "unknown"


def describe(session: Session, host: Host) -> DriftOut:
    """Return how a host differs."""
    return _out(host, session.get(HostDrift, host.id))


def list_drift(
    session: Session, tenant_id: uuid.UUID, *, after: str | None, limit: int, ids: Sequence[uuid.UUID] = ()
) -> list[DriftOut]:
    """Return up to `limit` hosts that differ, by name; of some hosts only, where `ids` names any."""
    query = select(Host, HostDrift).join(HostDrift, HostDrift.host_id == Host.id)
    query = query.where(Host.tenant_id == tenant_id, Host.drifted_since.is_not(None))
    query = query.where(Host.state != "decommissioned")
    if after is not None:
        query = query.where(Host.name > after)
    if ids:
        query = query.where(Host.id.in_(ids))
    return [_out(host, found) for host, found in session.execute(query.order_by(Host.name).limit(limit))]


def _out(host: Host, found: HostDrift | None) -> DriftOut:
    return DriftOut(
        host=host.name,
        host_id=host.id,
        state=state_of(host),
        since=host.drifted_since,
        checked_at=host.drift_checked_at,
        job_id=found.job_id if found else None,
        changes=found.changes if found else 0,
        diff=found.diff if found else "",
    )
