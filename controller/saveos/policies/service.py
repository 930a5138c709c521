"""Verbs of policies."""

import json
import uuid
from datetime import datetime, timedelta

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from saveos.accounts.service import seal_for, unseal_for
from saveos.core.clock import now
from saveos.core.cron import next_run
from saveos.core.database import touch
from saveos.core.errors import Conflict, NotFound
from saveos.hosts.models import Host
from saveos.policies.models import Policy
from saveos.policies.schemas import Hooks, PolicyIn, PolicyOut, PolicyPatch


def ensure_default(session: Session, tenant_id: uuid.UUID) -> Policy:
    """Return the default policy; made when the tenant has none: /etc and /home, at 2 every night."""
    policy = default_policy(session, tenant_id)
    if policy is None:
        asked = PolicyIn(name="default", sources=["/etc", "/home"], is_default=True)
        policy = create_policy(session, tenant_id, asked)
    return policy


def default_policy(session: Session, tenant_id: uuid.UUID) -> Policy | None:
    """Return the policy that applies where a host names none."""
    return session.scalar(select(Policy).where(Policy.tenant_id == tenant_id, Policy.is_default).limit(1))


def get_policy(session: Session, tenant_id: uuid.UUID, ref: str) -> Policy:
    """Return a policy by id or name. Raises NotFound."""
    query = select(Policy).where(Policy.tenant_id == tenant_id)
    try:
        query = query.where(Policy.id == uuid.UUID(ref))
    except ValueError:
        query = query.where(Policy.name == ref.replace("\x00", ""))
    policy = session.scalar(query)
    if policy is None:
        raise NotFound(f"there is no policy {ref[:100]}: see GET /api/v1/policies")
    return policy


def list_policies(session: Session, tenant_id: uuid.UUID, after: str | None, limit: int) -> list[Policy]:
    """Return up to `limit` policies by name."""
    query = select(Policy).where(Policy.tenant_id == tenant_id).order_by(Policy.name).limit(limit)
    return list(session.scalars(query.where(Policy.name > after) if after else query))


def create_policy(session: Session, tenant_id: uuid.UUID, asked: PolicyIn) -> Policy:
    """Make a policy. Raises Conflict on a taken name."""
    _refuse_taken(session, tenant_id, asked.name)
    values = asked.model_dump(exclude={"hooks", "retention", "is_default"})
    policy = Policy(tenant_id=tenant_id, retention=asked.retention.model_dump(exclude_none=True), **values)
    session.add(policy)
    session.flush()
    _set_hooks(session, policy, asked.hooks)
    if asked.is_default:
        _make_default(session, policy)
    session.flush()
    return policy


def change_policy(session: Session, policy: Policy, asked: PolicyPatch) -> None:
    """Change what is named in `asked`; hosts follow at their next provisioning. Raises Conflict."""
    given = asked.model_dump(exclude_unset=True, exclude_none=True, exclude={"hooks", "is_default"})
    if given.get("name", policy.name) != policy.name:
        _refuse_taken(session, policy.tenant_id, given["name"])
    for key, value in given.items():
        setattr(policy, key, value)
    if asked.hooks is not None:
        _set_hooks(session, policy, asked.hooks)
    if asked.is_default is False and policy.is_default:
        raise Conflict("make another policy the default instead", field="is_default")
    if asked.is_default:
        _make_default(session, policy)
    if {"schedule", "jitter_minutes", "grace_minutes"} & given.keys():
        _reschedule(session, policy)
    session.flush()
    touch(session, policy.tenant_id, "hosts")


def delete_policy(session: Session, policy: Policy) -> None:
    """Delete a policy that no host uses. Raises Conflict."""
    if policy.is_default:
        raise Conflict("this is the default policy: make another one the default first")
    count = session.scalar(select(func.count()).where(Host.policy_id == policy.id))
    if count:
        raise Conflict(f"{count} hosts use this policy: give them another one first")
    session.delete(policy)


def hooks_of(session: Session, policy: Policy) -> dict[str, list[str]]:
    """Return a policy's commands, opened. They are secret: for the host's play only."""
    if policy.hooks is None:
        return {"before": [], "after": [], "on_error": []}
    opened = unseal_for(session, policy.tenant_id, ("policies", policy.id, "hooks"), policy.hooks)
    hooks: dict[str, list[str]] = json.loads(opened)
    return hooks


def assign(session: Session, host: Host, policy: Policy) -> None:
    """Give a host a policy, and judge it by the new schedule from now on."""
    host.policy_id = policy.id
    if host.last_backup_at is not None:
        host.due_at = due_at(policy, host.last_backup_at)
    session.flush()
    session.expire(host, ["policy"])


def due_at(policy: Policy, after: datetime) -> datetime:
    """Return when the archive after `after` must be there at the latest."""
    late = timedelta(minutes=policy.jitter_minutes + policy.grace_minutes)
    return next_run(policy.schedule, after) + late


def describe_policies(session: Session, policies: list[Policy]) -> list[PolicyOut]:
    """Return policies as they travel; one query whatever their number."""
    ids = [policy.id for policy in policies]
    query = select(Host.policy_id, func.count()).where(Host.policy_id.in_(ids), Host.state != "decommissioned")
    counts = dict(session.execute(query.group_by(Host.policy_id)).all())
    return [_describe(session, policy, counts.get(policy.id, 0)) for policy in policies]


def _describe(session: Session, policy: Policy, hosts: int) -> PolicyOut:
    columns = {
        name: getattr(policy, name) for name in PolicyOut.model_fields if name in Policy.__mapper__.columns
    }
    columns["hooks"] = {kind: len(commands) for kind, commands in hooks_of(session, policy).items()}
    return PolicyOut(**columns, hosts=hosts, next_run_at=next_run(policy.schedule, now()))


def _set_hooks(session: Session, policy: Policy, hooks: Hooks) -> None:
    commands = hooks.model_dump()
    if not any(commands.values()):
        policy.hooks = None
        return
    where = ("policies", policy.id, "hooks")
    policy.hooks = seal_for(session, policy.tenant_id, where, json.dumps(commands).encode())


def _make_default(session: Session, policy: Policy) -> None:
    session.execute(update(Policy).where(Policy.tenant_id == policy.tenant_id).values(is_default=False))
    policy.is_default = True
    session.flush()


def _reschedule(session: Session, policy: Policy) -> None:
    query = select(Host).where(Host.policy_id == policy.id, Host.last_backup_at.is_not(None))
    for host in session.scalars(query):
        if host.last_backup_at is not None:
            host.due_at = due_at(policy, host.last_backup_at)


def _refuse_taken(session: Session, tenant_id: uuid.UUID, name: str) -> None:
    if session.scalar(select(Policy.id).where(Policy.tenant_id == tenant_id, Policy.name == name)):
        raise Conflict(f"there is a policy {name} already: choose another name", field="name")
