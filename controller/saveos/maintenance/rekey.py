"""Rotation of the SSH key by which the controller reaches hosts.

From the beginning the new key is the controller's, and the former is kept and tried second. A host has moved
when it was logged in to with the new key alone, over which connection its line of the former one went. The
former key is forgotten when every host in care has moved; so a rotation that was killed, or did not reach a
host, goes on where it was when it is asked for again.
"""

import uuid
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from saveos.accounts.keys import begin_ssh_rotation, end_ssh_rotation, ssh_key_made_at
from saveos.accounts.models import Tenant
from saveos.core.clock import now
from saveos.core.database import touch
from saveos.hosts.models import Host
from saveos.jobs.models import Job, JobHost
from saveos.maintenance import findings
from saveos.maintenance.results import host_of, parsed

NAME = "rekey"


class Proven(BaseModel):
    """The key with which alone a host was logged in to."""

    proven: Annotated[str, Field(max_length=1000)] = ""


def begin(session: Session, tenant_id: uuid.UUID, parameters: dict[str, Any]) -> None:
    """Make a new key, unless a rotation goes on or the present key is younger than is asked for."""
    if _is_due(session, tenant_id, parameters):
        begin_ssh_rotation(session, tenant_id)


def _is_due(session: Session, tenant_id: uuid.UUID, parameters: dict[str, Any]) -> bool:
    return ssh_key_made_at(session, tenant_id) <= now() - timedelta(days=parameters["older_than_days"])


def variables(session: Session, job: Job) -> dict[str, Any]:
    """Return what a play of a rotation is told: the public halves of the keys.

    In a check of a rotation that would begin, the present key is the old one, too: there is no new one yet.
    """
    if job.operation != NAME:
        return {}
    tenant = session.get_one(Tenant, job.tenant_id)
    new, old = bare(tenant.ssh_public_key), bare(tenant.former_ssh_public_key)
    if job.mode == "check" and not old and _is_due(session, job.tenant_id, job.parameters):
        old = new
    return {"maintenance_new_key": new, "maintenance_old_key": old}


def moved(session: Session, job: Job, row: JobHost) -> None:
    """Note that a host lets the new key in; with the last host the former key is forgotten."""
    findings.record(session, job, row)
    host = host_of(session, row)
    if host is None or job.mode == "check":
        return
    proven = parsed(Proven, {"proven": row.result.get("proven", "")}).proven
    # What a host says counts only when it is the key that is in force: an earlier job may end late
    if proven and proven == bare(session.get_one(Tenant, host.tenant_id).ssh_public_key):
        host.controller_key = proven
        session.flush()
        settle(session, host.tenant_id)
        touch(session, host.tenant_id, "hosts")


def settle(session: Session, tenant_id: uuid.UUID) -> None:
    """Forget the former key when no host in care needs it any more."""
    if session.get_one(Tenant, tenant_id).former_ssh_public_key and not waiting(session, tenant_id)[0]:
        end_ssh_rotation(session, tenant_id)


def waiting(session: Session, tenant_id: uuid.UUID, limit: int = 20) -> tuple[int, list[str]]:
    """Return how many hosts in care were not yet proven to let the present key in alone, and some names."""
    present = bare(session.get_one(Tenant, tenant_id).ssh_public_key)
    query = select(Host.name).where(Host.tenant_id == tenant_id, Host.state != "decommissioned")
    query = query.where(Host.connection == "ssh", Host.controller_key != present)
    count = session.scalar(select(func.count()).select_from(query.subquery())) or 0
    return count, list(session.scalars(query.order_by(Host.name).limit(limit)))


def bare(line: str) -> str:
    """Return type and base64 of a public key, without its comment."""
    return " ".join(line.split()[:2])
