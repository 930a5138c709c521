"""Verbs of hosts: find, list, add, change, take out; what runs say about them."""

import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from sqlalchemy import ColumnElement, String, and_, case, cast, func, or_, select
from sqlalchemy.orm import Session, joinedload

from saveos.accounts.service import revoke_agent_tokens
from saveos.core.clock import now
from saveos.core.cron import next_run
from saveos.core.database import as_id, lookup, touch
from saveos.core.errors import Conflict, Invalid, NotFound
from saveos.core.pagination import decode_text
from saveos.hosts.groups import group_names, set_groups
from saveos.hosts.models import Group, GroupMember, Host
from saveos.hosts.schemas import HostIn, HostOut, HostPatch, Proof
from saveos.hosts.ssh_keys import parse_host_keys
from saveos.hosts.standing import Standing

SILENT_AFTER = timedelta(days=1)
PROVEN_FOR = timedelta(days=14)  # drills are weekly: the second that proves nothing is one too many
HEARTBEAT_AFTER = timedelta(hours=1)  # a host that beats every five minutes is silent after so long
PART = 500  # ids in a statement


class Identified(Protocol):
    """A host, or some columns of one."""

    @property
    def id(self) -> uuid.UUID: ...

    @property
    def name(self) -> str: ...


Known = TypeVar("Known", bound=Identified)


def protection(host: Host, at: datetime) -> str:
    """Return a host's protection at a time; `protection_sql` says the same to the database."""
    if not host.is_agent or host.state in ("paused", "decommissioned"):
        return "none"
    overdue = host.due_at is not None and host.due_at < at
    if _is_silent(host, at):
        return "silent"
    if host.last_run_state == "failed":
        return "failing"
    if host.last_backup_at is None:
        return "never"
    return "late" if overdue else "protected"


def _is_silent(host: Host, at: datetime) -> bool:
    """Whether nothing was heard: of one that sends heartbeats for an hour, else since its backup was due."""
    if host.heartbeat_at is not None and host.heartbeat_at < at - HEARTBEAT_AFTER:
        return True
    if host.due_at is None or host.due_at >= at - SILENT_AFTER:
        return False
    return host.seen_at is None or host.seen_at < host.due_at


def protection_sql(at: datetime) -> ColumnElement[str]:
    """Return `protection` as an SQL expression over Host."""
    unseen = or_(Host.seen_at.is_(None), Host.seen_at < Host.due_at)
    mute = Host.heartbeat_at < at - HEARTBEAT_AFTER
    return case(
        (or_(~Host.is_agent, Host.state.in_(("paused", "decommissioned"))), "none"),
        (or_(mute, and_(Host.due_at < at - SILENT_AFTER, unseen)), "silent"),
        (Host.last_run_state == "failed", "failing"),
        (Host.last_backup_at.is_(None), "never"),
        (Host.due_at < at, "late"),
        else_="protected",
    )


def count_protection(session: Session, tenant_id: uuid.UUID) -> dict[str, int]:
    """Return how many hosts there are of each protection, without those taken out."""
    kind = protection_sql(now()).label("kind")
    query = (
        select(kind, func.count())
        .where(Host.tenant_id == tenant_id, Host.state != "decommissioned")
        .group_by(kind)
    )
    return dict(session.execute(query).all())


def count_proofs(session: Session, tenant_id: uuid.UUID) -> dict[str, int]:
    """Return how many hosts there are of each proof, without those taken out."""
    proof = proof_sql(now()).label("proof")
    query = select(proof, func.count()).where(Host.tenant_id == tenant_id, Host.state != "decommissioned")
    return dict(session.execute(query.group_by(proof)).all())


def get_host(session: Session, tenant_id: uuid.UUID, ref: str | uuid.UUID) -> Host:
    """Return a host by id or name, with its policy loaded. Raises NotFound."""
    query = select(Host).options(joinedload(Host.policy)).where(Host.tenant_id == tenant_id)
    host = lookup(session, query, Host, ref.strip().lower() if isinstance(ref, str) else ref)
    if host is None:
        raise NotFound(f"there is no host {str(ref)[:253]}: see GET /api/v1/hosts")
    return host


def find_hosts(session: Session, tenant_id: uuid.UUID, refs: Collection[str], field: str) -> list[Host]:
    """Return the hosts that ids or names name, sorted by name. Raises Invalid naming the unknown."""
    query = select(Host).where(Host.tenant_id == tenant_id, Host.state != "decommissioned")
    return resolve(refs, lambda named: session.scalars(query.where(named)), field)


