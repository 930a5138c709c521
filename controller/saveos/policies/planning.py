"""When policies run: their next runs, and how the fleet's starts spread over a day."""

import uuid
from collections import Counter
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from saveos.core.clock import now
from saveos.core.cron import next_runs
from saveos.hosts.models import Host
from saveos.policies.models import Policy
from saveos.policies.schemas import Load, PlannedRun, PreviewIn, PreviewOut, RunsOut

HALF_HOUR = timedelta(minutes=30)
BUCKETS = 48
MOST_STARTS = 3 * 1440  # of one schedule in a day and the longest jitter: every minute


def runs(session: Session, policy: Policy, count: int, at: datetime | None = None) -> RunsOut:
    """Return the next runs of a policy."""
    items = planned(policy.schedule, policy.zone, policy.jitter_minutes, count, at or now())
    hosts = _hosts(session, policy.tenant_id)[policy.id]
    return RunsOut(policy=policy.name, schedule=policy.schedule, zone=policy.zone, hosts=hosts, items=items)


def preview(
    session: Session, tenant_id: uuid.UUID, asked: PreviewIn, policy: Policy | None, at: datetime | None = None
) -> PreviewOut:
    """Return the next runs of a schedule, and the fleet's load were it `policy`'s (else no host's)."""
    at = at or now()
    counts = _hosts(session, tenant_id)
    mine = counts.pop(policy.id, 0) if policy else 0
    items = planned(asked.schedule, asked.zone, asked.jitter_minutes, asked.count, at)
    begin = at.replace(minute=0, second=0, microsecond=0)
    others: list[float] = [0.0] * BUCKETS
    for each in session.scalars(
        select(Policy).where(Policy.tenant_id == tenant_id, Policy.id.in_(list(counts)))
    ):
        _add(others, begin, each, counts[each.id])
    own: list[float] = [0.0] * BUCKETS
    _add(own, begin, asked, mine)
    load = [
        Load(
            at=begin + HALF_HOUR * place, hosts=round(others[place] + own[place], 1), mine=round(own[place], 1)
        )
        for place in range(BUCKETS)
    ]
    return PreviewOut(schedule=asked.schedule, zone=asked.zone, hosts=mine, items=items, load=load)


def planned(schedule: str, zone: str, jitter_minutes: int, count: int, at: datetime) -> list[PlannedRun]:
    """Return the next runs of a schedule, each with the latest start of a host."""
    jitter, place = timedelta(minutes=jitter_minutes), ZoneInfo(zone)
    return [
        PlannedRun(at=run, local=run.astimezone(place).isoformat(timespec="minutes"), latest=run + jitter)
        for run in next_runs(schedule, at, zone, count)
    ]


def _add(load: list[float], begin: datetime, plan: Policy | PreviewIn, hosts: int) -> None:
    """Add a policy's starts to the load of a day, each spread evenly over its jitter."""
    end = begin + HALF_HOUR * BUCKETS
    first = begin - timedelta(minutes=plan.jitter_minutes, seconds=1)
    width = max(plan.jitter_minutes, 1)
    for run in next_runs(plan.schedule, first, plan.zone, MOST_STARTS):
        if run >= end or not hosts:
            break
        start = (run - begin).total_seconds() / 60
        for place in range(max(0, int(start // 30)), min(BUCKETS, int((start + width) // 30) + 1)):
            overlap = min(start + width, (place + 1) * 30) - max(start, place * 30)
            load[place] += hosts * max(0.0, overlap) / width


def _hosts(session: Session, tenant_id: uuid.UUID) -> Counter[uuid.UUID]:
    query = select(Host.policy_id, func.count()).where(
        Host.tenant_id == tenant_id,
        Host.is_agent,
        Host.state.in_(("pending", "enrolled")),
        Host.policy_id.is_not(None),
    )
    rows = session.execute(query.group_by(Host.policy_id))
    return Counter({policy_id: count for policy_id, count in rows if policy_id is not None})
