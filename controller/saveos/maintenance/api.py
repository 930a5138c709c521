"""Routes of operations: the table, starting one, its history; retry of a job."""

import uuid
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from saveos.accounts.access import Actor, describe, require
from saveos.accounts.service import record
from saveos.archives import service as archives
from saveos.core.database import write_lock
from saveos.core.errors import Forbidden
from saveos.core.inputs import Text
from saveos.core.pagination import DEFAULT_LIMIT, Cursor, Limit, Page, decode_id, decode_text, split
from saveos.core.security import token_hash
from saveos.core.web import MAX_BODY, SessionDep, StateDep, raw_body, read_body, unpack
from saveos.hosts.models import Host
from saveos.hosts.service import get_host
from saveos.jobs import service as jobs
from saveos.jobs.doors import door
from saveos.jobs.schemas import JobOut, ReportIn
from saveos.maintenance import bulk, care, drift, findings, rebuilds, service
from saveos.maintenance import secrets as held
from saveos.maintenance.drift import DriftOut
from saveos.maintenance.inventory import inventory
from saveos.maintenance.operations import OPERATIONS
from saveos.maintenance.rebuilds import RebuildIn, RebuildOut
from saveos.maintenance.schemas import (
    BackupIn,
    BulkIn,
    BulkOut,
    CareIn,
    FindingOut,
    FixIn,
    FixOut,
    OperationOut,
    ResultDetail,
    ResultOut,
    StartIn,
    Targets,
)
from saveos.maintenance.secrets import ControllerSecret, EscrowIn, EscrowKept, SecretOut, TokenTold

router = APIRouter()
MAX_REPORT = 32 * 1024 * 1024  # bytes of a report when unpacked: some thousand hosts with their findings

Reader = Annotated[Actor, Depends(require("jobs:read"))]
IdempotencyKey = Annotated[str | None, Header(description="The same key never makes a second job")]


@router.get("/maintenance", tags=["maintenance"])
def list_operations(_actor: Reader) -> Page[OperationOut]:
    """List the operations, with the JSON schemas of their parameters."""
    return Page(
        items=[
            OperationOut(
                name=each.name,
                summary=each.summary,
                supports_check=each.supports_check,
                idempotent=each.idempotent,
                needs=each.needs,
                right=each.right,
                timeout=each.timeout,
                tells_findings=each.tells_findings,
                fix_parameter=each.fix_parameter,
                parameters=each.parameters.model_json_schema(),
            )
            for each in OPERATIONS.values()
        ]
    )


