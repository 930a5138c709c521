"""Verbs of check-ins: take over run records, idempotent by run id."""

import json
import uuid
import zlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from sqlalchemy import ColumnElement, func, select, tuple_
from sqlalchemy.orm import Session

from saveos.checkins.models import Run, RunningBackup
from saveos.checkins.schemas import (
    AgentStats,
    CheckinIn,
    CheckinOut,
    HeartbeatTold,
    ProgressTold,
    RecordTold,
    RunningOut,
    RunOut,
    RunWithLog,
)
from saveos.checkins.takeover import Message, take_over
from saveos.core.clock import now
from saveos.core.errors import Invalid, NotFound, Problem
from saveos.core.pagination import decode_text, decode_time_and_id
from saveos.hosts.models import Host
from saveos.hosts.service import get_host

RUNNING_FOR = timedelta(minutes=10)  # an agent says at least once a minute that its run goes on
SKEW_SECONDS = 60
SEEN_WITHIN = {"10m": timedelta(minutes=10), "1h": timedelta(hours=1), "24h": timedelta(hours=24)}

Read = TypeVar("Read", bound=BaseModel)


def parse_record(data: Any, where: str = "") -> RecordTold:
    """Read one record. Raises Invalid naming the run and the field."""
    try:
        return RecordTold.model_validate(data)
    except ValidationError as error:
        field, message = _first_fault(error)
        run_id = str(data.get("run_id", "?"))[:40] if isinstance(data, dict) else "?"
        run_id = run_id.encode("utf-8", "replace").decode()
        path = ".".join(filter(None, (where, field)))
        raise Invalid(f"run {run_id}: {field}: {message}", field=path) from None


def read_records(body: bytes) -> list[RecordTold]:
    """Read a check-in's body. Raises Invalid naming the run and the field."""
    runs = _read(CheckinIn, body).runs
    return [parse_record(each, f"runs.{n}") for n, each in enumerate(runs)]


def read_heartbeat(body: bytes) -> HeartbeatTold:
    """Read a heartbeat's body. Raises Invalid naming the field."""
    return _read(HeartbeatTold, body)


def read_progress(body: bytes) -> ProgressTold:
    """Read a progress's body. Raises Invalid naming the field."""
    return _read(ProgressTold, body)


def _read(model: type[Read], body: bytes) -> Read:
    try:
        return model.model_validate(json.loads(body))  # takes lone surrogates, which pydantic's reader refuses
    except ValidationError as error:
        field, message = _first_fault(error)
        raise Invalid(f"{field}: {message}" if field else message, field=field or None) from None
    except (ValueError, RecursionError):
        raise Invalid("the body cannot be read: send valid JSON in UTF-8") from None


def _first_fault(error: ValidationError) -> tuple[str, str]:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"])[:200].encode("utf-8", "replace").decode()
    message = first["msg"].removeprefix("Value error, ")
    return field, message[:1].lower() + message[1:]


def record_runs(
    session: Session, tenant_id: uuid.UUID, host_id: uuid.UUID, records: Sequence[RecordTold]
) -> CheckinOut:
    """Store one host's runs and their archives, and what they say about the host; see `take_over`.

    Raises NotFound for no such host.
    """
    outcome = take_over(session, [Message(tenant_id, host_id, records)])[0]
    if isinstance(outcome, CheckinOut):
        return outcome
    raise outcome if isinstance(outcome, Problem) else Problem("run records have no such outcome")


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


def list_running(
    session: Session, tenant_id: uuid.UUID, *, host: str = "", cursor: str | None = None, limit: int
) -> list[RunningOut]:
    """Return up to `limit` runs that go on, by host. Raises NotFound for an unknown host."""
    query = select(RunningBackup, Host.name, Host.last_size).join(Host, Host.id == RunningBackup.host_id)
    query = query.where(RunningBackup.tenant_id == tenant_id, RunningBackup.updated_at > now() - RUNNING_FOR)
    if host:
        query = query.where(RunningBackup.host_id == get_host(session, tenant_id, host).id)
    after = decode_text(cursor)
    if after:
        query = query.where(Host.name > after)
    rows = session.execute(query.order_by(Host.name).limit(limit))
    return [_running_out(running, name, size) for running, name, size in rows]


def get_running(session: Session, tenant_id: uuid.UUID, host: str) -> RunningOut | None:
    """Return the run that goes on at a host, if any. Raises NotFound for an unknown host."""
    return next(iter(list_running(session, tenant_id, host=host, limit=1)), None)


def agent_stats(session: Session, tenant_id: uuid.UUID) -> AgentStats:
    """Count the fleet's agents by versions, by when they were heard of, and by what needs a look."""
    in_care = Host.state != "decommissioned"
    mine: list[ColumnElement[bool]] = [Host.tenant_id == tenant_id, Host.is_agent.is_(True), in_care]
    at = now()

    def heard(column: Any) -> list[ColumnElement[int]]:
        return [*(func.count().filter(column > at - span) for span in SEEN_WITHIN.values()), func.count(column)]

    skewed = func.count().filter(func.abs(Host.clock_skew) > SKEW_SECONDS)
    spooled = func.count().filter(Host.heartbeat["spool"].as_integer() > 0)
    columns = (func.count(), skewed, spooled, *heard(Host.seen_at), *heard(Host.heartbeat_at))
    row = session.execute(select(*columns).where(*mine)).one()
    names = (*SEEN_WITHIN, "ever")
    running = select(func.count()).select_from(RunningBackup).where(RunningBackup.tenant_id == tenant_id)
    return AgentStats(
        hosts=row[0],
        skewed=row[1],
        spooled=row[2],
        seen=dict(zip(names, row[3:7], strict=True)),
        heartbeats=dict(zip(names, row[7:11], strict=True)),
        versions={name: _by_version(session, name, mine) for name in ("agent", "borg", "borgmatic")},
        running=session.scalar(running.where(RunningBackup.updated_at > at - RUNNING_FOR)) or 0,
    )


def _by_version(session: Session, name: str, mine: Sequence[ColumnElement[bool]]) -> dict[str, int]:
    version = Host.versions[name].as_string()
    rows = session.execute(select(version, func.count()).where(*mine).group_by(version).order_by(version))
    return {found or "unknown": count for found, count in rows}


def _running_out(running: RunningBackup, host: str, size: int | None) -> RunningOut:
    names = RunningOut.model_fields.keys() - {"host", "expected_size"}
    values = {name: getattr(running, name) for name in names}
    return RunningOut(**values, host=host, expected_size=size if running.kind == "backup" else None)
