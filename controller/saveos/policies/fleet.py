"""A host with its policy and its repositories: add, change, role variables, Ansible inventory.

The lowest step of the ladder that knows all three.
"""

import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from saveos.accounts.service import first_tenant
from saveos.core.errors import Invalid, NotFound
from saveos.hosts import service as hosts
from saveos.hosts.models import Host
from saveos.hosts.schemas import HostIn, HostPatch, RepositoryFor
from saveos.policies import precedence, rendering, service
from saveos.policies.models import Policy, PolicyVersion
from saveos.policies.schemas import EffectiveOut
from saveos.repositories import service as repositories


def add_host(session: Session, tenant_id: uuid.UUID, asked: HostIn) -> Host:
    """Add a host with its policy (else the default one) and repository (else on the only storage server).

    Raises Invalid and Conflict, with nothing made.
    """
    _refuse_own_machine(session, tenant_id, asked)
    host = hosts.add_host(session, tenant_id, asked)
    policy = _policy(session, tenant_id, asked.policy) if asked.policy else None
    service.ensure_default(session, tenant_id)
    service.assign(session, host, policy)
    existing = repositories.of_hosts(session, tenant_id, [host.id])
    if asked.repository is not None:
        repositories.create_repository(session, tenant_id, host, asked.repository)
    elif host.is_agent and not existing and repositories.has_storage(session, tenant_id):
        repositories.create_repository(session, tenant_id, host, RepositoryFor())
    return host


def _refuse_own_machine(session: Session, tenant_id: uuid.UUID, asked: HostIn) -> None:
    """Raise Invalid where a further tenant wants the controller's machine: root there holds all tenants."""
    first = first_tenant(session)
    if asked.connection == "local" and first is not None and first.id != tenant_id:
        raise Invalid(
            "only the tenant that the controller was installed with may have its machine: use ssh",
            field="connection",
        )


def change_host(session: Session, host: Host, asked: HostPatch) -> None:
    """Change what is named in `asked`; it takes effect at the next provisioning. Raises Invalid, Conflict.

    A policy of null takes the host's own choice away: it follows its groups, else the default.
    """
    hosts.change_host(session, host, asked)
    if "policy" in asked.model_fields_set:
        policy = _policy(session, host.tenant_id, asked.policy) if asked.policy else None
        service.assign(session, host, policy)


def role_variables(
    session: Session, tenant_id: uuid.UUID, chosen: Sequence[Host]
) -> dict[uuid.UUID, dict[str, Any]]:
    """Return the variables that our roles need for each host, from policy and repositories, without hooks.

    A host's own `variables` win. Nothing here is tagged unsafe yet.
    """
    stores = repositories.of_hosts(session, tenant_id, [host.id for host in chosen])
    names = _names(session, tenant_id, (store.server_id for each in stores.values() for store in each))
    policies = _policies(session, tenant_id)
    tenants = repositories.storage_tenants(session, [host for host in chosen if host.is_storage_server])
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
            policy = policies.get(host.policy_id)
            variables |= _policy_variables(policy) if policy else {}
        if tenant := tenants.get(host.id):
            variables["server_tenant"] = tenant
        found[host.id] = variables | host.variables
    return found


def secret_variables(
    session: Session, tenant_id: uuid.UUID, chosen: Sequence[Host]
) -> dict[uuid.UUID, dict[str, Any]]:
    """Return what of each agent's policy is secret, opened: hooks, and databases with their passwords.

    For a play that sets the host up, and for nobody without the right to secrets.
    """
    policies = _policies(session, tenant_id)
    opened: dict[uuid.UUID, dict[str, Any]] = {}
    found: dict[uuid.UUID, dict[str, Any]] = {}
    for host in chosen:
        policy = policies.get(host.policy_id)
        if policy is None or not host.is_agent:
            continue
        if policy.id not in opened:
            opened[policy.id] = _secret_variables(session, policy)
        secrets = opened[policy.id].items()
        found[host.id] = {name: value for name, value in secrets if name not in host.variables}
    return found


def effective(session: Session, host: Host) -> EffectiveOut:
    """Return what a host gets at its next provisioning, and what of it is there already."""
    policy = _policies(session, host.tenant_id).get(host.policy_id)
    variables = role_variables(session, host.tenant_id, [host])[host.id]
    hooks = service.hooks_of(session, policy) if policy else {}
    texts, problem = rendering.render(session, host, variables, hooks)
    applied = session.get(PolicyVersion, host.applied_version_id) if host.applied_version_id else None
    same = applied is not None and policy is not None and applied.policy_id == policy.id
    return EffectiveOut(
        host=host.name,
        policy=policy.name if policy else None,
        source=host.policy_source,
        chain=precedence.chain(session, host),
        version=policy.version if policy else None,
        applied_version=applied.number if applied and same else None,
        drift=hosts.has_drift(host),
        variables=variables,
        rendered=texts,
        problem=problem,
    )


def _policy_variables(policy: Policy) -> dict[str, Any]:
    return {
        "agent_sources": policy.sources,
        "agent_excludes": policy.excludes,
        "agent_schedule": policy.schedule,
        "agent_schedule_zone": policy.zone,
        "agent_jitter_minutes": policy.jitter_minutes,
        "agent_window_minutes": policy.window_minutes,
        "agent_policy_version": str(policy.current_version_id or ""),
        "agent_retention": policy.retention,
        "agent_compression": policy.compression,
        "agent_upload_rate_limit": policy.upload_rate_limit,
        "agent_catalogue": policy.catalogue,
        "agent_databases": [_database(each) for each in policy.databases],
        "agent_borgmatic_overrides": policy.overrides,
    }


def _database(row: dict[str, Any], password: str | None = None) -> dict[str, Any]:
    """Return a database as the role takes it; one whose password is not told keeps that on the host."""
    shown = {key: value for key, value in row.items() if key != "has_password" and value not in ("", None)}
    if password is not None:
        return shown | {"password": password}
    return shown | {"keep_password": True} if row["has_password"] else shown


def _secret_variables(session: Session, policy: Policy) -> dict[str, Any]:
    variables: dict[str, Any] = {}
    if policy.hooks:
        variables["agent_hooks"] = service.hooks_of(session, policy)
    if passwords := service.database_passwords(session, policy):
        variables["agent_databases"] = [
            _database(row, passwords.get(place)) for place, row in enumerate(policy.databases)
        ]
    return variables


def _policies(session: Session, tenant_id: uuid.UUID) -> dict[uuid.UUID | None, Policy]:
    """Return the tenant's policies by id; at None the default, for a host that nobody gave one yet."""
    found: dict[uuid.UUID | None, Policy] = {}
    for policy in session.scalars(select(Policy).where(Policy.tenant_id == tenant_id)):
        found[policy.id] = policy
        if policy.is_default:
            found[None] = policy
    return found


def _policy(session: Session, tenant_id: uuid.UUID, ref: str) -> Policy:
    try:
        return service.get_policy(session, tenant_id, ref)
    except NotFound as error:
        raise Invalid(error.detail, field="policy") from error


def _names(session: Session, tenant_id: uuid.UUID, ids: Iterable[uuid.UUID | None]) -> dict[uuid.UUID, str]:
    wanted = {identity for identity in ids if identity}
    query = select(Host.id, Host.name).where(Host.tenant_id == tenant_id, Host.id.in_(wanted))
    return dict(session.execute(query).all())
