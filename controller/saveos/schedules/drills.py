"""Starts the drills that policies ask for: every so many days after a host's last one."""

import logging
import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from saveos.alerts.service import open_alert, resolve_alert
from saveos.core.clock import now
from saveos.core.database import Database, apart
from saveos.core.errors import Problem
from saveos.hosts.models import Host
from saveos.maintenance import service as maintenance
from saveos.maintenance.schemas import Targets
from saveos.policies.models import Policy
from saveos.schedules.service import RULE

AGAIN = timedelta(days=1)  # a drill that told nothing is asked for again
AT_ONCE = 500  # hosts; the others at the next look

log = logging.getLogger(__name__)


def fire_drills(database: Database, at: datetime | None = None) -> int:
    """Start drills due at `at` (now): a job for a policy's hosts, on a sandbox one a host; return how many."""
    at = at or now()
    with database.session() as session:
        if session.scalar(select(Host.id).where(*_due(at)).limit(1)) is None:
            return 0
    with database.session(writes=True) as session:
        query = select(Host).where(*_due(at)).order_by(Host.drill_due_at).limit(AT_ONCE)
        hosts = session.scalars(query.with_for_update(skip_locked=True, of=Host)).all()
        by_policy: dict[uuid.UUID | None, list[Host]] = {}
        for host in hosts:
            host.drill_due_at = at + AGAIN  # a drill that is told puts it further away
            by_policy.setdefault(host.policy_id, []).append(host)
        started: list[int] = []

        def start(policy_id: uuid.UUID | None, mine: Sequence[Host]) -> None:
            started.append(_start(session, session.get_one(Policy, policy_id), mine))

        for each, mine in by_policy.items():
            apart(session, f"the drills of policy {each}", partial(start, each, mine))
        return sum(started)


def _due(at: datetime) -> tuple[Any, ...]:
    return (Host.drill_due_at <= at, Host.state == "enrolled", Host.is_agent, Host.last_backup_at.is_not(None))


def _start(session: Session, policy: Policy, hosts: Sequence[Host]) -> int:
    """Start a policy's drills; what cannot be started opens an alert."""
    operation, cause = maintenance.get_operation("drill"), f"policy:{policy.id}"
    able = [host for host in hosts if not maintenance.fault(operation, host)]
    started, faults = 0, []
    for chosen, sandbox in _jobs(policy, able):
        try:
            with session.begin_nested():
                maintenance.start(
                    session,
                    policy.tenant_id,
                    operation.name,
                    Targets(hosts=[host.name for host in chosen]),
                    parameters={"sample": policy.drill_sample, "sandbox": sandbox},
                    requested_by=f"policy {policy.name}",
                    trigger="schedule",
                    chosen=chosen,
                )
            started += 1
        except Problem as problem:
            faults.append(f"{', '.join(host.name for host in chosen[:3])}: {problem.detail}")
    if faults:
        summary = f"The policy {policy.name} could not start its drill: {'; '.join(faults[:3])}"
        open_alert(session, policy.tenant_id, RULE, cause, summary)
    elif started:
        resolve_alert(
            session, policy.tenant_id, RULE, cause, f"The policy {policy.name} started its drills again."
        )
    return started


def _jobs(policy: Policy, hosts: Sequence[Host]) -> Iterable[tuple[list[Host], str]]:
    """Yield the hosts of each job, with its sandbox; the sandbox itself is drilled where it is."""
    local = [host for host in hosts if policy.drill_sandbox in ("", host.name)]
    if local:
        yield local, ""
    for host in hosts:
        if host not in local:
            yield [host], policy.drill_sandbox
