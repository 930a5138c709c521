"""The fleet as Ansible inventory, so that a playbook run anywhere gives hosts what the controller would."""

import uuid
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from saveos.core.settings import Settings
from saveos.hosts.groups import group_names
from saveos.hosts.models import Host
from saveos.maintenance.variables import of_controller
from saveos.policies.fleet import role_variables, secret_variables

WITHHELD = (
    "the inventory withholds the hooks of this host's policy, because they may hold secrets: set"
    " `secrets: true` in it with a token that has the right inventory:secrets, or let the controller do it"
)


def inventory(
    session: Session, settings: Settings, tenant_id: uuid.UUID, *, secrets: bool = False
) -> dict[str, Any]:
    """Return the fleet in Ansible's JSON form, without hosts that are paused or were taken out.

    Text that Ansible would take for a template is tagged unsafe. Without `secrets` a host whose policy
    has hooks says in `agent_withheld` that a play must not set it up: it would take them away.
    """
    query = select(Host).where(Host.tenant_id == tenant_id, Host.state.in_(("pending", "enrolled")))
    fleet = list(session.scalars(query.order_by(Host.name)))
    variables = role_variables(session, tenant_id, fleet)
    shared = of_controller(session, settings, tenant_id, fleet)
    opened = secret_variables(session, tenant_id, fleet)
    memberships = group_names(session, [host.id for host in fleet])
    groups: dict[str, Any] = {
        "agents": {"hosts": [host.name for host in fleet if host.is_agent]},
        "storage_servers": {"hosts": [host.name for host in fleet if host.is_storage_server]},
    }
    hostvars: dict[str, Any] = {}
    for host in fleet:
        for name in memberships.get(host.id, []):
            groups.setdefault(name, {"hosts": []})["hosts"].append(host.name)
        known = _connection(host) | shared[host.id] | variables[host.id]
        secret = opened.get(host.id, {})
        if secrets:
            known |= secret
        elif "agent_hooks" in secret:
            known["agent_withheld"] = [WITHHELD]
        hostvars[host.name] = tag_unsafe(known)
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
        "saveos_host_id": str(host.id),
        "saveos_state": host.state,
        "saveos_tags": list(host.tags),
        "saveos_ssh_host_keys": list(host.ssh_host_keys),
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_host": host.address,
        "ansible_port": host.port,
        "ansible_user": host.user,
    }
    if host.connection == "local":
        variables["ansible_connection"] = "local"
    return variables
