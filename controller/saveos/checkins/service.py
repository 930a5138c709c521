"""Verbs of check-ins: take over run records, idempotent by run id."""

import uuid
import zlib
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from sqlalchemy import select, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, joinedload

from saveos.archives.models import Archive
from saveos.checkins.models import Run
from saveos.checkins.schemas import (
    CheckinOut,
    RecordTold,
    Refused,
    RunOut,
    RunWithLog,
)
from saveos.core.clock import now
from saveos.core.database import Base, new_id, touch
from saveos.core.errors import Invalid, NotFound
from saveos.core.pagination import decode_time_and_id
from saveos.hosts.models import Host
from saveos.hosts.service import get_host, record_backup, record_seen
from saveos.policies.service import default_policy, due_at
from saveos.repositories.models import Repository
from saveos.repositories.report import record_claims

NO_ARCHIVE = "the run says it succeeded, but it made no archive"


def parse_record(data: Any, where: str = "") -> RecordTold:
    """Read one record. Raises Invalid naming the run and the field."""
    try:
        return RecordTold.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])[:200]
        run_id = str(data.get("run_id", "?"))[:40] if isinstance(data, dict) else "?"
        message = first["msg"].removeprefix("Value error, ")
        path = ".".join(filter(None, (where, field)))
        raise Invalid(f"run {run_id}: {field}: {message[:1].lower()}{message[1:]}", field=path) from None


def record_runs(
    session: Session, tenant_id: uuid.UUID, host_id: uuid.UUID, records: Sequence[RecordTold]
) -> CheckinOut:
    """Store a host's runs and their archives, and what they say about the host.

    A run that is known changes nothing. A record with a repository that is not the host's is
    refused, with the reason, while the rest is stored. Raises NotFound for no such host.
    """
    host = _lock_host(session, tenant_id, host_id)
    own = set(session.scalars(select(Repository.id).where(Repository.host_id == host.id)))
    refused = [
        Refused(run_id=record.run_id, detail=reason) for record in records if (reason := _fault(record, own))
    ]
    bad = {each.run_id for each in refused}
    wanted = {record.run_id: record for record in records if record.run_id not in bad}
    new = _insert(session, Run, [_run_row(host, record) for record in wanted.values()], Run.id)
    fresh = [wanted[run_id] for run_id in wanted if run_id in new]
    stolen = _foreign(session, host, wanted.keys() - new)
    refused += [Refused(run_id=run_id, detail="another host told of this run") for run_id in stolen]
    archives = [row for record in fresh for row in _archive_rows(host, record)]
    _insert(session, Archive, archives, Archive.id)
    record_claims(session, host, [(row["repository_id"], row["started_at"]) for row in archives])
    record_seen(host)
    for record in fresh:
        _apply(session, host, record)
    touch(session, tenant_id, "hosts")
    if fresh:
        touch(session, tenant_id, "archives")
    return CheckinOut(accepted=len(fresh), known=len(wanted) - len(fresh) - len(stolen), refused=refused)


def list_runs(
    session: Session, tenant_id: uuid.UUID, *, host: str = "", cursor: str | None = None, limit: int
) -> list[RunOut]:
    """Return up to `limit` runs, newest first. Raises NotFound for an unknown host."""
    query = select(Run, Host.name).join(Host, Host.id == Run.host_id).where(Run.tenant_id == tenant_id)
    query = query.order_by(Run.started_at.desc(), Run.id.desc()).limit(limit)
    if host:
        query = query.where(Run.host_id == get_host(session, tenant_id, host).id)
    position = decode_time_and_id(cursor)
    if position:
        query = query.where(tuple_(Run.started_at, Run.id) < position)
    return [RunOut(**_columns(run), host=name) for run, name in session.execute(query)]


def get_run(session: Session, tenant_id: uuid.UUID, run_id: uuid.UUID) -> RunWithLog:
    """Return a run with the end of its log. Raises NotFound."""
    query = select(Run, Host.name).join(Host, Host.id == Run.host_id)
    row = session.execute(query.where(Run.id == run_id, Run.tenant_id == tenant_id)).one_or_none()
    if row is None:
        raise NotFound("there is no such run: see GET /api/v1/runs")
    run, name = row
    log = zlib.decompress(run.log).decode() if run.log else ""
    return RunWithLog(**_columns(run), host=name, log=log)


