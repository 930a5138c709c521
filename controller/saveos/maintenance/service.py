"""Verbs of maintenance: start an operation on hosts, retry its job."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.orm import Session

from saveos.accounts.access import Actor
from saveos.core.errors import Conflict, Forbidden, Invalid, NotFound, Problem
from saveos.hosts.models import Group, GroupMember, Host
from saveos.hosts.service import find_hosts, get_host
from saveos.jobs import reports
from saveos.jobs import service as jobs
from saveos.jobs.models import Job, JobHost
from saveos.jobs.schemas import ReportIn
from saveos.jobs.service import Member
from saveos.maintenance import care, findings, guard, rekey
from saveos.maintenance.models import Finding
from saveos.maintenance.operations import OPERATIONS, Operation
from saveos.maintenance.schemas import FindingFilter, Targets
from saveos.repositories.service import of_hosts
from saveos.restores import sandbox
from saveos.restores import service as restores
from saveos.restores.schemas import Selection

DRILL = "drill"
MOST_FIXED, MOST_JOBS = 10_000, 200  # findings mended, and jobs made, by one request


def get_operation(name: str) -> Operation:
    """Return an operation. Raises NotFound naming those there are."""
    if name not in OPERATIONS:
        raise NotFound(f"there is no operation {name[:40]}: there are {', '.join(OPERATIONS)}")
    return OPERATIONS[name]


def check_right(actor: Actor, operation: Operation, parameters: Mapping[str, Any] | None = None) -> None:
    """Raise Forbidden when the actor may not run the operation with these parameters."""
    needed = [operation.right, *care.needed_rights(operation.name, parameters or {})]
    if operation.name == DRILL and (parameters or {}).get("sandbox"):
        needed.append(restores.OTHER_HOST)
    if operation.name == "restore":
        needed += restores.needed_rights(bool((parameters or {}).get("in_place")))
    for right in needed:
        if not actor.may(right):
            raise Forbidden(f"this needs the right {right}: ask an admin for it, or use another token")


def check_request(operation: Operation, mode: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return an operation's parameters, checked. Raises Invalid with the field, also on a mode it has not."""
    if mode == "check" and not operation.supports_check:
        raise Invalid(f"{operation.name} has no check mode: use mode run", field="mode")
    return _parameters(operation, parameters)


def start(
    session: Session,
    tenant_id: uuid.UUID,
    name: str,
    targets: Targets,
    *,
    mode: str = "run",
    parameters: Mapping[str, Any] | None = None,
    requested_by: str = "",
    trigger: str = "api",
    idempotency_key: str | None = None,
    chosen: Sequence[Host] | None = None,
) -> Job:
    """Queue an operation on hosts, or return the job that the same request made before.

    `chosen` are the hosts of the targets where the caller knows them already, from `able`. Raises NotFound
    for no such operation, Invalid with the field for what cannot be, Conflict on an Idempotency-Key of
    another request. Nothing is made then.
    """
    operation = get_operation(name)
    values = check_request(operation, mode, parameters or {})
    hosts = resolve(session, tenant_id, operation, targets) if chosen is None else list(chosen)
    if name == "restore":
        caller = {"requested_by": requested_by, "trigger": trigger, "idempotency_key": idempotency_key}
        return _restore(session, tenant_id, hosts, values, preview=mode == "check", **caller)
    if operation.instead:
        raise Invalid(operation.instead)
    if name == "undo":
        guard.check_undo(session, hosts, values)
    asked = jobs.fingerprint(name, targets.model_dump(), mode, values)
    if job := jobs.known(session, tenant_id, idempotency_key, asked):
        return job
    if name == rekey.NAME and mode == "run":
        rekey.begin(session, tenant_id, values)
    members = [Member(host.id, host.name) for host in hosts]
    stores = of_hosts(session, tenant_id, [host.id for host in hosts])
    resources = [f"host:{host.id}" for host in hosts]
    resources += [f"repository:{store.id}" for each in stores.values() for store in each]
    trial = None
    if name == DRILL and values["sandbox"]:
        trial = sandbox.prepare(session, tenant_id, hosts, values["sandbox"])
        members.append(Member(trial.sandbox.id, trial.sandbox.name))
        values |= trial.parameters
    if operation.servers:
        servers = _servers(session, tenant_id, hosts, stores.values())
        members += [Member(server.id, server.name, is_target=False) for server in servers]
        resources += [f"host:{server.id}" for server in servers]
    job = jobs.enqueue(
        session,
        tenant_id,
        operation=name,
        members=members,
        resources=resources if operation.exclusive else trial.resources if trial else [],
        targets=targets.model_dump(exclude_defaults=True),
        parameters=values,
        timeout=operation.timeout,
        mode=mode,
        trigger=trigger,
        requested_by=requested_by,
    )
    kept = jobs.remember(session, job, idempotency_key, asked)
    if trial and kept is job:
        sandbox.record(session, job, trial)
    return kept


