"""Verbs of policies."""

import uuid
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from saveos.core.clock import now
from saveos.core.cron import next_run
from saveos.core.database import lookup, touch
from saveos.core.errors import Conflict, Invalid, NotFound
from saveos.hosts.models import Host
from saveos.policies import precedence, versions
from saveos.policies.models import GroupPolicy, Policy
from saveos.policies.precedence import default_policy, due_at
from saveos.policies.schemas import (
    ApplyOut,
    DatabaseIn,
    DatabaseOut,
    Hooks,
    PolicyIn,
    PolicyOut,
    PolicyPatch,
    database_key,
)
from saveos.policies.versions import Unreadable, database_passwords, hooks_of, seal_hooks, seal_passwords

__all__ = [
    "assign",
    "assign_many",
    "change_policy",
    "create_policy",
    "database_passwords",
    "default_policy",
    "delete_policy",
    "describe_policies",
    "due_at",
    "ensure_default",
    "get_policy",
    "hooks_of",
    "list_policies",
]

KEPT = {"hooks", "is_default"}  # a YAML form without them leaves them as they are
HIDDEN_FIELDS = {"hooks", "databases", "is_default", "note"}


def ensure_default(session: Session, tenant_id: uuid.UUID) -> Policy:
    """Return the default policy; made when the tenant has none: /etc and /home, at 2 every night."""
    policy = default_policy(session, tenant_id)
    if policy is None:
        asked = PolicyIn(name="default", sources=["/etc", "/home"], is_default=True)
        policy = create_policy(session, tenant_id, asked)
    return policy


def get_policy(session: Session, tenant_id: uuid.UUID, ref: str) -> Policy:
    """Return a policy by id or name. Raises NotFound."""
    policy = lookup(session, select(Policy).where(Policy.tenant_id == tenant_id), Policy, ref)
    if policy is None:
        raise NotFound(f"there is no policy {ref[:100]}: see GET /api/v1/policies")
    return policy


def list_policies(session: Session, tenant_id: uuid.UUID, after: str | None, limit: int) -> list[Policy]:
    """Return up to `limit` policies by name."""
    query = select(Policy).where(Policy.tenant_id == tenant_id).order_by(Policy.name).limit(limit)
    return list(session.scalars(query.where(Policy.name > after) if after else query))


def create_policy(session: Session, tenant_id: uuid.UUID, asked: PolicyIn, *, by: str = "") -> Policy:
    """Make a policy and its first version. Raises Conflict on a taken name, Invalid on what is no server."""
    _refuse_taken(session, tenant_id, asked.name)
    precedence.check_servers(session, tenant_id, asked.servers)
    precedence.check_sandbox(session, tenant_id, asked.drill_sandbox)
    values = asked.model_dump(exclude={*HIDDEN_FIELDS, "retention"})
    policy = Policy(tenant_id=tenant_id, retention=asked.retention.model_dump(exclude_none=True), **values)
    session.add(policy)
    session.flush()
    _set_hooks(session, policy, asked.hooks)
    _set_databases(session, policy, asked.databases)
    versions.keep(session, policy, by=by, note=asked.note)
    if asked.is_default:
        _make_default(session, policy)
    session.flush()
    return policy


def change_policy(session: Session, policy: Policy, asked: PolicyPatch, *, by: str = "") -> None:
    """Change what is named in `asked`, as a new version; hosts follow at their next provisioning.

    Nothing changes and no version is made when it says what is there already. Raises Conflict, Invalid.
    """
    given = asked.model_dump(exclude_unset=True, exclude_none=True, exclude=HIDDEN_FIELDS)
    if given.get("name", policy.name) != policy.name:
        _refuse_taken(session, policy.tenant_id, given["name"])
    if asked.is_default is False and policy.is_default:
        raise Conflict("make another policy the default instead", field="is_default")
    if "servers" in given:
        precedence.check_servers(session, policy.tenant_id, given["servers"])
    precedence.check_sandbox(session, policy.tenant_id, given.get("drill_sandbox", ""))
    versions.keep_first(session, policy)
    for key, value in given.items():
        setattr(policy, key, value)
    if asked.hooks is not None:
        _set_hooks(session, policy, asked.hooks)
    if asked.databases is not None:
        _set_databases(session, policy, asked.databases)
    apply_change(session, policy, by=by, note=asked.note)
    if asked.is_default:
        _make_default(session, policy)


def apply_change(session: Session, policy: Policy, *, by: str, note: str) -> None:
    """Keep a changed policy as a version, and judge its hosts by it from now on."""
    if versions.keep(session, policy, by=by, note=note):
        precedence.reschedule(session, policy)
        precedence.ensure_repositories(session, policy.tenant_id, policy)
    session.flush()
    touch(session, policy.tenant_id, "hosts")


def rollback(session: Session, policy: Policy, number: int, *, by: str, note: str = "") -> None:
    """Make a policy what it was in a version, as a new version. Raises NotFound, Invalid."""
    versions.keep_first(session, policy)
    versions.restore(session, policy, number)
    precedence.check_servers(session, policy.tenant_id, policy.servers)
    apply_change(session, policy, by=by, note=note or f"back to version {number}")