def _columns(run: Run) -> dict[str, Any]:
    return {name: getattr(run, name) for name in RunOut.model_fields if name != "host"}


def _lock_host(session: Session, tenant_id: uuid.UUID, host_id: uuid.UUID) -> Host:
    query = select(Host).options(joinedload(Host.policy)).where(Host.id == host_id, Host.tenant_id == tenant_id)
    host = session.scalar(query.with_for_update(of=Host).execution_options(populate_existing=True))
    if host is None:
        raise NotFound("the host of this token does not exist any more: provision it again")
    return host


def _fault(record: RecordTold, own: set[uuid.UUID]) -> str:
    for result in record.results:
        if result.repository_id not in own:
            return f"this host has no repository {result.repository_id}: provision it again"
    return ""


def _run_row(host: Host, record: RecordTold) -> dict[str, Any]:
    error = record.error or next((result.error for result in record.results if result.error), None)
    state = _state(record)
    restored = [record.restore.model_dump(mode="json")] if record.restore else []
    text = f"{error.message} {error.fix}".strip() if error else ""
    if state != record.state:
        text = NO_ARCHIVE
    return {
        "id": record.run_id,
        "tenant_id": host.tenant_id,
        "host_id": host.id,
        "kind": record.kind,
        "trigger": record.trigger,
        "job_id": record.job_id,
        "state": state,
        "started_at": record.started_at,
        "finished_at": record.finished_at,
        "results": [result.model_dump(mode="json") for result in record.results] or restored,
        "error_code": error.code if error else "",
        "error": text[:2000],
        "log": zlib.compress(record.log_tail.encode()) if record.log_tail else None,
        "received_at": now(),
    }


def _archive_rows(host: Host, record: RecordTold) -> list[dict[str, Any]]:
    return [
        {
            "id": new_id(),
            "tenant_id": host.tenant_id,
            "host_id": host.id,
            "repository_id": result.repository_id,
            "run_id": record.run_id,
            "borg_id": result.archive.id,
            "name": result.archive.name,
            "started_at": result.archive.started_at,
            "finished_at": result.archive.finished_at,
            "duration": result.archive.duration,
            "files": result.archive.nfiles,
            "original_size": result.archive.original_size,
            "compressed_size": result.archive.compressed_size,
            "deduplicated_size": result.archive.deduplicated_size,
            "check_state": "never",
            "reported_at": now(),
        }
        for result in record.results
        if result.archive is not None and record.kind == "backup"
    ]


def _state(record: RecordTold) -> str:
    """Return the run's state; a backup without an archive is none, whatever the exit code was."""
    done = record.state in ("succeeded", "warning")
    return "failed" if record.kind == "backup" and done and not _has_archive(record) else record.state


def _has_archive(record: RecordTold) -> bool:
    return any(result.archive for result in record.results)


def _apply(session: Session, host: Host, record: RecordTold) -> None:
    if record.versions:
        host.versions = {**host.versions, **{key: value for key, value in record.versions.items() if value}}
    if record.kind != "backup":
        return
    policy = host.policy or default_policy(session, host.tenant_id)
    finished = min(record.finished_at, now())
    sizes = [result.archive.original_size for result in record.results if result.archive]
    record_backup(
        host,
        state=_state(record),
        finished_at=finished,
        size=max((size for size in sizes if size is not None), default=None),
        succeeded=_has_archive(record) and record.state in ("succeeded", "warning"),
        due_at=due_at(policy, finished) if policy else None,
    )


def _foreign(session: Session, host: Host, run_ids: set[uuid.UUID]) -> list[uuid.UUID]:
    if not run_ids:
        return []
    return list(session.scalars(select(Run.id).where(Run.id.in_(run_ids), Run.host_id != host.id)))


def _insert(session: Session, table: type[Base], rows: list[dict[str, Any]], key: Any) -> set[uuid.UUID]:
    """Insert rows; those that exist stay as they are. Returns the keys of the new ones."""
    if not rows:
        return set()
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    found: set[uuid.UUID] = set()
    for start in range(0, len(rows), 100):  # below SQLite's limit of parameters
        statement = dialect.insert(table).values(rows[start : start + 100]).on_conflict_do_nothing()
        found |= set(session.scalars(statement.returning(key)))
    return found