def retry(
    session: Session, actor: Actor, job_id: uuid.UUID, *, trigger: str, idempotency_key: str | None = None
) -> Job:
    """Queue a final job again for its hosts that did not succeed, or return what the same request made before.

    Raises NotFound, Conflict, and Forbidden as the operation itself would.
    """
    before = jobs.get_job(session, actor.tenant_id, job_id)
    operation = OPERATIONS.get(before.operation)  # None: it was run by hand, and is refused below
    if (operation and operation.instead) or before.parameters.get("transfer"):
        raise Conflict("a transfer is not repeated by itself: ask for the restore, download or drill anew")
    if operation:
        check_right(actor, operation, before.parameters)
    asked = jobs.fingerprint("retry", job_id)
    if job := jobs.known(session, actor.tenant_id, idempotency_key, asked):
        return job
    made = jobs.retry(session, actor.tenant_id, job_id, who=actor.name, trigger=trigger)
    job = jobs.remember(session, made, idempotency_key, asked)
    if job is made:
        restores.repeat(session, before, job)
    return job


def take_over(session: Session, operation: Operation, job: Job, row: JobHost) -> None:
    """Let the operation take over a host's result; one that cannot be used is that host's error only."""
    if operation.on_result is None:
        return
    try:
        with session.begin_nested():
            operation.on_result(session, job, row)
    except (Problem, IntegrityError, DataError) as error:
        session.refresh(row)
        row.error = (error.detail if isinstance(error, Problem) else "its result could not be stored")[:2000]


def take_report(session: Session, tenant_id: uuid.UUID, report: ReportIn, who: str) -> Job:
    """Make a job of a run by hand; what it found is kept as that of any other run. Raises Invalid."""
    job = reports.record(session, tenant_id, report, who)
    operation = OPERATIONS.get(job.operation)
    if operation and operation.tells_findings:
        # What a report says beside findings is no host's word
        found = replace(operation, on_result=partial(findings.record, forget=False))
        rows = jobs.list_hosts(session, job, limit=len(report.hosts))
        for row in rows:
            take_over(session, found, job, row)
        findings.forget_old(session, job.operation, [row.host_id for row in rows if row.host_id])
    return job


def fix(
    session: Session, actor: Actor, ids: Sequence[uuid.UUID], *, mode: str = "run", trigger: str = "api"
) -> list[Job]:
    """Queue what mends findings: one job for all hosts on which the same is to be mended.

    Raises Invalid where one is unknown, resolved, or not for the operation to mend; Forbidden as the
    operation itself would. Nothing is made then.
    """
    found = findings.find(session, actor.tenant_id, list(dict.fromkeys(ids)))
    for each in found:
        if not each.fixable or not get_operation(each.operation).fix_parameter:
            raise Invalid(
                f"{each.operation} cannot mend {each.kind} by itself: {each.fix[:300]}", field="findings"
            )
    return _mend(session, actor, found, mode=mode, trigger=trigger)


