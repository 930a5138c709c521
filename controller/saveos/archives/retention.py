"""Retention of real archives: what a policy would prune, and what guards are told so that they can judge.

A guard works out for itself what retention may have dropped; the controller only says which archives
hosts told of, and by which rules and zone each host prunes.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any, NamedTuple

from sqlalchemy import Row, or_, select
from sqlalchemy.orm import Session

from saveos.alerts.models import Alert
from saveos.archives.models import Archive
from saveos.archives.schemas import Fate, Simulated, SimulationIn, SimulationOut, SimulationTotals
from saveos.core.clock import now
from saveos.core.cron import next_runs
from saveos.core.errors import Invalid
from saveos.hosts.models import Host
from saveos.hosts.service import find_hosts
from saveos.policies.models import Policy, PolicyVersion
from saveos.policies.retention import MOST_STEPS, Rules, expiries, kept_now, utc
from saveos.repositories.guard import approvals
from saveos.repositories.models import Approval, FormerId, Repository
from saveos.repositories.service import of_hosts

GONE_FOR = timedelta(days=60)  # so long an archive that is gone is told to guards
CHECK_DAYS = 7
# Alerts that say that something is wrong with what is kept; that space runs out must not hold up freeing some.
HOLDING = ("failed", "mismatch", "repository_damaged", "drill_failed", "check_failed", "clock")


class Plan(NamedTuple):
    """By what a host prunes: its retention, and the zone whose days count."""

    retention: dict[str, Any]
    zone: str


def simulate(  # noqa: PLR0917
    session: Session,
    policy: Policy,
    asked: SimulationIn,
    after: str | None = None,
    limit: int = 20,
    at: datetime | None = None,
) -> tuple[SimulationOut, list[Host]]:
    """Return what a retention keeps and prunes of the archives of a policy's hosts, and `limit + 1` hosts.

    Without a retention, the policy's own. With `days`, also when each archive would go, were backups
    to go on by the schedule. Raises Invalid for a host that has another policy, or a unit Borg lacks.
    """
    at = at or now()
    given = asked.retention.model_dump(exclude_none=True) if asked.retention else policy.retention
    try:
        Rules(given)
    except ValueError as error:
        raise Invalid(str(error), field="retention.keep_within") from error
    hosts = _hosts(session, policy, asked, after, limit)
    page = hosts[:limit]
    runs = _runs(policy.schedule, policy.zone, at, at + timedelta(days=asked.days)) if asked.days else []
    items: list[Simulated] = []
    stores = of_hosts(session, policy.tenant_id, [host.id for host in page])
    found = _living(session, [store.id for each in stores.values() for store in each])
    for host in page:
        before = host.variables.get("agent_retention") or policy.retention
        for store in stores.get(host.id, []):
            fates = _fates(found.get(store.id, []), given, before, policy.zone, at, runs)
            items.append(Simulated(host=host.name, repository_id=store.id, archives=fates))
    out = SimulationOut(
        policy=policy.name,
        retention=given,
        before=policy.retention,
        zone=policy.zone,
        items=items,
        totals=_totals([fate for item in items for fate in item.archives]),
    )
    return out, hosts


def _hosts(session: Session, policy: Policy, asked: SimulationIn, after: str | None, limit: int) -> list[Host]:
    query = select(Host).where(
        Host.tenant_id == policy.tenant_id,
        Host.policy_id == policy.id,
        Host.is_agent,
        Host.state != "decommissioned",
    )
    if asked.hosts:
        named = find_hosts(session, policy.tenant_id, asked.hosts, "hosts")
        for host in named:
            if host.policy_id != policy.id:
                raise Invalid(f"{host.name} has another policy: simulate that one", field="hosts")
        query = query.where(Host.id.in_([host.id for host in named]))
    if after:
        query = query.where(Host.name > after)
    return list(session.scalars(query.order_by(Host.name).limit(limit + 1)))


def _living(session: Session, repository_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, list[Archive]]:
    found: dict[uuid.UUID, list[Archive]] = {}
    for start in range(0, len(repository_ids), 500):
        query = select(Archive).where(
            Archive.repository_id.in_(repository_ids[start : start + 500]), Archive.gone_at.is_(None)
        )
        for archive in session.scalars(query.order_by(Archive.started_at.desc(), Archive.id.desc())):
            found.setdefault(archive.repository_id, []).append(archive)
    return found


def _fates(  # noqa: PLR0917
    archives: Sequence[Archive],
    given: Mapping[str, Any],
    before: Mapping[str, Any],
    zone: str,
    at: datetime,
    runs: Sequence[datetime],
) -> list[Fate]:
    times = {archive.id: archive.started_at for archive in archives if not archive.protected}
    kept, was = kept_now(times, given, zone, at), kept_now(times, before, zone, at)
    gone = expiries(times, given, zone, at, runs) if runs else {}
    return [
        Fate(
            id=archive.id,
            name=archive.name,
            started_at=archive.started_at,
            size=archive.deduplicated_size,
            kept_by="protected" if archive.id not in times else kept.get(archive.id, ""),
            kept_before="protected" if archive.id not in times else was.get(archive.id, ""),
            expires_at=gone.get(archive.id) or (at if archive.id in times and archive.id not in kept else None),
        )
        for archive in archives
    ]


def _totals(fates: Sequence[Fate]) -> SimulationTotals:
    pruned = [fate for fate in fates if not fate.kept_by]
    return SimulationTotals(
        archives=len(fates),
        kept=len(fates) - len(pruned),
        pruned=len(pruned),
        newly_pruned=sum(1 for fate in pruned if fate.kept_before),
        bytes=sum(fate.size or 0 for fate in pruned),
    )


def _runs(schedule: str, zone: str, after: datetime, until: datetime) -> list[datetime]:
    return list(takewhile(lambda run: run <= until, next_runs(schedule, after, zone, MOST_STEPS)))


# ---- what a guard is told ---------------------------------------------------------------------------------


def told(session: Session, server: Host, at: datetime | None = None) -> str:
    """Return the controller's word to a storage server's guard, as JSON: one text, since there is much of it.

    Of each repository the archives that live by the host's word or are gone lately, by what the host
    prunes, approvals, and open alerts. Nothing in it is secret.
    """
    at = at or now()
    query = (
        select(Repository, Host)
        .join(Host, Host.id == Repository.host_id)
        .where(Repository.tenant_id == server.tenant_id, Repository.server_id == server.id)
        .order_by(Repository.id)
    )
    rows = session.execute(query).all()
    ids = [repository.id for repository, _ in rows]
    plans = _plans(session, server.tenant_id, [host for _, host in rows])
    archives, alerts = _known(session, ids, at), _alerts(session, server.tenant_id)
    approved, former = approvals(session, ids, valid_at=at), _former(session, server.tenant_id, at)
    repositories = {
        str(repository.id): _told_of(
            archives.get(repository.id, []),
            former.get(repository.id, []),
            plans[host.id],
            approved.get(repository.id, []),
        )
        | {"open_alerts": sorted(alerts.get(host.id, set()))}
        for repository, host in rows
    }
    asked = server.variables.get("server_guard_hold_days")
    hold = asked if isinstance(asked, int) and not isinstance(asked, bool) else None
    # To the microsecond: a guard asks whether the word is newer than the repository's last commit.
    word = {"schema": 1, "at": at.isoformat(), "hold_days": hold, "repositories": repositories}
    return json.dumps(word, separators=(",", ":"), ensure_ascii=True)


def _told_of(
    archives: Sequence[Row[Any]], former: Sequence[FormerId], plan: Plan, approved: Sequence[Approval]
) -> dict[str, Any]:
    ended = [
        {
            "id": each.borg_id,
            "name": each.name,
            "at": utc(each.started_at),
            "requested": True,
            "protected": False,
        }
        for each in former
    ]
    return {
        "archives": ended
        + [
            {
                "id": archive.borg_id,
                "name": archive.name,
                "at": utc(archive.started_at),
                "files": archive.files,
                "size": archive.original_size,
                "requested": archive.removed_why == "request",
                "protected": archive.protected,
            }
            for archive in archives
        ],
        "retention": plan.retention,
        "zone": plan.zone,
        "check_days": CHECK_DAYS,
        "approvals": [
            {
                "id": str(each.id),
                "reason": each.reason,
                "digest": each.digest,
                "until": utc(each.until),
                "by": each.created_by,
            }
            for each in approved
        ],
    }


def _plans(session: Session, tenant_id: uuid.UUID, hosts: Sequence[Host]) -> dict[uuid.UUID, Plan]:
    """Return by what each host prunes: what it was last provisioned with, else what its policy says now."""
    policies = {each.id: each for each in session.scalars(select(Policy).where(Policy.tenant_id == tenant_id))}
    default = next((each for each in policies.values() if each.is_default), None)
    applied = sorted({host.applied_version_id for host in hosts if host.applied_version_id})
    documents: dict[uuid.UUID | None, dict[str, Any]] = {}
    for start in range(0, len(applied), 500):
        query = select(PolicyVersion.id, PolicyVersion.document)
        query = query.where(PolicyVersion.id.in_(applied[start : start + 500]))
        documents.update(session.execute(query).all())
    found: dict[uuid.UUID, Plan] = {}
    for host in hosts:
        policy = (policies.get(host.policy_id) if host.policy_id else None) or default
        present = {"retention": policy.retention, "zone": policy.zone} if policy else {}
        known = present | documents.get(host.applied_version_id, {})
        own = host.variables.get("agent_retention")
        retention = own if isinstance(own, dict) else known.get("retention") or {}
        found[host.id] = Plan(
            retention, str(host.variables.get("agent_schedule_zone") or known.get("zone") or "UTC")
        )
    return found


def _known(
    session: Session, repository_ids: Sequence[uuid.UUID], at: datetime
) -> dict[uuid.UUID, list[Row[Any]]]:
    """Return columns of archives, not objects: a server can have tens of thousands."""
    found: dict[uuid.UUID, list[Row[Any]]] = {}
    lately = or_(Archive.gone_at.is_(None), Archive.gone_at > at - GONE_FOR)
    columns: tuple[Any, ...] = (
        Archive.repository_id,
        Archive.borg_id,
        Archive.name,
        Archive.started_at,
        Archive.files,
        Archive.original_size,
        Archive.removed_why,
        Archive.protected,
    )
    for start in range(0, len(repository_ids), 500):
        query = select(*columns).where(Archive.repository_id.in_(repository_ids[start : start + 500]), lately)
        for archive in session.execute(query.order_by(Archive.started_at)):
            found.setdefault(archive.repository_id, []).append(archive)
    return found


def _former(session: Session, tenant_id: uuid.UUID, at: datetime) -> dict[uuid.UUID, list[FormerId]]:
    """Return ids that archives had until a person had them renamed, lately."""
    query = select(FormerId).where(FormerId.tenant_id == tenant_id, FormerId.ended_at > at - GONE_FOR)
    found: dict[uuid.UUID, list[FormerId]] = {}
    for each in session.scalars(query):
        found.setdefault(each.repository_id, []).append(each)
    return found


def note_former_id(session: Session, archive: Archive) -> None:
    """Note that a person had an archive renamed, which ends its id; twice is once. Call before it changes."""
    if session.get(FormerId, (archive.repository_id, archive.borg_id)) is None:
        fields = {"name": archive.name, "started_at": archive.started_at, "tenant_id": archive.tenant_id}
        session.add(FormerId(repository_id=archive.repository_id, borg_id=archive.borg_id, **fields))


def _alerts(session: Session, tenant_id: uuid.UUID) -> dict[uuid.UUID, set[str]]:
    query = select(Alert.host_id, Alert.rule).where(
        Alert.tenant_id == tenant_id, Alert.state != "resolved", Alert.rule.in_(HOLDING)
    )
    found: dict[uuid.UUID, set[str]] = {}
    for host_id, rule in session.execute(query):
        if host_id is not None:
            found.setdefault(host_id, set()).add(rule)
    return found
