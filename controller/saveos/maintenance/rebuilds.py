"""Rebuilds: full drills that make a host anew on a sandbox, by jobs one after another, checked and timed.

The steps are provision (the sandbox), transfer (the whole newest archive to a directory of its own there)
and health (the sandbox). Rows decide what comes next, so whichever worker looks goes on where a killed one
was, and no step is started twice.
"""

import uuid
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session, aliased

from saveos.accounts.access import Actor
from saveos.accounts.service import check_content
from saveos.alerts.rules import one_line
from saveos.archives.models import Archive
from saveos.archives.service import latest_archive
from saveos.core.clock import now
from saveos.core.database import apart, touch
from saveos.core.errors import Conflict, Forbidden, Invalid, NotFound, Problem
from saveos.core.inputs import RequestModel
from saveos.hosts.models import Host
from saveos.hosts.schemas import Reference
from saveos.hosts.service import get_host
from saveos.jobs.models import FINAL, Job, JobHost
from saveos.maintenance import service
from saveos.maintenance.models import MaintenanceResult, Rebuild
from saveos.maintenance.operations import OPERATIONS
from saveos.maintenance.schemas import Targets
from saveos.restores import service as restores
from saveos.restores.models import Restore
from saveos.restores.schemas import Count, Destination, Failed, Outcome, Selection

TOPIC = "hosts"
STEPS = ("provision", "transfer", "health")  # each the operation of its job
RIGHTS = ("jobs:write", "restores:write", restores.OTHER_HOST)
NAMED = 20  # files that could not be restored, by name
OF_ITS_OWN_BACKUPS = "never-backed-up"  # a sandbox may have none

State = Literal["running", "proven", "failed"]
StepName = Literal["provision", "transfer", "health"]


class RebuildIn(RequestModel):
    """The host whose newest archive is proven, and the other host on which.

    `destination` is a directory on the sandbox that is absent or empty; without it, one below the agent's
    state directory. What was restored stays there for people to look at.
    """

    host: Reference
    sandbox: Reference
    destination: Destination = ""


class Step(BaseModel):
    """A step that ended; `seconds` is from its start to its end, with the time that it waited for its turn."""

    name: StepName
    job_id: uuid.UUID
    state: str = Field(description="The job's state")
    seconds: float


class Check(BaseModel):
    """One thing that was looked at when the data was there."""

    name: Literal["counts", "hashes", "failures", "sandbox"]
    ok: bool
    text: str


class RebuildOut(BaseModel):
    """A full drill of a host on a sandbox."""

    id: uuid.UUID
    host_id: uuid.UUID
    host: str
    sandbox_id: uuid.UUID
    sandbox: str
    archive_id: uuid.UUID
    archive: str
    state: State
    step: StepName | None = Field(description="What goes on now")
    job_id: uuid.UUID | None = Field(description="The job of that step")
    restore_id: uuid.UUID | None
    destination: str = Field(description="Where the data is on the sandbox, once it is there")
    steps: list[Step]
    seconds: float | None = Field(description="From the request to the end of the last step")
    checks: list[Check]
    error: str
    requested_by: str
    created_at: datetime
    finished_at: datetime | None


class Sent(BaseModel):
    """What the archive's host says that it sent."""

    files: Count
    bytes: Count
    failed_total: Count = 0
    failed_files: Annotated[list[Failed], Field(max_length=1000)] = []


def check_rights(actor: Actor) -> None:
    """Raise Forbidden where somebody may not rebuild a host."""
    for right in RIGHTS:
        if not actor.may(right):
            raise Forbidden(f"this needs the right {right}: ask an admin for it, or use another token")


def request(
    session: Session, tenant_id: uuid.UUID, asked: RebuildIn, *, requested_by: str = "", trigger: str = "api"
) -> Rebuild:
    """Begin a full drill. Raises NotFound, Invalid, Conflict, Forbidden; nothing is made then."""
    check_content(session, tenant_id)
    host = get_host(session, tenant_id, asked.host)
    sandbox = get_host(session, tenant_id, asked.sandbox)
    if sandbox.id == host.id:
        raise Invalid(f"{host.name} cannot be its own sandbox: name another host", field="sandbox")
    if host.state != "enrolled":
        raise Conflict(f"{host.name} is {host.state}: provision or resume it first")
    if not sandbox.is_agent:
        raise Invalid(f"{sandbox.name} is no agent: name a host that is one", field="sandbox")
    if why := service.fault(OPERATIONS["provision"], sandbox):
        raise Invalid(f"{sandbox.name} {why}", field="sandbox")
    archive = latest_archive(session, tenant_id, host)
    # Of two requests at once one sees the other
    session.scalar(select(Host.id).where(Host.id == sandbox.id).with_for_update())
    running = select(Rebuild.id).where(Rebuild.sandbox_id == sandbox.id, Rebuild.state == "running")
    if session.scalar(running.limit(1)) is not None:
        raise Conflict(
            f"{sandbox.name} is the sandbox of another rebuild: wait for its end, or name another host"
        )
    rebuild = Rebuild(
        tenant_id=tenant_id,
        host_id=host.id,
        sandbox_id=sandbox.id,
        archive_id=archive.id,
        destination=asked.destination,
        trigger=trigger,
        requested_by=requested_by[:150],
    )
    session.add(rebuild)
    session.flush()
    _queue(session, rebuild, STEPS[0])
    return rebuild


