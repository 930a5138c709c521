"""A host with its policy and its repositories: add, change, role variables, Ansible inventory.

The lowest step of the ladder that knows all three.
"""

import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from saveos.core.errors import Invalid, NotFound
from saveos.hosts import service as hosts
from saveos.hosts.groups import group_names
from saveos.hosts.models import Host
from saveos.hosts.schemas import HostIn, HostPatch, RepositoryFor
from saveos.policies import service
from saveos.policies.models import Policy
from saveos.repositories import service as repositories


def add_host(session: Session, tenant_id: uuid.UUID, asked: HostIn) -> Host:
    """Add a host with its policy (else the default one) and repository (else on the only storage server).

    Raises Invalid and Conflict, with nothing made.
    """
    host = hosts.add_host(session, tenant_id, asked)
    policy = _policy(session, tenant_id, asked.policy) if asked.policy else None
    service.assign(session, host, policy or service.ensure_default(session, tenant_id))
    existing = repositories.of_hosts(session, tenant_id, [host.id])
    if asked.repository is not None:
        repositories.create_repository(session, tenant_id, host, asked.repository)
    elif host.is_agent and not existing and repositories.has_storage(session, tenant_id):
        repositories.create_repository(session, tenant_id, host, RepositoryFor())
    return host


def change_host(session: Session, host: Host, asked: HostPatch) -> None:
    """Change what is named in `asked`; it takes effect at the next provisioning. Raises Invalid, Conflict."""
    hosts.change_host(session, host, asked)
    if asked.policy:
        service.assign(session, host, _policy(session, host.tenant_id, asked.policy))


def role_variables(
    session: Session, tenant_id: uuid.UUID, chosen: Sequence[Host]
) -> dict[uuid.UUID, dict[str, Any]]:
    """Return the variables that our roles need for each host, from policy and repositories, without hooks.

    A host's own `variables` win. Nothing here is tagged unsafe yet.
    """
    stores = repositories.of_hosts(session, tenant_id, [host.id for host in chosen])
    names = _names(session, tenant_id, (store.server_id for each in stores.values() for store in each))
    policies = {
        policy.id: policy for policy in session.scalars(select(Policy).where(Policy.tenant_id == tenant_id))
    }
    found: dict[uuid.UUID, dict[str, Any]] = {}
    for host in chosen:
        variables: dict[str, Any] = {}
        if host.is_agent:
            variables["agent_host_id"] = str(host.id)
            variables["agent_repositories"] = [
                {
                    "id": str(store.id),
                    "kind": store.kind,
                    "server": names.get(store.server_id, "") if store.server_id else "",
                    "path": store.path,
                    "quota": store.quota,
                }
                for store in stores.get(host.id, [])
            ]
            policy = policies.get(host.policy_id) if host.policy_id else None
            variables |= _policy_variables(policy) if policy else {}
        found[host.id] = variables | host.variables
    return found


def inventory(session: Session, tenant_id: uuid.UUID) -> dict[str, Any]:
    """Return the fleet in Ansible's JSON form. Text that Ansible would take for a template is tagged unsafe."""
    query = select(Host).where(Host.tenant_id == tenant_id, Host.state.in_(("pending", "enrolled")))
    fleet = list(session.scalars(query.order_by(Host.name)))
    variables = role_variables(session, tenant_id, fleet)
    memberships = group_names(session, [host.id for host in fleet])
    groups: dict[str, Any] = {
        "agents": {"hosts": [host.name for host in fleet if host.is_agent]},
        "storage_servers": {"hosts": [host.name for host in fleet if host.is_storage_server]},
    }
    for host in fleet:
        for name in memberships.get(host.id, []):
            groups.setdefault(name, {"hosts": []})["hosts"].append(host.name)
    hostvars = {host.name: tag_unsafe(_connection(host) | variables[host.id]) for host in fleet}
    return {"_meta": {"hostvars": hostvars}, "all": {"children": sorted(groups)}, **groups}


def tag_unsafe(value: Any) -> Any:
    """Return `value` with each text that holds a template tagged, so that Ansible never renders it."""
    if isinstance(value, dict):
        return {key: tag_unsafe(item) for key, item in value.items()}
    if isinstance(value, list):
        return [tag_unsafe(item) for item in value]
    if isinstance(value, str) and any(opener in value for opener in ("{{", "{%", "{#")):
        return {"__ansible_unsafe": value}
    return value


def _connection(host: Host) -> dict[str, Any]:
    variables: dict[str, Any] = {
        "ansible_host": host.address,
        "ansible_port": host.port,
        "ansible_user": host.user,
    }
    if host.connection == "local":
        variables["ansible_connection"] = "local"
    return variables


def _policy_variables(policy: Policy) -> dict[str, Any]:
    return {
        "agent_sources": policy.sources,
        "agent_excludes": policy.excludes,
        "agent_schedule": policy.schedule,
        "agent_schedule_zone": "UTC",  # what the controller reckons due times in
        "agent_jitter_minutes": policy.jitter_minutes,
        "agent_retention": policy.retention,
        "agent_compression": policy.compression,
        "agent_upload_rate_limit": policy.upload_rate_limit,
        "agent_borgmatic_overrides": policy.overrides,
    }


def _policy(session: Session, tenant_id: uuid.UUID, ref: str) -> Policy:
    try:
        return service.get_policy(session, tenant_id, ref)
    except NotFound as error:
        raise Invalid(error.detail, field="policy") from error


def _names(session: Session, tenant_id: uuid.UUID, ids: Iterable[uuid.UUID | None]) -> dict[uuid.UUID, str]:
    wanted = {identity for identity in ids if identity}
    query = select(Host.id, Host.name).where(Host.tenant_id == tenant_id, Host.id.in_(wanted))
    return dict(session.execute(query).all())