@router.get("/maintenance/results", tags=["maintenance"])
def list_results(
    session: SessionDep,
    actor: Reader,
    operation: Text = "",
    host: Text = "",
    job: uuid.UUID | None = None,
    mode: Literal["", "run", "check"] = "",
    state: Literal["", "ok", "warning", "critical"] = "",
    cursor: Cursor = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[ResultOut]:
    """List what operations came to on hosts, newest first; the last 100 per host and operation are kept."""
    rows = findings.list_results(
        session,
        actor.tenant_id,
        operation=operation,
        host_id=get_host(session, actor.tenant_id, host).id if host else None,
        job_id=job,
        mode=mode,
        state=state,
        before=decode_id(cursor),
        limit=limit + 1,
    )
    page, following = split(rows, limit, lambda row: [str(row[0].id)])
    return Page(items=[ResultOut.of(result, name) for result, name in page], next=following)


@router.get("/maintenance/results/{result_id}", tags=["maintenance"])
def get_result(session: SessionDep, actor: Reader, result_id: uuid.UUID) -> ResultDetail:
    """Show a result with its findings, and what is new, gone and the same since the result before."""
    result, host = findings.get_result(session, actor.tenant_id, result_id)
    return ResultDetail.compared(result, host, findings.before(session, result))


@router.get("/maintenance/findings", tags=["maintenance"])
def list_findings(
    session: SessionDep,
    actor: Reader,
    operation: Text = "",
    severity: Literal["", "critical", "warning", "info"] = "",
    kind: Text = "",
    host: Text = "",
    group: Text = "",
    open: bool = True,
    cursor: Cursor = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[FindingOut]:
    """List findings, the worst first; with open=false those of the last 90 days that are resolved, too."""
    rows = findings.list_findings(
        session,
        actor.tenant_id,
        operation=operation,
        severity=severity,
        kind=kind,
        host_id=get_host(session, actor.tenant_id, host).id if host else None,
        group=group,
        open_only=open,
        after=findings.decode_place(cursor),
        limit=limit + 1,
    )
    page, following = split(rows, limit, lambda row: [row[0].rank, str(row[0].id)])
    return Page(items=[FindingOut.of(finding, name) for finding, name in page], next=following)


@router.post("/maintenance/findings/fix", status_code=202, tags=["maintenance"])
def fix_findings(
    request: Request,
    session: SessionDep,
    actor: Annotated[Actor, Depends(require("jobs:write"))],
    body: FixIn,
) -> FixOut:
    """Let operations mend findings, or all of a filter: they run again with what is to mend; 202 with jobs."""
    how: dict[str, Any] = {"mode": body.mode, "trigger": door(request, actor)}
    if body.matching is not None:
        made = service.fix_matching(session, actor, body.matching, expected=body.expected, **how)
        what: Any = body.matching.model_dump(exclude_defaults=True)
    else:
        made, what = service.fix(session, actor, body.findings, **how), len(body.findings)
    describe(session, "findings", mode=body.mode, findings=what, jobs=[str(job.id) for job in made])
    return FixOut(jobs=[jobs.describe(job) for job in made])


@router.get("/maintenance/{operation}", tags=["maintenance"])
def list_operation_jobs(
    session: SessionDep, actor: Reader, operation: str, cursor: Cursor = None, limit: Limit = DEFAULT_LIMIT
) -> Page[JobOut]:
    """List the jobs of an operation, newest first."""
    name = service.get_operation(operation).name
    rows = jobs.list_jobs(session, actor.tenant_id, operation=name, before=decode_id(cursor), limit=limit + 1)
    page, following = split(rows, limit, lambda job: [str(job.id)])
    return Page(items=[jobs.describe(job) for job in page], next=following)


@router.post("/maintenance/{operation}", status_code=202, tags=["maintenance"])
def start_operation(
    request: Request,
    session: SessionDep,
    actor: Annotated[Actor, Depends(require("jobs:write"))],
    operation: str,
    body: StartIn,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> JobOut:
    """Start an operation on hosts; 202 with the job, whose links lead to its log and events."""
    service.check_right(actor, service.get_operation(operation), body.parameters)
    job = service.start(
        session,
        actor.tenant_id,
        operation,
        body.targets,
        mode=body.mode,
        parameters=body.parameters,
        requested_by=actor.name,
        trigger=door(request, actor),
        idempotency_key=idempotency_key,
    )
    describe(session, f"job:{job.id}", operation=operation, mode=body.mode)
    response.headers["Location"] = f"/api/v1/jobs/{job.id}"
    return jobs.describe(job)


@router.post("/archives/{archive_id}/care", status_code=202, tags=["archives"])
def care_for_archive(
    request: Request,
    session: SessionDep,
    actor: Annotated[Actor, Depends(require("archives:write"))],
    archive_id: uuid.UUID,
    body: CareIn,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> JobOut:
    """Protect, unprotect, rename, delete or export an archive; 202 with the job that does it on its host.

    A delete only marks: the space is held until the storage server's gate opens. It needs archives:delete,
    an export restores:write. With `check` nothing changes, and the job says what would.
    """
    service.check_right(actor, OPERATIONS["care"], {"action": body.action})
    archive = archives.get_archive(session, actor.tenant_id, archive_id)
    care.check(archive, body.action)
    job = service.start(
        session,
        actor.tenant_id,
        "care",
        Targets(hosts=[str(archive.host_id)]),
        mode="check" if body.check else "run",
        parameters=care.parameters(archive, body.action, new_name=body.new_name, destination=body.destination),
        requested_by=actor.name,
        trigger=door(request, actor),
        idempotency_key=idempotency_key,
    )
    describe(session, f"archive {archive.name}", action=body.action, check=body.check, job=str(job.id))
    response.headers["Location"] = f"/api/v1/jobs/{job.id}"
    return jobs.describe(job)


@router.post("/backup", status_code=202, tags=["maintenance"])
def back_up(
    request: Request,
    session: SessionDep,
    actor: Annotated[Actor, Depends(require("jobs:write"))],
    body: BackupIn,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> JobOut:
    """Back hosts up now; the short form of POST /maintenance/backup."""
    asked = StartIn(targets=Targets(hosts=body.hosts))
    return start_operation(request, session, actor, "backup", asked, response, idempotency_key)


@router.post("/hosts/bulk", tags=["hosts"])
def change_hosts(
    request: Request,
    session: SessionDep,
    actor: Annotated[Actor, Depends(require("jobs:write"))],
    body: BulkIn,
) -> BulkOut:
    """Do one thing to many hosts: pause, resume, tags, groups, policy, decommission, or an operation.

    An operation is one job and needs its own right; every other action needs hosts:write.
    """
    out = bulk.apply(session, actor, body, trigger=door(request, actor))
    job = {"job": str(out.job.id)} if out.job else {}
    describe(session, "hosts", action=body.action, changed=out.changed, dry_run=body.dry_run, **job)
    return out


@router.get("/inventory", tags=["hosts"])
def get_inventory(
    session: SessionDep,
    state: StateDep,
    actor: Annotated[Actor, Depends(require("hosts:read"))],
    secrets: Annotated[bool, Query(description="With hooks and passwords; needs inventory:secrets")] = False,
) -> dict[str, Any]:
    """Return the fleet as Ansible inventory; the plugin saveos.fleet.controller reads it."""
    if secrets:
        if not actor.may("inventory:secrets"):
            raise Forbidden("this needs the right inventory:secrets: ask an admin for it, or leave out secrets")
        write_lock(session)
        record(session, actor.tenant_id, actor.name, "read inventory", "secrets", address=actor.address)
    return inventory(session, state.settings, actor.tenant_id, secrets=secrets)


async def _report_body(request: Request) -> tuple[bytes, bool]:
    return await read_body(request, MAX_BODY), request.headers.get("content-encoding", "") == "gzip"


def _report(told: Annotated[tuple[bytes, bool], Depends(_report_body)]) -> ReportIn:
    """Read a report outside the event loop: one of a large fleet comes packed."""
    body, packed = told
    try:
        return ReportIn.model_validate_json(unpack(body, MAX_REPORT) if packed else body)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        raise RequestValidationError([fault | {"loc": ("body", *fault["loc"])} for fault in faults]) from error


@router.post("/jobs/reports", status_code=201, tags=["jobs"], openapi_extra=raw_body(ReportIn))
def report_run(
    session: SessionDep,
    actor: Annotated[Actor, Depends(require("jobs:write"))],
    body: Annotated[ReportIn, Depends(_report)],
    response: Response,
) -> JobOut:
    """Take the report of a playbook run by hand, plain or gzip; it becomes a job with trigger `hand`."""
    job = service.take_report(session, actor.tenant_id, body, actor.name)
    describe(session, f"job:{job.id}", operation=job.operation)
    response.headers["Location"] = f"/api/v1/jobs/{job.id}"
    return jobs.describe(job)


@router.post("/jobs/{job_id}/retry", status_code=202, tags=["jobs"])
def retry_job(
    request: Request,
    session: SessionDep,
    actor: Annotated[Actor, Depends(require("jobs:write"))],
    job_id: uuid.UUID,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> JobOut:
    """Run a final job again for the hosts that did not succeed; makes a new job."""
    job = service.retry(session, actor, job_id, trigger=door(request, actor), idempotency_key=idempotency_key)
    describe(session, f"job:{job.id}", operation=job.operation, retry_of=str(job_id))
    response.headers["Location"] = f"/api/v1/jobs/{job.id}"
    return jobs.describe(job)


@router.get("/secrets", tags=["secrets"])
def list_held_secrets(
    session: SessionDep,
    actor: Annotated[Actor, Depends(require("secrets:read", audit=False))],
    kind: Text = "",
    host: Text = "",
    older_than_days: Annotated[int, Query(ge=0, le=36_500)] = 0,
    cursor: Cursor = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[SecretOut]:
    """List the secrets that hosts hold: kinds, ages and who uses them, never a value."""
    rows = held.list_secrets(
        session,
        actor.tenant_id,
        kind=kind,
        host=host,
        older_than_days=older_than_days,
        after=decode_id(cursor),
        limit=limit + 1,
    )
    items, following = split(rows, limit, lambda row: [str(row.id)])
    return Page(items=items, next=following)


@router.get("/secrets/controller", tags=["secrets"])
def list_controller_secrets(
    session: SessionDep,
    state: StateDep,
    actor: Annotated[Actor, Depends(require("secrets:read", audit=False))],
) -> list[ControllerSecret]:
    """List the keys of the controller itself: ages, fingerprints and how to rotate them, never a value."""
    return held.controller_secrets(session, state.settings, actor.tenant_id)


def _agent_host(session: SessionDep, actor: Annotated[Actor, Depends(require("checkins:write"))]) -> Host:
    if actor.host_id is None:
        raise Forbidden("only an agent's token can tell of its host")
    return get_host(session, actor.tenant_id, actor.host_id)


AgentHost = Annotated[Host, Depends(_agent_host)]


@router.post("/agents/escrow", tags=["secrets"])
def take_escrow(session: SessionDep, host: AgentHost, body: EscrowIn) -> EscrowKept:
    """Keep what a host sealed to the recovery key (agent token); the same again changes nothing."""
    return held.keep_escrow(session, host, body)


@router.post("/agents/token", status_code=204, tags=["secrets"])
def take_agent_token(session: SessionDep, request: Request, host: AgentHost, body: TokenTold) -> None:
    """Let a host's new token count beside the one shown (agent token); shown itself, it ends the others."""
    current = token_hash(request.headers["authorization"].partition(" ")[2].strip())
    held.take_token(session, host, current, body)


@router.get("/drift", tags=["maintenance"])
def list_drifted_hosts(
    session: SessionDep,
    actor: Annotated[Actor, Depends(require("hosts:read"))],
    cursor: Cursor = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[DriftOut]:
    """List the hosts that differ from what provisioning would make of them, by name, with the difference."""
    rows = drift.list_drift(session, actor.tenant_id, after=decode_text(cursor), limit=limit + 1)
    items, following = split(rows, limit, lambda row: [row.host])
    return Page(items=items, next=following)


@router.get("/hosts/{host}/drift", tags=["maintenance"])
def get_host_drift(
    session: SessionDep,
    actor: Annotated[Actor, Depends(require("hosts:read"))],
    host: Annotated[str, Path(max_length=253, description="Id or name")],
) -> DriftOut:
    """Show how a host differs from what provisioning would make of it, and since when."""
    return drift.describe(session, get_host(session, actor.tenant_id, host))


@router.get("/drills/rebuilds", tags=["drills"])
def list_rebuilds(
    session: SessionDep,
    actor: Annotated[Actor, Depends(require("restores:read"))],
    host: Annotated[str, Query(max_length=253, description="Id or name of the host that was rebuilt")] = "",
    cursor: Cursor = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[RebuildOut]:
    """List full drills, newest first, with what each step took."""
    rows = rebuilds.list_rebuilds(
        session, actor.tenant_id, host=host, before=decode_id(cursor), limit=limit + 1
    )
    page, following = split(rows, limit, lambda rebuild: [str(rebuild.id)])
    return Page(items=rebuilds.describe(session, page), next=following)


@router.post("/drills/rebuilds", status_code=202, tags=["drills"])
def create_rebuild(
    request: Request,
    response: Response,
    session: SessionDep,
    actor: Annotated[Actor, Depends(require("restores:other_host"))],
    body: RebuildIn,
) -> RebuildOut:
    """Rebuild a host on a sandbox: provision that, bring the newest archive there, compare, and time it.

    Needs jobs:write and restores:write, too. GET /drills/rebuilds/{id} tells how far it is.
    """
    rebuilds.check_rights(actor)
    made = rebuilds.request(
        session, actor.tenant_id, body, requested_by=actor.name, trigger=door(request, actor)
    )
    told = rebuilds.describe(session, [made])[0]
    describe(session, f"rebuild:{made.id}", host=told.host, sandbox=told.sandbox)
    response.headers["Location"] = f"/api/v1/drills/rebuilds/{made.id}"
    return told


@router.get("/drills/rebuilds/{rebuild_id}", tags=["drills"])
def get_rebuild(
    session: SessionDep, actor: Annotated[Actor, Depends(require("restores:read"))], rebuild_id: uuid.UUID
) -> RebuildOut:
    """Show a full drill: its steps, checks and seconds."""
    return rebuilds.describe(session, [rebuilds.get_rebuild(session, actor.tenant_id, rebuild_id)])[0]