def fixable(session: Session, tenant_id: uuid.UUID, asked: FindingFilter) -> tuple[list[Finding], list[str]]:
    """Return the open findings of a filter that can be mended now, and why hosts with others are left out.

    Raises NotFound for no such host, Invalid where there are too many for one request.
    """
    chosen = asked.model_dump(exclude={"host"})
    host_id = get_host(session, tenant_id, asked.host).id if asked.host else None
    rows = findings.list_fixable(session, tenant_id, **chosen, host_id=host_id, limit=MOST_FIXED + 1)
    if len(rows) > MOST_FIXED:
        raise Invalid(f"these are more than {MOST_FIXED} findings: choose a kind, a group or a host")
    found: list[Finding] = []
    left_out: dict[str, None] = {}
    for finding, host in rows:
        operation = OPERATIONS.get(finding.operation)
        if operation is None or not operation.fix_parameter:
            continue
        if why := fault(operation, host):
            left_out[f"{host.name} {why}"] = None
        else:
            found.append(finding)
    return found, list(left_out)


def fix_matching(
    session: Session,
    actor: Actor,
    asked: FindingFilter,
    *,
    expected: int | None = None,
    mode: str = "run",
    trigger: str = "api",
) -> list[Job]:
    """Queue what mends all findings of a filter that can be mended; see `fix`.

    Raises Conflict where they are not as many as `expected`, Invalid where there are none or too many.
    """
    found, _ = fixable(session, actor.tenant_id, asked)
    if expected is not None and len(found) != expected:
        raise Conflict(f"{len(found)} findings match by now, not {expected}: look again", field="expected")
    if not found:
        raise Invalid(
            "no finding that matches can be mended by itself: each says what to do by hand", field="matching"
        )
    return _mend(session, actor, found, mode=mode, trigger=trigger)


def _mend(session: Session, actor: Actor, found: Sequence[Finding], *, mode: str, trigger: str) -> list[Job]:
    made = []
    wanted = findings.by_fix(found)
    if len(wanted) > MOST_JOBS:
        raise Invalid(
            f"this needs {len(wanted)} jobs, as much differs between hosts: choose a kind, a group or a host"
        )
    for (name, references), hosts in wanted.items():
        operation = get_operation(name)
        check_right(actor, operation)
        made.append(
            start(
                session,
                actor.tenant_id,
                name,
                Targets(hosts=[str(host) for host in hosts]),
                mode=mode,
                parameters={operation.fix_parameter: list(references)},
                requested_by=actor.name,
                trigger=trigger,
            )
        )
    return made


def _restore(
    session: Session,
    tenant_id: uuid.UUID,
    hosts: Sequence[Host],
    values: dict[str, Any],
    **caller: Any,
) -> Job:
    """Start a restore through its own feature, which keeps what was asked."""
    if len(hosts) != 1:
        raise Invalid("a restore is for one host: name exactly one", field="targets.hosts")
    archive = values["archive"]
    chosen = Selection.model_validate({name: value for name, value in values.items() if name != "archive"})
    host = str(hosts[0].id)
    _, job = restores.request(session, tenant_id, archive=archive, host=host, selection=chosen, **caller)
    return job


def resolve(session: Session, tenant_id: uuid.UUID, operation: Operation, targets: Targets) -> list[Host]:
    """Return the hosts that targets name and the operation can run on, by name. Raises Invalid."""
    if not (targets.hosts or targets.groups or targets.all):
        raise Invalid("name hosts or groups, or say all", field="targets")
    named = find_hosts(session, tenant_id, targets.hosts, "targets.hosts") if targets.hosts else []
    for host in named:
        if why := fault(operation, host):
            raise Invalid(f"{host.name} {why}", field="targets.hosts")
    chosen = {host.id: host for host in named}
    query = select(Host).where(Host.tenant_id == tenant_id)
    if targets.all:
        chosen |= {host.id: host for host in session.scalars(query) if not fault(operation, host)}
    for group in targets.groups:
        members = _group(session, tenant_id, group)
        found = session.scalars(query.where(Host.id.in_(members)))
        chosen |= {host.id: host for host in found if not fault(operation, host)}
    if not chosen:
        raise Invalid(f"none of these hosts can run {operation.name}: provision one first", field="targets")
    return sorted(chosen.values(), key=lambda host: host.name)


