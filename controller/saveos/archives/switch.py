"""The policy's switch `catalogue: off`: whose names of files stay on their hosts.

A policy says it for its hosts, and a host's own variable `agent_catalogue` wins, as it does for the agent.
"""

import uuid

from sqlalchemy import String, and_, cast, or_, select
from sqlalchemy.orm import Session

from saveos.core.errors import Conflict
from saveos.hosts.models import Host
from saveos.policies.models import Policy

VARIABLE = "agent_catalogue"


def hosts_off(session: Session, tenant_id: uuid.UUID | None = None) -> dict[uuid.UUID, str]:
    """Return the names by id of the agents whose catalogue is off, of a tenant or of all."""
    policy = or_(
        Policy.id == Host.policy_id,
        and_(Host.policy_id.is_(None), Policy.tenant_id == Host.tenant_id, Policy.is_default),
    )
    query = select(Host.id, Host.name, Host.variables, Policy.catalogue).outerjoin(Policy, policy)
    query = query.where(
        Host.is_agent, or_(Policy.catalogue == "off", cast(Host.variables, String).contains(VARIABLE))
    )
    if tenant_id is not None:
        query = query.where(Host.tenant_id == tenant_id)
    return {
        identity: name
        for identity, name, variables, said in session.execute(query)
        if _says_off(variables.get(VARIABLE, said))
    }


def why_off(session: Session, host: Host) -> str:
    """Return why nothing is stored of a host's archives, and how to change that; "" where it is."""
    own = host.variables.get(VARIABLE)
    if own is not None:
        said = (
            f"{host.name}'s own variable {VARIABLE} keeps names of files there: take it away to have them here"
        )
        return said if _says_off(own) else ""
    default = and_(Policy.tenant_id == host.tenant_id, Policy.is_default)
    policy = session.scalar(select(Policy).where(Policy.id == host.policy_id if host.policy_id else default))
    if policy is None or policy.catalogue != "off":
        return ""
    return (
        f"the policy {policy.name} keeps names of files on {host.name}: browse its archives there,"
        f" or set the policy's catalogue to full"
    )


def check_on(session: Session, host: Host) -> None:
    """Raise Conflict, and say how to change it, where a host's catalogue is off."""
    if reason := why_off(session, host):
        raise Conflict(reason)


def _says_off(value: object) -> bool:
    return value == "off" or value is False  # YAML's bare off
