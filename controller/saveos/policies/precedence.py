"""Which policy a host has: its own choice, else that of its groups, else the default.

`Host.policy_id` always says the answer, so that lists, sweeps and check-ins need no more than a join.
Everything that may change the answer calls `recompute`, which works on the whole fleet at once.
"""

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, func, literal, or_, select, update
from sqlalchemy.orm import Session

from saveos.core.clock import now
from saveos.core.cron import next_run
from saveos.core.database import touch
from saveos.core.errors import Invalid
from saveos.hosts import groups
from saveos.hosts.models import Group, GroupMember, Host
from saveos.policies.models import GroupPolicy, Policy, PolicyVersion
from saveos.policies.schemas import Choice, GroupPolicyOut
from saveos.repositories import service as repositories

PART = 500  # ids in a query: SQLite takes a limited number of parameters


def default_policy(session: Session, tenant_id: uuid.UUID) -> Policy | None:
    """Return the policy that applies where neither a host nor a group of its names one."""
    return session.scalar(select(Policy).where(Policy.tenant_id == tenant_id, Policy.is_default).limit(1))


def due_at(policy: Policy, after: datetime) -> datetime:
    """Return when the archive after `after` must be there at the latest."""
    late = timedelta(minutes=policy.jitter_minutes + policy.grace_minutes)
    return next_run(policy.schedule, after, policy.zone) + late


def drill_times(
    policy: Policy | None, last_drill_at: datetime | None, last_proven_at: datetime | None
) -> dict[str, datetime | None]:
    """Return when a host's next drill is due by its policy, and until when the last proof counts.

    The second drill that proves nothing is one too many. Without a frequency in the policy both are None.
    """
    if policy is None or not policy.drill_every_days:
        return {"drill_due_at": None, "proof_ends_at": None}
    every = timedelta(days=policy.drill_every_days)
    return {
        "drill_due_at": last_drill_at + every if last_drill_at else now(),
        "proof_ends_at": last_proven_at + 2 * every if last_proven_at else None,
    }


def recompute(session: Session, tenant_id: uuid.UUID, host_ids: Sequence[uuid.UUID] | None = None) -> int:
    """Bring `Host.policy_id` and `policy_source` up to date, of some hosts or all; returns how many changed.

    A host with another policy is judged by its schedule from now on, and has repositories on its servers.
    So is one that was taken out and comes back: its archives of before keep nobody from missing the next.
    """
    session.flush()
    default = default_policy(session, tenant_id)
    wanted, source = _wanted(session, tenant_id, default.id if default else None)
    expects_none = and_(Host.due_at.is_(None), Host.last_backup_at.is_not(None))
    differs = or_(Host.policy_id.is_distinct_from(wanted), Host.policy_source != source, expects_none)
    drills = Host.last_drill_at, Host.last_proven_at
    query = select(Host.id, Host.policy_id, Host.last_backup_at, Host.due_at, wanted, source, *drills).where(
        Host.tenant_id == tenant_id, Host.state != "decommissioned", differs
    )
    rows = [row for part in _parts(query, host_ids) for row in session.execute(part).all()]
    policies = _policies(session, tenant_id, {row[4] for row in rows})
    changes, moved = [], []
    for identity, before, last, was_due, policy_id, name, *drilled in rows:
        policy = policies.get(policy_id)
        due = due_at(policy, last) if policy and last else was_due
        if policy_id != before:
            moved.append((identity, policy))
        change = {"id": identity, "policy_id": policy_id, "policy_source": name, "due_at": due}
        changes.append(change | drill_times(policy, *drilled))
    if changes:
        session.execute(update(Host), changes)
        _expire(session, {change["id"] for change in changes})
        touch(session, tenant_id, "hosts")
    for policy in policies.values():
        ensure_repositories(session, tenant_id, policy, [host for host, own in moved if own is policy])
    return len(moved)


