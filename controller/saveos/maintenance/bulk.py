"""One action for many hosts: what hosts/bulk.py changes, the policy, or a job of an operation."""

import uuid

from sqlalchemy import select
from sqlalchemy.orm import Session

from saveos.accounts.access import Actor
from saveos.core.errors import Forbidden, Invalid, NotFound
from saveos.hosts import bulk
from saveos.hosts.bulk import Chosen, Outcome
from saveos.hosts.models import Host
from saveos.jobs.models import Job
from saveos.jobs.service import describe
from saveos.maintenance import service
from saveos.maintenance.operations import Operation
from saveos.maintenance.schemas import BulkIn, BulkOut, BulkRefusal, Targets
from saveos.policies import service as policies


def apply(session: Session, actor: Actor, asked: BulkIn, *, trigger: str) -> BulkOut:
    """Do one thing to many hosts and say what became of them; a dry run changes nothing.

    Raises Invalid with the field for what cannot be, Forbidden without the right that the action needs.
    """
    operation = _permitted(actor, asked)
    refs = asked.hosts if asked.filter is None else None
    filters = asked.filter.model_dump(exclude_none=True) if asked.filter else None
    hosts = bulk.choose(session, actor.tenant_id, refs, filters)
    savepoint = session.begin_nested()
    outcome, job = _do(session, actor, asked, hosts, operation, trigger=trigger)
    out = BulkOut(
        action=asked.action,
        dry_run=asked.dry_run,
        matched=len(hosts),
        changed=len(outcome.change),
        unchanged=outcome.unchanged,
        refused=[BulkRefusal(**each) for each in bulk.summary(outcome)],
        hosts=[host.name for host in outcome.change[: bulk.NAMED]],
        job=describe(job) if job and not asked.dry_run else None,
    )
    if asked.dry_run:
        savepoint.rollback()
        session.info.pop("topics", None)  # nothing changed, so nobody is told
    else:
        savepoint.commit()
    return out


def _permitted(actor: Actor, asked: BulkIn) -> Operation | None:
    if asked.action != "operation":
        if not actor.may("hosts:write"):
            raise Forbidden("this needs the right hosts:write: ask an admin for it, or use another token")
        return None
    try:
        operation = service.get_operation(asked.operation or "")
    except NotFound as error:
        raise Invalid(error.detail, field="operation") from error
    service.check_right(actor, operation, asked.parameters)
    return operation


def _do(
    session: Session,
    actor: Actor,
    asked: BulkIn,
    hosts: list[Chosen],
    operation: Operation | None,
    *,
    trigger: str,
) -> tuple[Outcome, Job | None]:
    tenant = actor.tenant_id
    if operation is not None:
        return _start(session, actor, asked, hosts, operation, trigger=trigger)
    if asked.action in ("pause", "resume"):
        return bulk.set_paused(session, tenant, hosts, asked.action == "pause"), None
    if asked.action in ("add_tags", "remove_tags"):
        return bulk.change_tags(session, tenant, hosts, asked.tags, asked.action == "add_tags"), None
    if asked.action in ("add_group", "remove_group"):
        return bulk.change_members(session, tenant, hosts, asked.groups, asked.action == "add_group"), None
    if asked.action == "decommission":
        return bulk.take_out(session, tenant, hosts), None
    ref = asked.policy if asked.action == "policy" else None
    return _assign(session, tenant, hosts, ref), None


def _assign(session: Session, tenant_id: uuid.UUID, hosts: list[Chosen], ref: str | None) -> Outcome:
    """Let hosts choose a policy themselves, or without one follow their groups and the default."""
    policy = None
    if ref:
        try:
            policy = policies.get_policy(session, tenant_id, ref)
        except NotFound as error:
            raise Invalid(error.detail, field="policy") from error
    wanted = policy.id if policy else None
    outcome = Outcome()
    for host in hosts:
        if host.state == "decommissioned":
            outcome.refuse(host, "was taken out: add it again first")
        elif not host.is_agent:
            outcome.refuse(host, "is no agent, so no policy is for it")
        elif host.own_policy_id == wanted:
            outcome.unchanged += 1
        else:
            outcome.change.append(host)
    policies.assign_many(session, tenant_id, [host.id for host in outcome.change], policy)
    return outcome


def _start(
    session: Session,
    actor: Actor,
    asked: BulkIn,
    hosts: list[Chosen],
    operation: Operation,
    *,
    trigger: str,
) -> tuple[Outcome, Job | None]:
    """Queue one job for the hosts that the operation can run on."""
    outcome, able = Outcome(), []
    rows = {host.id: host for host in _rows(session, hosts)}
    for host in hosts:
        if fault := service.fault(operation, rows[host.id]):
            outcome.refuse(host, fault)
        else:
            outcome.change.append(host)
            able.append(rows[host.id])
    if not able:
        service.check_request(operation, asked.mode, asked.parameters)
        return outcome, None
    job = service.start(
        session,
        actor.tenant_id,
        operation.name,
        Targets(hosts=[host.name for host in able]),
        mode=asked.mode,
        parameters=asked.parameters,
        requested_by=actor.name,
        trigger=trigger,
        chosen=able,
    )
    return outcome, job


def _rows(session: Session, hosts: list[Chosen]) -> list[Host]:
    found: list[Host] = []
    for ids in bulk.parts([host.id for host in hosts]):
        found += session.scalars(select(Host).where(Host.id.in_(ids)))
    return found
