"""What an operation's result means; called for a host of a job when a result arrives and when it is done.

A result came over the job's own SSH session to a pinned host, yet the host may be hostile: it is
checked like any input, and can say something only about itself.
"""

import base64
import uuid
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from saveos.accounts.service import set_agent_token
from saveos.alerts.rules import one_line
from saveos.checkins.service import parse_record, record_runs
from saveos.core.clock import now
from saveos.core.database import touch
from saveos.core.errors import Invalid
from saveos.hosts.models import Host
from saveos.hosts.service import record_seen
from saveos.jobs.models import Job, JobHost
from saveos.maintenance.models import Finding, HostDrift, MaintenanceLatest
from saveos.policies.models import Policy
from saveos.policies.precedence import drill_times, record_applied
from saveos.repositories.report import StorageSeen, record_report
from saveos.repositories.service import of_hosts, record_initialised
from saveos.restores.schemas import Failed, Outcome
from saveos.restores.service import record_outcome
from saveos.secrets.schemas import HostKeyLine, RepositoryUrl
from saveos.secrets.service import store_escrow

Told = TypeVar("Told", bound=BaseModel)

Short = Annotated[str, Field(max_length=200)]
Key = Annotated[str, Field(max_length=1000)]
Keys = Annotated[list[Key], Field(max_length=20)]


class Identity(BaseModel):
    """What was born on the host: its Borg key's public half, its agent token's hash, its sshd's keys."""

    public_key: Key = ""
    token_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    host_keys: Keys = []


class Initialised(BaseModel):
    """A repository that the host opened or made."""

    id: uuid.UUID
    initialised: bool = False
    key_exported: bool = False


class Server(BaseModel):
    """What a storage server says of itself."""

    host_keys: Keys = []
    port: int = 22
    user: Short = ""
    root: Annotated[str, Field(max_length=4096)] = ""
    tenant: Short = ""  # whose own user it is; empty is the shared one
    free_bytes: int | None = None
    borg_version: Short = ""


class Sealed(BaseModel):
    """What a host sealed to the recovery key about a repository; nobody here can look into it."""

    repository_id: uuid.UUID
    recovery_key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    sealed: Annotated[str, Field(max_length=60_000)]
    url: RepositoryUrl = ""
    host_keys: Annotated[list[HostKeyLine], Field(max_length=20)] = []


class DrilledFile(BaseModel):
    """A file that a drill could not prove."""

    path: Annotated[str, Field(max_length=8192)]
    reason: Annotated[str, Field(max_length=1000)]


class DrilledDatabase(BaseModel):
    """A dump that a drill loaded into a scratch server."""

    kind: Short
    name: Annotated[str, Field(max_length=1000)]
    state: Literal["proven", "failed", "skipped"]
    tables: Annotated[int, Field(ge=0)] = 0
    rows: Annotated[int, Field(ge=0)] = 0
    error: Annotated[str, Field(max_length=1000)] = ""


class DrillError(BaseModel):
    """Why nothing of a repository could be proven."""

    message: Annotated[str, Field(max_length=4000)]
    fix: Annotated[str, Field(max_length=4000)] = ""


class DrilledRepository(BaseModel):
    """What a drill found in a repository's newest archive."""

    repository_id: Short
    archive: Annotated[str, Field(max_length=1000)] | None = None
    archive_at: datetime | None = None
    canary: Literal["proven", "failed", "unknown", "absent"] = "absent"
    sampled: int = 0
    compared: int = 0
    bytes: int = 0
    failed: Annotated[list[DrilledFile], Field(max_length=1002)] = []
    databases: Annotated[list[DrilledDatabase], Field(max_length=1000)] = []
    error: DrillError | None = None


class Arrived(BaseModel):
    """Files of a sample, as sent or as they arrived; `digest` is over paths and contents."""

    files: Annotated[int, Field(ge=0)]
    bytes: Annotated[int, Field(ge=0)]
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Received(Arrived):
    """What a sandbox has of another host's drill."""

    failed_total: Annotated[int, Field(ge=0)] = 0
    failed: Annotated[list[Failed], Field(max_length=1000)] = []


class Drilled(BaseModel):
    """A drill of a host: proven, partial (a dump could not be tried there) or failed.

    `sent` is what must arrive at a sandbox, `sandbox` where it did.
    """

    state: Literal["proven", "partial", "failed"]
    at: datetime
    seed: int
    sampled: int
    compared: int
    seconds: float
    repositories: Annotated[list[DrilledRepository], Field(max_length=50)]
    sent: Arrived | None = None
    sandbox: Short = ""

    def fault(self) -> str:
        """Return what failed, by name; empty where nothing did."""
        told: list[str] = []
        for each in self.repositories:
            told += [each.error.message] if each.error else []
            told += [f"{file.path}: {file.reason}" for file in each.failed]
            lost = [base for base in each.databases if base.state == "failed"]
            told += [f"{base.kind} {base.name}: {base.error}" for base in lost]
        return "; ".join(told)