def get_rebuild(session: Session, tenant_id: uuid.UUID, rebuild_id: uuid.UUID) -> Rebuild:
    """Return a rebuild. Raises NotFound."""
    found = session.get(Rebuild, rebuild_id)
    if found is None or found.tenant_id != tenant_id:
        raise NotFound("there is no such rebuild: see GET /api/v1/drills/rebuilds")
    return found


def list_rebuilds(
    session: Session, tenant_id: uuid.UUID, *, host: str = "", before: uuid.UUID | None = None, limit: int
) -> list[Rebuild]:
    """Return up to `limit` rebuilds, newest first; `host` is the one rebuilt. Raises NotFound."""
    query = select(Rebuild).where(Rebuild.tenant_id == tenant_id).order_by(Rebuild.id.desc()).limit(limit)
    if host:
        query = query.where(Rebuild.host_id == get_host(session, tenant_id, host).id)
    return list(session.scalars(query.where(Rebuild.id < before) if before else query))


def describe(session: Session, rebuilds: Sequence[Rebuild]) -> list[RebuildOut]:
    """Return rebuilds as they travel, newest first; one query whatever their number."""
    sandbox = aliased(Host)
    rows = session.execute(
        select(Rebuild, Host.name, sandbox.name, Archive.name)
        .join(Host, Host.id == Rebuild.host_id)
        .join(sandbox, sandbox.id == Rebuild.sandbox_id)
        .join(Archive, Archive.id == Rebuild.archive_id)
        .where(Rebuild.id.in_([each.id for each in rebuilds]))
        .order_by(Rebuild.id.desc())
    )
    same = (
        *("id", "host_id", "sandbox_id", "archive_id", "state", "job_id", "restore_id", "destination"),
        *("steps", "checks", "error", "requested_by", "created_at", "finished_at"),
    )
    return [
        RebuildOut.model_validate(
            {name: getattr(row, name) for name in same}
            | {"host": host, "sandbox": other, "archive": archive}
            | {"step": row.step or None, "seconds": seconds_of(row)}
        )
        for row, host, other, archive in rows
    ]


def seconds_of(rebuild: Rebuild) -> float | None:
    """Return how long a rebuild took in all; None while it goes on."""
    if rebuild.finished_at is None:
        return None
    return round((rebuild.finished_at - rebuild.created_at).total_seconds(), 1)


# ---- what the worker does


def any_to_advance(session: Session) -> bool:
    """Whether `advance` has something to do; takes no lock."""
    return session.scalar(select(Rebuild.id).where(_may_move()).limit(1)) is not None


def advance(session: Session) -> int:
    """Take each rebuild whose job has ended to its next step, or to its end; return how many.

    The caller has opened a session that writes; each row is taken by one worker.
    """
    query = select(Rebuild).where(_may_move()).order_by(Rebuild.id).limit(20)
    rows = session.scalars(query.with_for_update(skip_locked=True)).all()
    for rebuild in rows:
        if not apart(session, f"rebuild {rebuild.id}", partial(_move, session, rebuild)):
            _end(session, rebuild, f"{rebuild.step}: stumbled, the controller's log says why")
    return len(rows)


def _may_move() -> ColumnElement[bool]:
    known = select(Job.id).where(Job.id == Rebuild.job_id, Job.state.not_in(FINAL)).exists()
    return (Rebuild.state == "running") & ~known


def _move(session: Session, rebuild: Rebuild) -> None:
    job = session.get(Job, rebuild.job_id) if rebuild.job_id else None
    if job is None:
        _end(session, rebuild, f"the job of its step {rebuild.step} was removed meanwhile: ask for it anew")
        return
    ended = job.finished_at or now()
    seconds = round((ended - job.created_at).total_seconds(), 1)
    told = Step(name=_name(rebuild.step), job_id=job.id, state=job.state, seconds=seconds)
    rebuild.steps = [*rebuild.steps, told.model_dump(mode="json")]
    if fault := _fault(session, rebuild, job):
        _end(session, rebuild, f"{rebuild.step}: {fault}")
        return
    if rebuild.step == "transfer":
        _look_at_data(session, rebuild, job)
    elif rebuild.step == "health":
        _look_at_sandbox(session, rebuild, job)
    following = STEPS.index(rebuild.step) + 1
    if following < len(STEPS):
        _begin(session, rebuild, STEPS[following])
    else:
        wrong = [f"{each['name']}: {each['text']}" for each in rebuild.checks if not each["ok"]]
        _end(session, rebuild, "; ".join(wrong))


def _name(step: str) -> StepName:
    return next(name for name in ("provision", "transfer", "health") if name == step)


