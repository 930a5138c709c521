"""Hosts as a play of an operation sees them: connection, role variables from policy and repository, secrets."""

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from saveos.accounts.keys import former_ssh_private_key, ssh_private_key
from saveos.core import tls
from saveos.core.settings import Settings
from saveos.hosts.models import Host
from saveos.jobs.models import Job, JobHost
from saveos.jobs.queue import Claim
from saveos.maintenance import guard, rekey, validation
from saveos.maintenance.operations import Operation
from saveos.policies.fleet import role_variables, secret_variables
from saveos.runner.directory import Spec, Target
from saveos.secrets.service import current_key

STOP_TIMEOUT = 45.0  # seconds


def play(
    session: Session, settings: Settings, operation: Operation, mine: Claim, *, stop: bool = False
) -> Spec | None:
    """Return the play of an attempt, or with `stop` the one that ends what it began where it is not done.

    None when no host is left for it.
    """
    job = session.get_one(Job, mine.job_id)
    # Skipped before the attempt began: paused or taken out since the job was queued
    wanted = JobHost.job_id == job.id, JobHost.state != "skipped"
    rows = session.scalars(select(JobHost).where(*wanted).order_by(JobHost.name)).all()
    if stop:
        # A host that never began has nothing to end, but only the attempt that ran knows; asking is cheap.
        rows = [row for row in rows if row.is_target and row.state in ("queued", "running")]
    targets = _targets(session, settings, operation, job, rows)
    if not any(target for target in targets):
        return None
    return Spec(
        job_id=job.id,
        attempt=mine.attempt,
        playbook=settings.fleet_dir / "playbooks" / (operation.stop_playbook if stop else operation.playbook),
        targets=targets,
        fleet=Path(settings.fleet_dir),
        phase="stop" if stop else "main",
        check=job.mode == "check",
        timeout=STOP_TIMEOUT if stop else job.timeout,
        lease=settings.lease_seconds * 2 / 3,  # over before the row is, with time to end the tree
        grace=min(3.0, settings.lease_seconds / 6),
        forks=settings.forks,
        first_event=job.events,
        verbosity=settings.verbosity,
        ssh_key=ssh_private_key(session, job.tenant_id).decode(),
        former_ssh_key=former_ssh_private_key(session, job.tenant_id).decode(),
    )


def run_id(job_id: uuid.UUID, host_id: uuid.UUID) -> uuid.UUID:
    """Return the id of a job's run on a host; the same for every attempt, so that none runs twice."""
    return uuid.uuid5(job_id, str(host_id))


def _targets(
    session: Session, settings: Settings, operation: Operation, job: Job, rows: Sequence[JobHost]
) -> tuple[Target, ...]:
    ids = [row.host_id for row in rows if row.host_id]
    hosts = {
        host.id: host
        for host in session.scalars(select(Host).where(Host.id.in_(ids), Host.tenant_id == job.tenant_id))
    }
    chosen = [(row, hosts[row.host_id]) for row in rows if row.host_id in hosts]
    variables = role_variables(session, job.tenant_id, [host for _, host in chosen])
    shared = _shared(session, settings, job.tenant_id)
    keys = rekey.variables(session, job)
    own = guard.variables(session, job, [host for _, host in chosen])
    own |= validation.variables(session, job, [host for _, host in chosen])
    # A policy's secrets reach a play only where the role needs them.
    opened = secret_variables(session, job.tenant_id, list(hosts.values())) if operation.configures else {}
    return tuple(
        Target(
            name=row.name,
            id=host.id,
            groups=_groups(operation, row, host),
            address=host.address,
            port=host.port,
            user=host.user,
            connection=host.connection,
            host_keys=tuple(host.ssh_host_keys),
            variables=_controller(shared, host)
            | variables[host.id]
            | _maintenance(job, host)
            | keys
            | own.get(host.id, {}),
            secrets=opened.get(host.id, {}),
        )
        for row, host in chosen
    )


def _groups(operation: Operation, row: JobHost, host: Host) -> tuple[str, ...]:
    """A storage server that only came along is converged as a server, not as an agent."""
    groups = []
    if host.is_agent and row.is_target and operation.needs != "servers":
        groups.append("agents")
    if host.is_storage_server and (operation.needs != "agents" or operation.servers):
        groups.append("storage_servers")
    return tuple(groups)


def _shared(session: Session, settings: Settings, tenant_id: uuid.UUID) -> dict[str, Any]:
    """Return what all agents are told: how to reach and trust the controller, and whom to seal to."""
    ours = tls.current(settings.home) if settings.serves_tls else None
    key = current_key(session, tenant_id)
    return {
        "agent_controller_url": settings.public_url,
        "agent_controller_ca": ours.ca_pem if ours else "",
        "agent_recovery_public_key": key.public_key if key else "",
    }


def of_controller(
    session: Session, settings: Settings, tenant_id: uuid.UUID, hosts: Sequence[Host]
) -> dict[uuid.UUID, dict[str, Any]]:
    """Return what the controller itself tells each host's roles, beside policy and repositories."""
    shared = _shared(session, settings, tenant_id)
    return {host.id: _controller(shared, host) for host in hosts}


def _controller(shared: dict[str, Any], host: Host) -> dict[str, Any]:
    variables = dict(shared) if host.is_agent else {}
    if host.is_storage_server:
        variables["server_port"] = host.port
    return variables


def _maintenance(job: Job, host: Host) -> dict[str, Any]:
    parameters = {f"maintenance_{name}": value for name, value in job.parameters.items() if value is not None}
    return parameters | {
        "maintenance_job_id": str(job.id),
        "maintenance_run_id": str(run_id(job.id, host.id)),
        "maintenance_trigger": "job",
        "maintenance_timeout": job.timeout,
    }
