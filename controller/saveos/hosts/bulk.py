"""One change for many hosts, set by set: 10,000 hosts cost a few dozen statements.

What concerns policies and jobs too, and the route, stand higher on the ladder: maintenance/bulk.py.
"""

import uuid
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, delete, insert, select, update
from sqlalchemy.orm import Session

from saveos.accounts.service import revoke_agent_tokens
from saveos.core.database import touch
from saveos.hosts.groups import changed, find_groups
from saveos.hosts.models import GroupMember, Host
from saveos.hosts.service import PART, host_filters, resolve

MAX_TAGS = 50
NAMED = 20  # hosts that an outcome names

T = TypeVar("T")


@dataclass(frozen=True)
class Chosen:
    """What a bulk change needs to know of a host."""

    id: uuid.UUID
    name: str
    state: str
    tags: Sequence[str]
    is_agent: bool
    own_policy_id: uuid.UUID | None


@dataclass
class Outcome:
    """What became of the chosen hosts: those to change or changed, and why others were refused."""

    change: list[Chosen] = field(default_factory=list)
    unchanged: int = 0
    refused: dict[str, list[str]] = field(default_factory=dict)  # reason: names

    def refuse(self, host: Chosen, reason: str) -> None:
        """Note that a host is left as it is, and why."""
        self.refused.setdefault(reason, []).append(host.name)


def choose(
    session: Session, tenant_id: uuid.UUID, refs: Collection[str] | None, filters: dict[str, Any] | None
) -> list[Chosen]:
    """Return the hosts that ids or names name, else those that a list's filters find, by name.

    Raises Invalid naming the unknown.
    """
    if refs is None:
        return _select(session, host_filters(tenant_id, **(filters or {})))
    return resolve(refs, lambda named: _select(session, [Host.tenant_id == tenant_id, named]), "hosts")


def set_paused(session: Session, tenant_id: uuid.UUID, hosts: Sequence[Chosen], paused: bool) -> Outcome:
    """Pause or resume hosts; `change` lists those whose state changes."""
    outcome, target = Outcome(), "paused" if paused else "enrolled"
    for host in hosts:
        if host.state == "decommissioned":
            outcome.refuse(host, "was taken out: add it again first")
        elif host.state == "pending":
            outcome.refuse(host, "is not provisioned yet: provision it first")
        elif host.state == target:
            outcome.unchanged += 1
        else:
            outcome.change.append(host)
    for ids in parts([host.id for host in outcome.change]):
        session.execute(update(Host).where(Host.id.in_(ids)).values(state=target))
    return _told(session, tenant_id, outcome)


def change_tags(
    session: Session, tenant_id: uuid.UUID, hosts: Sequence[Chosen], tags: Collection[str], add: bool
) -> Outcome:
    """Give hosts tags, or take them away."""
    outcome, rows, wanted = Outcome(), [], set(tags)
    for host in hosts:
        had = set(host.tags)
        has = had | wanted if add else had - wanted
        if host.state == "decommissioned":
            outcome.refuse(host, "was taken out: add it again first")
        elif has == had:
            outcome.unchanged += 1
        elif len(has) > MAX_TAGS:
            outcome.refuse(host, f"would have more than {MAX_TAGS} tags: remove some first")
        else:
            outcome.change.append(host)
            rows.append({"id": host.id, "tags": sorted(has)})
    if rows:
        session.execute(update(Host), rows)
    return _told(session, tenant_id, outcome)


def change_members(
    session: Session, tenant_id: uuid.UUID, hosts: Sequence[Chosen], names: Collection[str], add: bool
) -> Outcome:
    """Put hosts into groups, or take them out of them. Raises Invalid on a group that does not exist."""
    groups = find_groups(session, tenant_id, names)
    query = select(GroupMember.host_id, GroupMember.group_id)
    known = query.where(GroupMember.group_id.in_([group.id for group in groups]))
    members = {(host_id, group_id) for host_id, group_id in session.execute(known)}
    outcome, rows = Outcome(), []
    for host in hosts:
        changes = [group.id for group in groups if ((host.id, group.id) in members) is not add]
        if host.state == "decommissioned":
            outcome.refuse(host, "was taken out: add it again first")
        elif changes:
            outcome.change.append(host)
            rows += [{"group_id": group_id, "host_id": host.id} for group_id in changes]
        else:
            outcome.unchanged += 1
    if add and rows:
        session.execute(insert(GroupMember), rows)
    elif rows:
        for ids in parts([host.id for host in outcome.change]):
            mine = GroupMember.host_id.in_(ids), GroupMember.group_id.in_([group.id for group in groups])
            session.execute(delete(GroupMember).where(*mine))
    if outcome.change:
        changed(session, tenant_id, [host.id for host in outcome.change])
    return _told(session, tenant_id, outcome)


def take_out(session: Session, tenant_id: uuid.UUID, hosts: Sequence[Chosen]) -> Outcome:
    """Take hosts out of care: their tokens end, their archives and repositories stay."""
    outcome = Outcome()
    for host in hosts:
        if host.state == "decommissioned":
            outcome.unchanged += 1
        else:
            outcome.change.append(host)
    for ids in parts([host.id for host in outcome.change]):
        session.execute(update(Host).where(Host.id.in_(ids)).values(state="decommissioned", due_at=None))
        revoke_agent_tokens(session, tenant_id, ids)
    return _told(session, tenant_id, outcome)


def summary(outcome: Outcome) -> list[dict[str, Any]]:
    """Return why hosts were refused: reason, how many, and the first names, the most frequent first."""
    counts = Counter({reason: len(names) for reason, names in outcome.refused.items()})
    return [
        {"reason": reason, "count": count, "hosts": outcome.refused[reason][:NAMED]}
        for reason, count in counts.most_common()
    ]


def _select(session: Session, where: Sequence[ColumnElement[bool]]) -> list[Chosen]:
    columns = (Host.id, Host.name, Host.state, Host.tags, Host.is_agent, Host.own_policy_id)
    return [Chosen(*row) for row in session.execute(select(*columns).where(*where).order_by(Host.name))]


def parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Return items in parts that a statement can name."""
    return (items[start : start + PART] for start in range(0, len(items), PART))


def _told(session: Session, tenant_id: uuid.UUID, outcome: Outcome) -> Outcome:
    if outcome.change:
        session.expire_all()
        touch(session, tenant_id, "hosts")
    return outcome
