"""Verbs of groups."""

import uuid
from collections.abc import Callable, Collection, Sequence

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from saveos.core.database import lookup, touch
from saveos.core.errors import Conflict, Invalid, NotFound
from saveos.hosts.models import Group, GroupMember, Host

# Called with session, tenant and hosts (None: all) after memberships changed: groups may say which policy holds
on_change: list[Callable[[Session, uuid.UUID, Sequence[uuid.UUID] | None], object]] = []
# Called with session, group and the name that it is about to get (None: it goes): some know groups by name
on_name: list[Callable[[Session, Group, str | None], object]] = []


def changed(session: Session, tenant_id: uuid.UUID, host_ids: Sequence[uuid.UUID] | None = None) -> None:
    """Say that hosts' groups changed, to what stands higher on the ladder."""
    session.flush()
    for tell in on_change:
        tell(session, tenant_id, host_ids)
    touch(session, tenant_id, "hosts")


def get_group(session: Session, tenant_id: uuid.UUID, ref: str) -> Group:
    """Return a group by id or name. Raises NotFound."""
    group = lookup(session, select(Group).where(Group.tenant_id == tenant_id), Group, ref)
    if group is None:
        raise NotFound(f"there is no group {ref[:63]}: see GET /api/v1/groups")
    return group


def list_groups(
    session: Session, tenant_id: uuid.UUID, after: str | None, limit: int
) -> list[tuple[Group, int]]:
    """Return up to `limit` groups by name, with the number of their hosts."""
    members = select(func.count()).where(GroupMember.group_id == Group.id).correlate(Group).scalar_subquery()
    query = select(Group, members).where(Group.tenant_id == tenant_id).order_by(Group.name).limit(limit)
    rows = session.execute(query.where(Group.name > after) if after else query)
    return [(group, count) for group, count in rows]


def create_group(session: Session, tenant_id: uuid.UUID, name: str) -> Group:
    """Make an empty group. Raises Conflict on a taken name."""
    _refuse_taken(session, tenant_id, name)
    group = Group(tenant_id=tenant_id, name=name)
    session.add(group)
    session.flush()
    return group


def rename_group(session: Session, group: Group, name: str) -> None:
    """Give a group another name. Raises Conflict on a taken one."""
    if name != group.name:
        _refuse_taken(session, group.tenant_id, name)
        for tell in on_name:
            tell(session, group, name)
        group.name = name
        changed(session, group.tenant_id)


def delete_group(session: Session, group: Group) -> None:
    """Delete a group; its hosts stay. Raises Conflict where a channel tells of its hosts alone."""
    for tell in on_name:
        tell(session, group, None)
    session.delete(group)
    changed(session, group.tenant_id)


def set_members(session: Session, group: Group, hosts: Sequence[Host]) -> None:
    """Make these hosts the group's members."""
    session.execute(delete(GroupMember).where(GroupMember.group_id == group.id))
    session.add_all(GroupMember(group_id=group.id, host_id=host.id) for host in hosts)
    changed(session, group.tenant_id)


def add_members(session: Session, group: Group, hosts: Sequence[Host]) -> None:
    """Put hosts into a group; those that are in it stay."""
    mine = select(GroupMember.host_id).where(GroupMember.group_id == group.id)
    known = set(session.scalars(mine))
    session.add_all(GroupMember(group_id=group.id, host_id=host.id) for host in hosts if host.id not in known)
    changed(session, group.tenant_id)


def remove_members(session: Session, group: Group, hosts: Sequence[Host]) -> None:
    """Take hosts out of a group; those that are not in it do not matter."""
    ids = [host.id for host in hosts]
    for start in range(0, len(ids), 500):
        part = GroupMember.host_id.in_(ids[start : start + 500])
        session.execute(delete(GroupMember).where(GroupMember.group_id == group.id, part))
    changed(session, group.tenant_id)


def find_groups(session: Session, tenant_id: uuid.UUID, names: Collection[str]) -> list[Group]:
    """Return the groups with these names, by name. Raises Invalid naming those that do not exist."""
    query = select(Group).where(Group.tenant_id == tenant_id, Group.name.in_(names)).order_by(Group.name)
    found = list(session.scalars(query))
    missing = sorted(set(names) - {group.name for group in found})
    if missing:
        raise Invalid(
            f"there is no group {', '.join(missing[:5])}: make it first with POST /api/v1/groups",
            field="groups",
        )
    return found


def set_groups(session: Session, host: Host, names: Collection[str]) -> None:
    """Make a host a member of these groups only. Raises Invalid on a group that does not exist."""
    found = find_groups(session, host.tenant_id, names)
    session.execute(delete(GroupMember).where(GroupMember.host_id == host.id))
    session.add_all(GroupMember(group_id=group.id, host_id=host.id) for group in found)
    changed(session, host.tenant_id, [host.id])


def group_names(session: Session, host_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, list[str]]:
    """Return the groups of hosts, sorted by name."""
    names: dict[uuid.UUID, list[str]] = {}
    for start in range(0, len(host_ids), 500):
        query = (
            select(GroupMember.host_id, Group.name)
            .join(Group, Group.id == GroupMember.group_id)
            .where(GroupMember.host_id.in_(host_ids[start : start + 500]))
            .order_by(Group.name)
        )
        for host_id, name in session.execute(query):
            names.setdefault(host_id, []).append(name)
    return names


def group_hosts(session: Session, group: Group) -> list[Host]:
    """Return a group's hosts by name, without those taken out."""
    query = (
        select(Host)
        .join(GroupMember, GroupMember.host_id == Host.id)
        .where(GroupMember.group_id == group.id, Host.state != "decommissioned")
        .order_by(Host.name)
    )
    return list(session.scalars(query))


def _refuse_taken(session: Session, tenant_id: uuid.UUID, name: str) -> None:
    if session.scalar(select(Group.id).where(Group.tenant_id == tenant_id, Group.name == name)):
        raise Conflict(f"there is a group {name} already: choose another name", field="name")