class Provisioned(BaseModel):
    """The merged result of `provision` for one host."""

    identity: Identity | None = None
    policy_version: uuid.UUID | None = None
    versions: Annotated[dict[Short, Short], Field(max_length=20)] = {}
    os: Annotated[str, Field(max_length=60)] = ""
    init: Short = ""
    repositories: Annotated[list[Initialised], Field(max_length=50)] = []
    server: Server | None = None
    escrow: Annotated[list[Sealed], Field(max_length=50)] = []


def provisioned(session: Session, job: Job, row: JobHost) -> None:
    """Store a host's identity; a host that is done is enrolled. A check stores nothing.

    Nor does a host that was taken out while the play ran: its tokens have ended for good.
    """
    host = host_of(session, row)
    if host is None or job.mode == "check" or host.state == "decommissioned":
        return
    found = parsed(Provisioned, row.result)
    if found.identity:
        host.agent_public_key = found.identity.public_key or host.agent_public_key
        host.facts = host.facts | {"host_keys": found.identity.host_keys}
        if found.identity.token_sha256:
            set_agent_token(session, host.tenant_id, host.id, host.name, found.identity.token_sha256)
    host.os = found.os or host.os
    host.versions = host.versions | found.versions
    if found.init:
        host.facts = host.facts | {"init": found.init}
    if found.server:
        host.facts = host.facts | {"server": found.server.model_dump()}
    own = {each.id: each for each in of_hosts(session, host.tenant_id, [host.id]).get(host.id, [])}
    for told in found.repositories:
        if told.initialised and told.id in own:
            record_initialised(own[told.id], key_exported=told.key_exported)
    for sealed in found.escrow:
        if sealed.repository_id in own:
            _keep_escrow(session, host, sealed)
    whole = row.is_target or not host.is_agent  # a mere server that came along is converged, too
    if row.state in ("ok", "changed") and whole and host.state == "pending":
        host.state = "enrolled"
    if row.state in ("ok", "changed") and row.is_target and found.policy_version:
        record_applied(session, host, found.policy_version)
    if row.state in ("ok", "changed") and row.is_target:
        converged(session, host)
    record_seen(host)
    touch(session, host.tenant_id, "hosts")


def converged(session: Session, host: Host) -> None:
    """Note that a host is as provisioning makes it: it was provisioned, or a look found no difference."""
    host.drifted_since = None
    session.execute(delete(HostDrift).where(HostDrift.host_id == host.id))
    own = (Finding.host_id == host.id, Finding.operation == "drift", Finding.resolved_at.is_(None))
    session.execute(update(Finding).where(*own).values(resolved_at=now()))
    stood = (MaintenanceLatest.host_id == host.id, MaintenanceLatest.operation == "drift")
    session.execute(update(MaintenanceLatest).where(*stood).values(state="ok", warning=0, worst=""))


def _keep_escrow(session: Session, host: Host, told: Sealed) -> None:
    try:
        sealed = base64.b64decode(told.sealed, validate=True)
    except ValueError:
        raise Invalid("the host's answer cannot be used: escrow.sealed: it is no base64") from None
    store_escrow(
        session,
        host.tenant_id,
        host.id,
        told.repository_id,
        fingerprint=told.recovery_key,
        sealed=sealed,
        url=told.url,
        host_keys=told.host_keys,
    )


def ran(session: Session, job: Job, row: JobHost) -> None:
    """Store the record of a backup or restore, as a check-in would; telling twice changes nothing."""
    record, host = row.result.get("run"), host_of(session, row)
    if host is None or not isinstance(record, dict) or job.mode == "check":
        return
    outcome = record_runs(session, host.tenant_id, host.id, [parse_record(record)])
    if outcome.refused:
        raise Invalid(outcome.refused[0].detail)


def drilled(session: Session, job: Job, row: JobHost) -> None:
    """Keep what a drill proved of a host's newest archives, or what failed; telling twice changes nothing.

    A drill on a sandbox proves nothing before the sandbox has told that all arrived there.
    """
    of_sandbox = job.parameters.get("transfer") and row.name != job.parameters.get("source")
    source = _row_of(session, job, job.parameters["source"]) if of_sandbox else row
    told, host = (source.result.get("drill"), host_of(session, source)) if source else (None, None)
    if host is None or not isinstance(told, dict) or job.mode == "check":
        return
    found = parsed(Drilled, told)
    judged: Drilled | None = found
    if job.parameters.get("transfer") and found.state != "failed":
        judged = _on_sandbox(session, job, found)
    if judged is not None:
        _keep_drill(session, host, judged)