def resolve(
    refs: Collection[str], fetch: Callable[[ColumnElement[bool]], Iterable[Known]], field: str
) -> list[Known]:
    """Return what `fetch` gives for the hosts that ids or names name, sorted by name.

    Raises Invalid naming the unknown.
    """
    identities = [identity for ref in refs if (identity := as_id(ref))]
    names = sorted({ref.strip().lower() for ref in refs if "\x00" not in ref})
    found: dict[uuid.UUID, Known] = {}
    for column, keys in ((Host.id, identities), (Host.name, names)):
        for start in range(0, len(keys), PART):
            found.update({host.id: host for host in fetch(column.in_(keys[start : start + PART]))})
    known = {host.name for host in found.values()}
    missing = sorted({ref for ref in refs if ref.strip().lower() not in known and as_id(ref) not in found})
    if missing:
        raise Invalid(f"there is no host {', '.join(missing[:5])}: see GET /api/v1/hosts", field=field)
    return sorted(found.values(), key=lambda host: host.name)


def list_hosts(
    session: Session, tenant_id: uuid.UUID, *, cursor: str | None = None, limit: int, **filters: str
) -> list[Host]:
    """Return up to `limit` hosts after `cursor`, by name, with their policies loaded; see `host_filters`."""
    matching = host_filters(tenant_id, **filters)
    query = select(Host).options(joinedload(Host.policy)).where(*matching).order_by(Host.name)
    after = decode_text(cursor)
    if after:
        query = query.where(Host.name > after)
    return list(session.scalars(query.limit(limit)))


def count_hosts(session: Session, tenant_id: uuid.UUID, **filters: str) -> int:
    """Return how many hosts match; the filters are those of `host_filters`."""
    counted = select(func.count()).select_from(Host)  # not of ids, which the covering indexes do not hold
    return session.scalar(counted.where(*host_filters(tenant_id, **filters))) or 0


def host_filters(
    tenant_id: uuid.UUID,
    *,
    q: str = "",
    state: str = "",
    protection: str = "",
    group: str = "",
    tag: str = "",
    policy: str = "",
    drift: str = "",
    proof: str = "",
) -> list[ColumnElement[bool]]:
    """Return the conditions over Host of a list's filters; an empty filter asks for nothing."""
    found: list[ColumnElement[bool]] = [Host.tenant_id == tenant_id]
    found.append(Host.state == state if state else Host.state != "decommissioned")
    if q:
        pattern = f"%{_like(q.strip().lower())}%"
        found.append(
            or_(
                Host.name.like(pattern, escape="\\"),
                func.lower(Host.address).like(pattern, escape="\\"),
                func.lower(cast(Host.tags, String)).like(pattern, escape="\\"),
            )
        )
    if protection:
        found.append(protection_sql(now()) == protection)
    if drift:
        differs = or_(drift_sql(), Host.drifted_since.is_not(None))
        found.append(differs if drift == "true" else ~differs)
    if proof:
        found.append(proof_sql(now()) == proof)
    if tag:
        found.append(cast(Host.tags, String).like(f'%"{_like(tag)}"%', escape="\\"))
    if group:
        members = (
            select(GroupMember.host_id)
            .join(Group, Group.id == GroupMember.group_id)
            .where(Group.tenant_id == tenant_id, Group.name == group)
        )
        found.append(Host.id.in_(members))
    if policy:
        found.append(Host.policy.has(name=policy))
    return found


def describe_hosts(session: Session, hosts: Sequence[Host]) -> list[HostOut]:
    """Return hosts as they travel; two queries whatever their number."""
    at = now()
    groups = group_names(session, [host.id for host in hosts])
    return [_describe(host, groups.get(host.id, []), at) for host in hosts]


def add_host(session: Session, tenant_id: uuid.UUID, asked: HostIn) -> Host:
    """Add a host; one that was taken out comes back with its archives. Raises Conflict on a taken name.

    Policy and repository are set by `policies.fleet.add_host`, which stands higher on the ladder.
    """
    host = session.scalar(select(Host).where(Host.tenant_id == tenant_id, Host.name == asked.name))
    if host is not None and host.state != "decommissioned":
        raise Conflict(f"there is a host {asked.name} already: choose another name, or change it", field="name")
    if not asked.is_agent and not asked.is_storage_server:
        raise Invalid("the host must be an agent, a storage server, or both", field="is_agent")
    host = host or Host(tenant_id=tenant_id, name=asked.name)
    host.address = asked.address or asked.name
    host.port, host.user, host.connection = asked.port, asked.user, asked.connection
    host.is_agent, host.is_storage_server = asked.is_agent, asked.is_storage_server
    host.tags, host.variables, host.state = sorted(set(asked.tags)), asked.variables, "pending"
    host.ssh_host_keys = parse_host_keys(asked.ssh_host_keys, {host.name, host.address})
    session.add(host)
    session.flush()
    set_groups(session, host, asked.groups)
    touch(session, tenant_id, "hosts")
    return host


