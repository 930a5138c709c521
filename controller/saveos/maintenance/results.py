"""What an operation's result means; called for a host of a job when a result arrives and when it is done.

A result came over the job's own SSH session to a pinned host, yet the host may be hostile: it is
checked like any input, and can say something only about itself.
"""

import base64
import uuid
from datetime import datetime
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError
from sqlalchemy.orm import Session

from saveos.accounts.service import set_agent_token
from saveos.checkins.service import parse_record, record_runs
from saveos.core.clock import now
from saveos.core.database import touch
from saveos.core.errors import Invalid
from saveos.hosts.models import Host
from saveos.hosts.service import record_seen
from saveos.jobs.models import Job, JobHost
from saveos.policies.precedence import record_applied
from saveos.repositories.report import StorageSeen, record_report
from saveos.repositories.service import of_hosts, record_initialised
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
    free_bytes: int | None = None
    borg_version: Short = ""


class Sealed(BaseModel):
    """What a host sealed to the recovery key about a repository; nobody here can look into it."""

    repository_id: uuid.UUID
    recovery_key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    sealed: Annotated[str, Field(max_length=60_000)]
    url: Annotated[str, Field(max_length=5000)] = ""
    host_keys: Keys = []


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
    host = _host(session, row)
    if host is None or job.mode == "check" or host.state == "decommissioned":
        return
    found = _parsed(Provisioned, row.result)
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
    record_seen(host)
    touch(session, host.tenant_id, "hosts")


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
    record, host = row.result.get("run"), _host(session, row)
    if host is None or not isinstance(record, dict) or job.mode == "check":
        return
    outcome = record_runs(session, host.tenant_id, host.id, [parse_record(record)])
    if outcome.refused:
        raise Invalid(outcome.refused[0].detail)


def examined(session: Session, job: Job, row: JobHost) -> None:
    """Keep what the host said about its health, and what a storage server saw of its repositories."""
    health, storage, host = row.result.get("health"), row.result.get("storage"), _host(session, row)
    if host is None:
        return
    if isinstance(health, dict):
        host.facts = host.facts | {"health": health}
        record_seen(host)
        touch(session, host.tenant_id, "hosts")
    if isinstance(storage, dict) and host.is_storage_server:
        _stored(session, host, _parsed(StorageSeen, storage), row.started_at or now())


def _stored(session: Session, server: Host, seen: StorageSeen, began: datetime) -> None:
    """Take over a storage server's report once: at the end of its job it comes a second time."""
    known = server.facts.get("storage")
    if seen.at and isinstance(known, dict) and known.get("at") == seen.at:
        return
    server.facts = server.facts | {"storage": seen.model_dump(exclude={"repositories"})}
    server.storage_free_share = seen.free / seen.total if seen.total else None
    record_report(session, server, seen, began)
    record_seen(server)
    touch(session, server.tenant_id, "hosts")


def _host(session: Session, row: JobHost) -> Host | None:
    """Return the row's host, locked: `health` may tell of it while another job does."""
    return session.get(Host, row.host_id, with_for_update=True) if row.host_id else None


def _parsed(model: type[Told], data: dict[str, Any]) -> Told:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Invalid(f"the host's answer cannot be used: {where}: {first['msg']}") from None