def _row_of(session: Session, job: Job, name: str) -> JobHost | None:
    return session.scalar(select(JobHost).where(JobHost.job_id == job.id, JobHost.name == name))


def _on_sandbox(session: Session, job: Job, found: Drilled) -> Drilled | None:
    """Return a drill with what its sandbox says; None while that has not told."""
    name = job.parameters["sandbox"]
    row = _row_of(session, job, name)
    told = row.result.get("receive") if row else None
    if not isinstance(told, dict):
        return None
    got = parsed(Received, told)
    found = found.model_copy(update={"sandbox": name})
    lost = [DrilledFile(path=each.path, reason=f"on {name}: {each.message}"[:1000]) for each in got.failed]
    sent = found.sent
    if not lost and (
        sent is None or (got.files, got.bytes, got.digest) != (sent.files, sent.bytes, sent.digest)
    ):
        wanted = f"{sent.files} files of {sent.bytes} bytes" if sent else "nothing"
        reason = (
            f"{name} has {got.files} files of {got.bytes} bytes, {wanted} were sent, or their hashes differ"
        )
        lost = [DrilledFile(path="/", reason=reason)]
    if not lost:
        return found
    if not found.repositories:
        raise Invalid("the host's answer cannot be used: repositories: a drill proves at least one")
    first = found.repositories[0].model_copy(update={"failed": lost[:100]})
    return found.model_copy(update={"state": "failed", "repositories": [first, *found.repositories[1:]]})


def _keep_drill(session: Session, host: Host, found: Drilled) -> None:
    kept = found.model_dump(mode="json")
    for each in kept["repositories"]:
        each["failed"], each["databases"] = each["failed"][:100], each["databases"][:100]
    if host.facts.get("drill") == kept:
        return
    fault = found.fault()
    host.facts = host.facts | {"drill": kept}
    host.last_drill_at, host.last_drill_state = now(), found.state
    host.drill_error = one_line(fault or "nothing could be restored") if found.state == "failed" else ""
    if found.state != "failed":
        host.last_proven_at = host.last_drill_at
    policy = session.get(Policy, host.policy_id) if host.policy_id else None
    for name, moment in drill_times(policy, host.last_drill_at, host.last_proven_at).items():
        setattr(host, name, moment)
    record_seen(host)
    touch(session, host.tenant_id, "hosts")


def restored(session: Session, job: Job, row: JobHost) -> None:
    """Store a restore's record and what it came to; of a check, what it would come to."""
    ran(session, job, row)
    run = row.result.get("run")
    told = row.result.get("plan") if job.mode == "check" else isinstance(run, dict) and run.get("restore")
    if isinstance(told, dict):
        record_outcome(session, job, parsed(Outcome, told).model_dump(mode="json"))


def transferred(session: Session, job: Job, row: JobHost) -> None:
    """Store what the host that received something told; who only sent has nothing to say."""
    ran(session, job, row)
    run = row.result.get("run")
    told = run.get("restore") if isinstance(run, dict) else None
    if isinstance(told, dict):
        record_outcome(session, job, parsed(Outcome, told).model_dump(mode="json"))


def examined(session: Session, job: Job, row: JobHost) -> None:
    """Keep what the host said about its health, and what a storage server saw of its repositories."""
    health, storage, host = row.result.get("health"), row.result.get("storage"), host_of(session, row)
    if host is None:
        return
    if isinstance(health, dict):
        host.facts = host.facts | {"health": health}
        record_seen(host)
        touch(session, host.tenant_id, "hosts")
    if isinstance(storage, dict) and host.is_storage_server:
        _stored(session, host, parsed(StorageSeen, storage), row.started_at or now())


def _stored(session: Session, server: Host, seen: StorageSeen, began: datetime) -> None:
    """Take over a storage server's report once: at the end of its job it comes a second time."""
    known = server.facts.get("storage")
    if seen.at and isinstance(known, dict) and known.get("at") == seen.at:
        return
    server.facts = server.facts | {"storage": seen.model_dump(exclude={"repositories"})}
    server.storage_free_share = seen.free_share()
    record_report(session, server, seen, began)
    record_seen(server)
    touch(session, server.tenant_id, "hosts")


def host_of(session: Session, row: JobHost) -> Host | None:
    """Return the row's host, locked: `health` may tell of it while another job does."""
    return session.get(Host, row.host_id, with_for_update=True) if row.host_id else None


def parsed(model: type[Told], data: dict[str, Any]) -> Told:
    """Return what a host told, checked. Raises Invalid naming the first fault."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Invalid(f"the host's answer cannot be used: {where}: {first['msg']}") from None
