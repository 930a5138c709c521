"""Versions of policies: every change makes one; they can be compared, and gone back to."""

import difflib
import json
import uuid
from typing import Any

import yaml
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from saveos.accounts.keys import seal_for, unseal_for
from saveos.core.errors import Conflict, NotFound
from saveos.core.security import CannotOpen
from saveos.hosts.models import Host
from saveos.policies.models import Policy, PolicyVersion
from saveos.policies.schemas import Change, DiffOut, VersionOut

FIELDS = (
    "name",
    "sources",
    "excludes",
    "schedule",
    "zone",
    "jitter_minutes",
    "window_minutes",
    "grace_minutes",
    "retention",
    "compression",
    "upload_rate_limit",
    "catalogue",
    "drill_every_days",
    "drill_sample",
    "drill_sandbox",
    "databases",
    "servers",
    "overrides",
)
# Hooks are compared by themselves, not by their number
NOT_ON_HOSTS = ("name", "grace_minutes", "hooks", "drill_every_days", "drill_sample", "drill_sandbox")
NO_HOOKS: dict[str, list[str]] = {"before": [], "after": [], "on_error": []}

UNREADABLE = (
    "the commands of policy {name} do not open with this controller's key: "
    "restore the controller with the key that sealed them, or make the policy anew"
)

Secrets = dict[str, Any]


class Unreadable(Conflict):
    """A policy whose secrets do not open."""


def hooks_of(session: Session, policy: Policy) -> dict[str, list[str]]:
    """Return a policy's commands, opened. They are secret: for the host's play only. Raises Unreadable."""
    if policy.hooks is None:
        return {name: [] for name in NO_HOOKS}
    try:
        opened = unseal_for(session, policy.tenant_id, ("policies", policy.id, "hooks"), policy.hooks)
    except CannotOpen as error:
        raise Unreadable(UNREADABLE.format(name=policy.name)) from error
    hooks: dict[str, list[str]] = json.loads(opened)
    return hooks


def database_passwords(session: Session, policy: Policy) -> dict[int, str]:
    """Return the passwords of a policy's databases by their place in the list, opened: for the play only."""
    if policy.passwords is None:
        return {}
    opened = unseal_for(session, policy.tenant_id, ("policies", policy.id, "passwords"), policy.passwords)
    return {int(place): password for place, password in json.loads(opened).items()}


def seal_hooks(session: Session, policy: Policy, hooks: dict[str, list[str]]) -> None:
    """Keep a policy's commands."""
    policy.hooks = _seal(session, policy, "hooks", hooks) if any(hooks.values()) else None


def seal_passwords(session: Session, policy: Policy, passwords: dict[int, str]) -> None:
    """Keep the passwords of a policy's databases, by their place in the list."""
    policy.passwords = _seal(session, policy, "passwords", passwords) if passwords else None


def document(session: Session, policy: Policy) -> dict[str, Any]:
    """Return a policy without its secrets; of its hooks how many there are."""
    hooks = {kind: len(commands) for kind, commands in hooks_of(session, policy).items()}
    return {name: getattr(policy, name) for name in FIELDS} | {"hooks": hooks}


def keep(session: Session, policy: Policy, *, by: str, note: str) -> bool:
    """Keep a policy as it is now as its next version; returns False when nothing differs from the last.

    Hosts that were provisioned with a version that would make the same of them count as up to date.
    """
    session.flush()
    now, secrets = document(session, policy), _secrets(session, policy)
    last = session.get(PolicyVersion, policy.current_version_id) if policy.current_version_id else None
    if last is not None and (last.document, _opened(session, last)) == (now, secrets):
        return False
    policy.version += 1
    made = PolicyVersion(
        tenant_id=policy.tenant_id,
        policy_id=policy.id,
        number=policy.version,
        document=now,
        created_by=by,
        note=note,
    )
    session.add(made)
    session.flush()
    if any(secrets.values()):
        place = ("policy_versions", made.id, "secrets")
        made.secrets = seal_for(session, policy.tenant_id, place, json.dumps(secrets).encode())
    policy.current_version_id = made.id
    session.flush()
    _carry_forward(session, made, secrets)
    return True


def keep_first(session: Session, policy: Policy) -> None:
    """Keep a policy from before there were versions as its first one."""
    if policy.current_version_id is None:
        keep(session, policy, by="", note="as it was before versions were kept")


def list_versions(session: Session, policy: Policy, before: int | None, limit: int) -> list[PolicyVersion]:
    """Return up to `limit` versions, newest first."""
    query = select(PolicyVersion).where(
        PolicyVersion.policy_id == policy.id, PolicyVersion.tenant_id == policy.tenant_id
    )
    if before is not None:
        query = query.where(PolicyVersion.number < before)
    return list(session.scalars(query.order_by(PolicyVersion.number.desc()).limit(limit)))