def reschedule(session: Session, policy: Policy) -> None:
    """Judge a policy's hosts by its present schedule."""
    query = select(Host.id, Host.last_backup_at, Host.due_at, Host.last_drill_at, Host.last_proven_at).where(
        Host.policy_id == policy.id, Host.state != "decommissioned"
    )
    changes: list[dict[str, Any]] = [
        {"id": identity, "due_at": due_at(policy, last) if last else was_due, **drill_times(policy, *drilled)}
        for identity, last, was_due, *drilled in session.execute(query)
    ]
    if changes:
        session.execute(update(Host), changes)
        _expire(session, {change["id"] for change in changes})


def check_servers(session: Session, tenant_id: uuid.UUID, names: Sequence[str]) -> None:
    """Raise Invalid when one of the names is no storage server's, or comes twice."""
    query = select(Host.name).where(
        Host.tenant_id == tenant_id,
        Host.is_storage_server,
        Host.state != "decommissioned",
        Host.name.in_(names),
    )
    known = set(session.scalars(query))
    if missing := [name for name in names if name not in known]:
        raise Invalid(
            f"{missing[0]} is no storage server: see saveos hosts list, or add it with --storage",
            field="servers",
        )
    if len(set(names)) < len(names):
        raise Invalid("a storage server is named twice: name each once", field="servers")


def check_sandbox(session: Session, tenant_id: uuid.UUID, name: str) -> None:
    """Raise Invalid when a policy's sandbox is no agent."""
    known = Host.tenant_id == tenant_id, Host.name == name, Host.is_agent, Host.state != "decommissioned"
    if name and session.scalar(select(Host.id).where(*known)) is None:
        raise Invalid(f"{name} is no agent: see saveos hosts list", field="drill_sandbox")


def ensure_repositories(
    session: Session, tenant_id: uuid.UUID, policy: Policy, host_ids: Sequence[uuid.UUID] | None = None
) -> None:
    """Give a policy's hosts a repository on each of its servers; what there is stays. Raises Invalid."""
    if not policy.servers or host_ids == []:
        return
    query = select(Host).where(
        Host.tenant_id == tenant_id, Host.policy_id == policy.id, Host.is_agent, Host.state != "decommissioned"
    )
    hosts = [host for part in _parts(query, host_ids) for host in session.scalars(part)]
    stores = repositories.of_hosts(session, tenant_id, [host.id for host in hosts])
    servers = select(Host.name, Host.id).where(Host.tenant_id == tenant_id, Host.name.in_(policy.servers))
    places = dict(session.execute(servers).all())
    there = {(host_id, store.server_id) for host_id, each in stores.items() for store in each}
    for name, server_id in places.items():
        lacking = [host for host in hosts if host.id != server_id and (host.id, server_id) not in there]
        if lacking:
            repositories.create_on_server(session, tenant_id, lacking, name)


def set_group_policy(session: Session, group: Group, policy: Policy | None, priority: int) -> GroupPolicyOut:
    """Give a group's hosts a policy, or take it from the group; hosts with an own choice keep that."""
    row = session.get(GroupPolicy, group.id)
    if policy is None:
        if row is not None:
            session.delete(row)
    elif row is None:
        session.add(
            GroupPolicy(group_id=group.id, tenant_id=group.tenant_id, policy_id=policy.id, priority=priority)
        )
    else:
        row.policy_id, row.priority = policy.id, priority
    recompute(session, group.tenant_id)
    return group_policy(session, group)


def group_policy(session: Session, group: Group) -> GroupPolicyOut:
    """Return the policy that a group gives its hosts, and how many have it from there."""
    query = select(Policy.name, GroupPolicy.priority).join(GroupPolicy, GroupPolicy.policy_id == Policy.id)
    row = session.execute(query.where(GroupPolicy.group_id == group.id)).one_or_none()
    count = select(func.count()).where(
        Host.tenant_id == group.tenant_id, Host.policy_source == f"group:{group.name}"
    )
    name, priority = row or (None, 100)
    return GroupPolicyOut(group=group.name, policy=name, priority=priority, hosts=session.scalar(count) or 0)