def check_targets(session: Session, tenant_id: uuid.UUID, targets: Targets) -> None:
    """Raise Invalid when targets name nothing, or what does not exist; hosts may be pending or paused."""
    if not (targets.hosts or targets.groups or targets.all):
        raise Invalid("name hosts or groups, or say all", field="targets")
    find_hosts(session, tenant_id, targets.hosts, "targets.hosts")
    for group in targets.groups:
        _group(session, tenant_id, group)


def able(
    session: Session, tenant_id: uuid.UUID, operation: Operation, targets: Targets
) -> tuple[list[Host], list[str]]:
    """Return the hosts of targets that the operation can run on now, and why named ones are left out.

    For who cannot ask a person: a host that is gone or paused does not hold up the others.
    """
    chosen: dict[uuid.UUID, Host] = {}
    left_out: list[str] = []
    for ref in targets.hosts:
        try:
            host = get_host(session, tenant_id, ref)
        except NotFound:
            left_out.append(f"{ref} is gone")
            continue
        if why := fault(operation, host):
            left_out.append(f"{host.name} {why}")
        else:
            chosen[host.id] = host
    query = select(Host).where(Host.tenant_id == tenant_id)
    wanted = [query] if targets.all else []
    for group in targets.groups:
        try:
            wanted.append(query.where(Host.id.in_(_group(session, tenant_id, group))))
        except Invalid:
            left_out.append(f"the group {group} is gone")
    for each in wanted:
        chosen |= {host.id: host for host in session.scalars(each) if not fault(operation, host)}
    return sorted(chosen.values(), key=lambda host: host.name), left_out


def fault(operation: Operation, host: Host) -> str:
    """Return why an operation cannot run on a host, and what to do; empty when it can."""
    if host.state == "decommissioned":
        return "was taken out: add it again with POST /api/v1/hosts"
    if host.state == "paused":
        return "is paused: resume it with PATCH /api/v1/hosts"
    suits = {"agents": host.is_agent, "servers": host.is_storage_server}.get(operation.needs, True)
    if not suits:
        what = "agent" if operation.needs == "agents" else "storage server"
        return f"is no {what}, so {operation.name} is not for it"
    if not operation.configures and host.state == "pending":
        return "is not provisioned yet: run provision on it first"
    if host.connection == "ssh" and not host.ssh_host_keys:
        return "has no SSH host key: scan it with POST /api/v1/hosts/scan, compare, and PATCH ssh_host_keys"
    return ""


def _group(session: Session, tenant_id: uuid.UUID, name: str) -> Any:
    group = session.scalar(select(Group.id).where(Group.tenant_id == tenant_id, Group.name == name))
    if group is None:
        raise Invalid(f"there is no group {name[:100]}: see GET /api/v1/groups", field="targets.groups")
    return select(GroupMember.host_id).where(GroupMember.group_id == group)


def _servers(session: Session, tenant_id: uuid.UUID, hosts: Sequence[Host], stores: Any) -> list[Host]:
    """Return hosts' storage servers that are no targets themselves. Raises Invalid on one without host key."""
    wanted = {store.server_id for each in stores for store in each if store.server_id}
    wanted -= {host.id for host in hosts}
    query = select(Host).where(Host.tenant_id == tenant_id, Host.id.in_(wanted)).order_by(Host.name)
    servers = list(session.scalars(query))
    for server in servers:
        if server.connection == "ssh" and not server.ssh_host_keys:
            raise Invalid(f"the storage server {server.name} has no SSH host key: PATCH ssh_host_keys")
    return servers


def _parameters(operation: Operation, parameters: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return operation.parameters.model_validate(dict(parameters)).model_dump(mode="json")
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(("parameters", *(str(part) for part in first["loc"])))
        message = first["msg"].removeprefix("Value error, ")
        raise Invalid(f"{field}: {message[:1].lower()}{message[1:]}", field=field) from None