def _begin(session: Session, rebuild: Rebuild, step: str) -> None:
    """Queue the job of a step; where it cannot be, the rebuild has failed."""
    try:
        with session.begin_nested():
            _queue(session, rebuild, step)
    except Problem as problem:
        _end(session, rebuild, f"{step}: {problem.detail}")


def _queue(session: Session, rebuild: Rebuild, step: str) -> None:
    """Queue the job of a step. Raises NotFound, Invalid, Conflict, Forbidden."""
    caller: dict[str, Any] = {"requested_by": rebuild.requested_by, "trigger": rebuild.trigger}
    if step == "transfer":
        restore, job = restores.request(
            session,
            rebuild.tenant_id,
            archive=str(rebuild.archive_id),
            host=None,
            selection=Selection(destination=rebuild.destination),
            target_host=str(rebuild.sandbox_id),
            **caller,
        )
        rebuild.restore_id = restore.id
    else:
        targets = Targets(hosts=[str(rebuild.sandbox_id)])
        job = service.start(session, rebuild.tenant_id, step, targets, **caller)
    rebuild.step, rebuild.job_id = step, job.id
    _note(session, rebuild)


def _fault(session: Session, rebuild: Rebuild, job: Job) -> str:
    """Return why a step did not do what the next one needs; empty where it did."""
    own = _row(session, job, rebuild.sandbox_id)
    arrived = job.operation != "transfer" or _outcome(session, rebuild) is not None
    if own is not None and own.state in ("ok", "changed") and arrived:
        return ""
    row = own if own is not None and own.error else _row(session, job, rebuild.host_id)
    return (row.error if row else "") or job.error or f"its job ended as {job.state}"


def _row(session: Session, job: Job, host_id: uuid.UUID) -> JobHost | None:
    return session.scalar(select(JobHost).where(JobHost.job_id == job.id, JobHost.host_id == host_id))


def _outcome(session: Session, rebuild: Rebuild) -> Outcome | None:
    restore = session.get(Restore, rebuild.restore_id) if rebuild.restore_id else None
    return Outcome.model_validate(restore.outcome) if restore and restore.outcome else None


def _look_at_data(session: Session, rebuild: Rebuild, job: Job) -> None:
    """Compare what arrived with what was sent and with what Borg counted when it made the archive."""
    got, archive = _outcome(session, rebuild), session.get_one(Archive, rebuild.archive_id)
    source = _row(session, job, rebuild.host_id)
    try:
        sent = Sent.model_validate((source.result if source else {}).get("send"))
    except ValidationError:
        sent = None
    if got is None or sent is None:
        _check(rebuild, "counts", False, "the archive's host did not tell what it sent")
        return
    rebuild.destination = got.destination
    # Borg counts regular files; the hosts also links and the like. A hard link has its bytes on arrival again.
    whole = got.files == sent.files and got.bytes >= sent.bytes
    made = archive.files
    fits = made is None or got.verified_files <= made <= got.files
    of = "an unknown number" if made is None else str(made)
    text = f"{got.files} of {sent.files} entries and {got.bytes} of {sent.bytes} bytes arrived; "
    _check(rebuild, "counts", whole and fits and got.files > 0, f"{text}the backup counted {of} files")
    hashed = got.verified is True and got.verified_files > 0
    _check(rebuild, "hashes", hashed, f"{got.verified_files} files have the archive's SHA-256")
    lost = [*sent.failed_files, *got.failed_files]
    total = sent.failed_total + got.failed_total
    names = "; ".join(one_line(f"{each.path}: {each.message}") for each in lost[:NAMED])
    _check(rebuild, "failures", not total, f"{total} could not be restored{': ' if names else ''}{names}")


def _look_at_sandbox(session: Session, rebuild: Rebuild, job: Job) -> None:
    own = (MaintenanceResult.job_id == job.id, MaintenanceResult.host_id == rebuild.sandbox_id)
    result = session.scalar(select(MaintenanceResult).where(*own))
    if result is None:
        _check(rebuild, "sandbox", False, "it did not tell how it is")
        return
    critical = [each for each in result.findings if each.get("severity") == "critical"]
    wrong = [str(each.get("title", "")) for each in critical if each.get("id") != OF_ITS_OWN_BACKUPS]
    _check(rebuild, "sandbox", not wrong, "; ".join(wrong[:NAMED]) or "it has no critical finding")


def _check(rebuild: Rebuild, name: Any, ok: bool, text: str) -> None:
    rebuild.checks = [*rebuild.checks, Check(name=name, ok=ok, text=text[:2000]).model_dump()]


def _end(session: Session, rebuild: Rebuild, error: str) -> None:
    """Judge a rebuild: without an error it is proven."""
    rebuild.state, rebuild.error = ("failed" if error else "proven"), error[:2000]
    rebuild.step, rebuild.job_id, rebuild.finished_at = "", None, now()
    _note(session, rebuild)


def _note(session: Session, rebuild: Rebuild) -> None:
    session.flush()
    touch(session, rebuild.tenant_id, TOPIC)