def change_host(session: Session, host: Host, asked: HostPatch) -> None:
    """Change what is named in `asked`, but not the policy. Raises Conflict, Invalid."""
    given = asked.model_dump(exclude_unset=True, exclude_none=True)
    groups, keys = given.pop("groups", None), given.pop("ssh_host_keys", None)
    given.pop("policy", None)
    if host.state == "decommissioned":
        raise Conflict(f"{host.name} was taken out: add it again with POST /api/v1/hosts")
    if "state" in given and host.state == "pending":
        raise Conflict(f"{host.name} is not provisioned yet: POST /api/v1/maintenance/provision", field="state")
    if "name" in given and given["name"] != host.name:
        taken = select(Host.id).where(Host.tenant_id == host.tenant_id, Host.name == given["name"])
        if session.scalar(taken):
            raise Conflict(f"there is a host {given['name']} already: choose another name", field="name")
    for key, value in given.items():
        setattr(host, key, value)
    if not host.is_agent and not host.is_storage_server:
        raise Invalid("the host must be an agent, a storage server, or both", field="is_agent")
    if keys is not None:
        host.ssh_host_keys = parse_host_keys(keys, {host.name, host.address})
    if groups is not None:
        set_groups(session, host, groups)
    session.flush()
    touch(session, host.tenant_id, "hosts")


def take_out(session: Session, host: Host) -> None:
    """Take a host out of care: its tokens end, its archives and repositories stay."""
    host.state, host.due_at = "decommissioned", None
    revoke_agent_tokens(session, host.tenant_id, [host.id])
    touch(session, host.tenant_id, "hosts")


def record_backup(
    host: Host | Standing,
    *,
    state: str,
    finished_at: datetime,
    size: int | None,
    succeeded: bool,
    due_at: datetime | None,
) -> None:
    """Take over what a backup run says; an older run than the last one known changes nothing.

    Times in the future are cut to now: a wrong clock on a host must not hide a missing backup.
    """
    finished_at = min(finished_at, now())
    if host.last_run_at is None or finished_at >= host.last_run_at:
        host.last_run_state, host.last_run_at = state, finished_at
    if succeeded and (host.last_backup_at is None or finished_at >= host.last_backup_at):
        host.last_backup_at, host.due_at = finished_at, due_at
        host.last_size = host.last_size if size is None else size


def record_seen(host: Host | Standing) -> None:
    """Note that a host was heard of just now."""
    host.seen_at = now()


def record_heartbeat(
    host: Host | Standing, kept: dict[str, Any], *, at: datetime, skew: float, disk_free_share: float | None
) -> None:
    """Take over a heartbeat that came at `at`; `skew` is how many seconds the host's clock is ahead."""
    host.seen_at = host.heartbeat_at = at
    host.heartbeat, host.clock_skew, host.disk_free_share = kept, skew, disk_free_share


def proof_of(host: Host, at: datetime) -> Proof:
    """Whether drills prove that a host's archives can be restored; `none` where it makes none."""
    if not host.is_agent or host.state == "decommissioned":
        return "none"
    if host.last_drill_state == "failed":
        return "failed"
    if host.last_proven_at is None:
        return "never"
    return "old" if (host.proof_ends_at or host.last_proven_at + PROVEN_FOR) < at else "proven"


def proof_sql(at: datetime) -> ColumnElement[str]:
    """Return `proof_of` as an SQL expression over Host."""
    return case(
        (or_(~Host.is_agent, Host.state == "decommissioned"), "none"),
        (Host.last_drill_state == "failed", "failed"),
        (Host.last_proven_at.is_(None), "never"),
        (proof_ended(at), "old"),
        else_="proven",
    )


def proof_ended(at: datetime) -> ColumnElement[bool]:
    """Return whether a host's last proof is too old by its policy, or without a word there by PROVEN_FOR."""
    by_itself = and_(Host.proof_ends_at.is_(None), Host.last_proven_at < at - PROVEN_FOR)
    return or_(Host.proof_ends_at < at, by_itself)


def has_drift(host: Host) -> bool:
    """Whether a host was provisioned with another version of its policy, which must be loaded."""
    policy: Any = host.policy
    provisioned = host.is_agent and host.state in ("enrolled", "paused")
    return policy is not None and provisioned and host.applied_version_id != policy.current_version_id


def drift_sql() -> ColumnElement[bool]:
    """Return `has_drift` as an SQL expression over Host."""
    current = Host.policy.property.mapper.class_.current_version_id
    differs = Host.policy.has(current.is_distinct_from(Host.applied_version_id))
    return and_(Host.is_agent, Host.state.in_(("enrolled", "paused")), differs)


def _describe(host: Host, groups: list[str], at: datetime) -> HostOut:
    policy: Any = host.policy
    runs = policy is not None and host.is_agent and host.state in ("pending", "enrolled")
    columns = {name: getattr(host, name) for name in HostOut.model_fields if name in Host.__mapper__.columns}
    return HostOut(
        **columns,
        groups=groups,
        policy_name=policy.name if policy else None,
        drift=has_drift(host) or host.drifted_since is not None,
        protection=protection(host, at),
        proof=proof_of(host, at),
        next_run_at=next_run(policy.schedule, at, policy.zone) if runs else None,
    )


def _like(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