def apply_document(session: Session, tenant_id: uuid.UUID, asked: dict[str, Any], *, by: str) -> ApplyOut:
    """Make or change a policy so that it is what its YAML form says; hooks and passwords it does not name stay.

    Raises Invalid with the field. A caller that only wants to know rolls back what was done.
    """
    name = str(asked.get("name", ""))[:100]
    policy = session.scalar(select(Policy).where(Policy.tenant_id == tenant_id, Policy.name == name))
    if policy is None:
        policy = create_policy(session, tenant_id, _parsed(PolicyIn, asked), by=by)
        document = versions.document(session, policy)
        text = versions.unified({}, document, "nothing", policy.name)
        return ApplyOut(name=policy.name, outcome="made", version=1, changes=[], diff=text)
    versions.keep_first(session, policy)
    number = policy.version
    # What the form leaves out is what a new policy would have, so that a file says the whole of it
    whole = _parsed(PolicyIn, asked)
    named = {key: getattr(whole, key) for key in PolicyIn.model_fields if key not in KEPT or key in asked}
    change_policy(session, policy, PolicyPatch.model_construct(set(named), **named), by=by)
    if policy.version == number:
        return ApplyOut(name=policy.name, outcome="unchanged", version=number, changes=[], diff="")
    found = versions.diff(session, policy, number, policy.version)
    return ApplyOut(
        name=policy.name, outcome="changed", version=policy.version, changes=found.changes, diff=found.diff
    )


def delete_policy(session: Session, policy: Policy) -> None:
    """Delete a policy that no host and no group uses, with its versions. Raises Conflict."""
    if policy.is_default:
        raise Conflict("this is the default policy: make another one the default first")
    used = or_(Host.policy_id == policy.id, Host.own_policy_id == policy.id)
    count = session.scalar(select(func.count()).where(used))
    if count:
        raise Conflict(f"{count} hosts use this policy: give them another one first")
    if session.scalar(select(GroupPolicy.group_id).where(GroupPolicy.policy_id == policy.id).limit(1)):
        raise Conflict("a group gives its hosts this policy: give the group another one first")
    versions.forget(session, policy)
    session.delete(policy)


def assign(session: Session, host: Host, policy: Policy | None) -> None:
    """Make a policy the host's own choice; None has it follow its groups, else the default."""
    assign_many(session, host.tenant_id, [host.id], policy)


def assign_many(
    session: Session, tenant_id: uuid.UUID, host_ids: Sequence[uuid.UUID], policy: Policy | None
) -> int:
    """Make a policy these hosts' own choice, or take the choice away; returns how many get another policy."""
    session.flush()
    own = policy.id if policy else None
    for start in range(0, len(host_ids), 500):
        chosen = Host.id.in_(host_ids[start : start + 500])
        session.execute(update(Host).where(Host.tenant_id == tenant_id, chosen).values(own_policy_id=own))
    return precedence.recompute(session, tenant_id, host_ids)


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
    try:
        columns["hooks"] = {kind: len(commands) for kind, commands in hooks_of(session, policy).items()}
    except Unreadable as problem:
        columns |= {"hooks": {}, "unreadable": problem.detail}
    columns["databases"] = [DatabaseOut(**each) for each in policy.databases]
    return PolicyOut(**columns, hosts=hosts, next_run_at=next_run(policy.schedule, now(), policy.zone))


def _set_hooks(session: Session, policy: Policy, hooks: Hooks) -> None:
    seal_hooks(session, policy, hooks.model_dump())


def _set_databases(session: Session, policy: Policy, databases: list[DatabaseIn]) -> None:
    """Keep databases; one whose password is not named keeps what it had, an empty one takes it away."""
    before = database_passwords(session, policy)
    kept = {database_key(each): before.get(place, "") for place, each in enumerate(policy.databases)}
    rows, passwords = [], {}
    for place, asked in enumerate(databases):
        row = asked.model_dump(exclude={"password"})
        password = kept.get(database_key(row), "") if asked.password is None else asked.password
        if password:
            passwords[place] = password
        rows.append(row | {"has_password": bool(password)})
    policy.databases = rows
    seal_passwords(session, policy, passwords)


def _parsed(model: type[PolicyIn], data: dict[str, Any]) -> PolicyIn:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(("policy", *(str(part) for part in first["loc"])))
        message = first["msg"].removeprefix("Value error, ")
        raise Invalid(f"{field}: {message[:1].lower()}{message[1:]}", field=field) from None


def _make_default(session: Session, policy: Policy) -> None:
    session.execute(update(Policy).where(Policy.tenant_id == policy.tenant_id).values(is_default=False))
    policy.is_default = True
    session.flush()
    precedence.recompute(session, policy.tenant_id)


def _refuse_taken(session: Session, tenant_id: uuid.UUID, name: str) -> None:
    if session.scalar(select(Policy.id).where(Policy.tenant_id == tenant_id, Policy.name == name)):
        raise Conflict(f"there is a policy {name} already: choose another name", field="name")