def chain(session: Session, host: Host) -> list[Choice]:
    """Return all that could say which policy a host has, the strongest first."""
    own = session.get(Policy, host.own_policy_id) if host.own_policy_id else None
    found = [Choice(source="host", policy=own.name if own else None, applies=False)]
    query = (
        select(Group.name, Policy.name, GroupPolicy.priority)
        .join(GroupMember, GroupMember.group_id == Group.id)
        .join(GroupPolicy, GroupPolicy.group_id == Group.id)
        .join(Policy, Policy.id == GroupPolicy.policy_id)
        .where(GroupMember.host_id == host.id)
        .order_by(GroupPolicy.priority, Group.name)
    )
    found += [
        Choice(source=f"group:{group}", policy=name, priority=priority, applies=False)
        for group, name, priority in session.execute(query)
    ]
    default = default_policy(session, host.tenant_id)
    found.append(Choice(source="default", policy=default.name if default else None, applies=False))
    for choice in found:
        if choice.policy is not None:
            choice.applies = True
            break
    return found


def record_applied(session: Session, host: Host, version_id: uuid.UUID) -> None:
    """Note which version a host was provisioned with; one that its tenant does not have is ignored."""
    query = select(PolicyVersion.id).where(
        PolicyVersion.id == version_id, PolicyVersion.tenant_id == host.tenant_id
    )
    if session.scalar(query) is not None:
        host.applied_version_id = version_id


def _wanted(
    session: Session, tenant_id: uuid.UUID, default_id: uuid.UUID | None
) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """Return the policy that a host should have and its source, as expressions over Host."""
    default: ColumnElement[Any] = literal(default_id, type_=Host.policy_id.type)
    used = select(GroupPolicy.group_id).where(GroupPolicy.tenant_id == tenant_id).limit(1)
    if session.scalar(used) is None:
        source = case((Host.own_policy_id.is_not(None), "host"), else_="default")
        return func.coalesce(Host.own_policy_id, default), source
    strongest = (
        select(GroupPolicy.policy_id, Group.name)
        .join(GroupMember, GroupMember.group_id == GroupPolicy.group_id)
        .join(Group, Group.id == GroupPolicy.group_id)
        .where(GroupMember.host_id == Host.id)
        .order_by(GroupPolicy.priority, Group.name)
        .limit(1)
        .correlate(Host)
    )
    policy = strongest.with_only_columns(GroupPolicy.policy_id).scalar_subquery()
    name = strongest.with_only_columns(Group.name).scalar_subquery()
    return func.coalesce(Host.own_policy_id, policy, default), case(
        (Host.own_policy_id.is_not(None), "host"),
        else_=func.coalesce(literal("group:").concat(name), "default"),
    )


def _parts(query: Select[Any], host_ids: Sequence[uuid.UUID] | None) -> list[Select[Any]]:
    if host_ids is None:
        return [query]
    return [query.where(Host.id.in_(host_ids[start : start + PART])) for start in range(0, len(host_ids), PART)]


def _policies(session: Session, tenant_id: uuid.UUID, ids: set[uuid.UUID | None]) -> dict[Any, Policy]:
    query = select(Policy).where(Policy.tenant_id == tenant_id, Policy.id.in_([each for each in ids if each]))
    return {policy.id: policy for policy in session.scalars(query)}


def _expire(session: Session, ids: set[uuid.UUID]) -> None:
    for row in list(session.identity_map.values()):
        if isinstance(row, Host) and row.id in ids:
            session.expire(
                row, ["policy_id", "policy_source", "due_at", "policy", "drill_due_at", "proof_ends_at"]
            )


# Groups stand lower on the ladder, so they are told whom to call.
groups.on_change.append(recompute)
