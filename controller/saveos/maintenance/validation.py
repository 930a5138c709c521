"""What storage servers are told when they are validated: who may write what, as the controller declares it."""

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from saveos.hosts.models import Host
from saveos.jobs.models import Job
from saveos.repositories.models import Repository


def variables(session: Session, job: Job, hosts: Sequence[Host]) -> dict[uuid.UUID, dict[str, Any]]:
    """Return the declared repositories of each storage server in a play of validation."""
    if job.operation != "validation":
        return {}
    servers = [host.id for host in hosts if host.is_storage_server]
    query = (
        select(Repository.server_id, Repository.id, Repository.quota, Host.agent_public_key)
        .join(Host, Host.id == Repository.host_id)
        .where(Repository.tenant_id == job.tenant_id, Repository.server_id.in_(servers))
        .where(Host.state != "decommissioned")
        .order_by(Repository.id)
    )
    found: dict[uuid.UUID, list[dict[str, Any]]] = {server: [] for server in servers}
    for server, identity, quota, key in session.execute(query):
        if server is not None:
            declared = {"id": str(identity), "quota": quota, "public_key": key, "append_only": True}
            found[server].append(declared)
    return {server: {"maintenance_declared": declared} for server, declared in found.items()}