def get_version(session: Session, policy: Policy, number: int) -> PolicyVersion:
    """Return a version by its number. Raises NotFound."""
    query = select(PolicyVersion).where(PolicyVersion.policy_id == policy.id, PolicyVersion.number == number)
    version = session.scalar(query)
    if version is None:
        raise NotFound(
            f"policy {policy.name} has no version {number}: it has 1 to {policy.version}"
            if policy.version
            else f"policy {policy.name} has no version yet: its next change makes the first"
        )
    return version


def describe_version(version: PolicyVersion) -> VersionOut:
    """Return a version as it travels."""
    return VersionOut(**{name: getattr(version, name) for name in VersionOut.model_fields})


def diff(session: Session, policy: Policy, before: int, after: int) -> DiffOut:
    """Return what differs between two versions. Raises NotFound."""
    old, new = get_version(session, policy, before), get_version(session, policy, after)
    changes = compare(old.document, _opened(session, old), new.document, _opened(session, new))
    names = (f"{policy.name} version {before}", f"{policy.name} version {after}")
    return DiffOut(
        before=before, after=after, changes=changes, diff=unified(old.document, new.document, *names)
    )


def compare(before: dict[str, Any], old: Secrets, after: dict[str, Any], new: Secrets) -> list[Change]:
    """Return what differs between two documents and their secrets, without telling a secret."""
    changes = [
        Change(field=name, before=before.get(name), after=after.get(name))
        for name in (*FIELDS, "hooks")
        if before.get(name) != after.get(name)
    ]
    told = {change.field for change in changes}
    for name, field in (("hooks", "hooks"), ("passwords", "databases")):
        if old.get(name) != new.get(name) and field not in told:
            changes.append(Change(field=field, before="(hidden)", after="(hidden, changed)"))
    return changes


def unified(before: dict[str, Any], after: dict[str, Any], old: str, new: str) -> str:
    """Return a unified diff of two documents' YAML."""
    lines = difflib.unified_diff(
        to_yaml(before).splitlines(keepends=True), to_yaml(after).splitlines(keepends=True), old, new
    )
    return "".join(lines)


def to_yaml(document: dict[str, Any]) -> str:
    """Return a policy's document in its YAML form, which `saveos policies apply` takes. It holds no secret."""
    shown = {name: document[name] for name in FIELDS if name in document}
    shown["databases"] = [
        {key: value for key, value in each.items() if value not in ("", None, False)}
        for each in document.get("databases") or []
    ]
    for each in shown["databases"]:
        each.pop("has_password", None)
    text: str = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=110)
    hooks = {kind: number for kind, number in (document.get("hooks") or {}).items() if number}
    told = "".join(f"# hooks, {kind}: {number}, hidden\n" for kind, number in hooks.items())
    return text + told


def restore(session: Session, policy: Policy, number: int) -> None:
    """Make a policy what it was in a version, but for its name. Raises NotFound."""
    version = get_version(session, policy, number)
    secrets = _opened(session, version)
    for name in FIELDS:
        if name != "name" and name in version.document:
            setattr(policy, name, version.document[name])
    seal_hooks(session, policy, secrets["hooks"])
    seal_passwords(session, policy, {int(place): word for place, word in secrets["passwords"].items()})


def forget(session: Session, policy: Policy) -> None:
    """Let no host refer to a version of a policy that is about to go."""
    mine = select(PolicyVersion.id).where(PolicyVersion.policy_id == policy.id)
    session.execute(update(Host).where(Host.applied_version_id.in_(mine)).values(applied_version_id=None))


def _carry_forward(session: Session, made: PolicyVersion, secrets: Secrets) -> None:
    mine = select(PolicyVersion.id).where(
        PolicyVersion.policy_id == made.policy_id, PolicyVersion.id != made.id
    )
    query = select(Host.applied_version_id).where(Host.applied_version_id.in_(mine)).distinct()
    for version_id in list(session.scalars(query)):
        other = session.get_one(PolicyVersion, version_id)
        if _on_hosts(other.document) == _on_hosts(made.document) and _opened(session, other) == secrets:
            same = update(Host).where(Host.applied_version_id == version_id)
            session.execute(same.values(applied_version_id=made.id))


def _on_hosts(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in NOT_ON_HOSTS}


def _secrets(session: Session, policy: Policy) -> Secrets:
    passwords = {str(place): word for place, word in database_passwords(session, policy).items()}
    return {"hooks": hooks_of(session, policy), "passwords": passwords}


def _opened(session: Session, version: PolicyVersion) -> Secrets:
    if version.secrets is None:
        return {"hooks": {name: [] for name in NO_HOOKS}, "passwords": {}}
    place = ("policy_versions", version.id, "secrets")
    opened: Secrets = json.loads(unseal_for(session, version.tenant_id, place, version.secrets))
    return opened


def _seal(session: Session, policy: Policy, column: str, value: Any) -> bytes:
    place: tuple[str, uuid.UUID, str] = ("policies", policy.id, column)
    return seal_for(session, policy.tenant_id, place, json.dumps(value).encode())
