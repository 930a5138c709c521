"""Take over what agents tell, of many hosts in one transaction and few statements, whatever their number.

All of it is idempotent: a run id that is known changes nothing; of heartbeats and progress the newest counts.
"""

import uuid
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Table, delete, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from saveos.archives.models import Archive
from saveos.checkins.gaps import gap
from saveos.checkins.models import Run, RunningBackup
from saveos.checkins.schemas import (
    CheckinOut,
    DiskTold,
    HeartbeatOut,
    HeartbeatTold,
    ProgressTold,
    RecordTold,
    Refused,
)
from saveos.core.clock import now
from saveos.core.database import Base, new_id, touch
from saveos.core.errors import NotFound, Problem
from saveos.hosts.service import record_backup, record_heartbeat, record_seen
from saveos.hosts.standing import Standing, copies, load_standings, save_standings
from saveos.policies.models import Policy
from saveos.policies.service import default_policy, due_at
from saveos.repositories.models import Repository
from saveos.repositories.report import Claim, record_claims

NO_ARCHIVE = "the run says it succeeded, but it made no archive"
STOLEN = "another host told of this run"
INCOMPLETE = "incomplete"  # the error code of a run, and the host's last state, where a backup lacks something

REPOSITORIES = cast(Table, Repository.__table__)
RUNNING = cast(Table, RunningBackup.__table__)
Outcome = CheckinOut | HeartbeatOut | Problem | None


@dataclass(frozen=True)
class Message:
    """What one host told in one request: run records, a heartbeat, or how far its run is."""

    tenant_id: uuid.UUID
    host_id: uuid.UUID
    told: Sequence[RecordTold] | HeartbeatTold | ProgressTold
    at: datetime = field(default_factory=now)  # when it came

    @property
    def records(self) -> Sequence[RecordTold]:
        """The run records; none in a heartbeat or a progress."""
        return () if isinstance(self.told, HeartbeatTold | ProgressTold) else self.told

    @property
    def heartbeat(self) -> HeartbeatTold | None:
        """The heartbeat, if it is one."""
        return self.told if isinstance(self.told, HeartbeatTold) else None

    @property
    def progress(self) -> ProgressTold | None:
        """The progress, if it is one."""
        return self.told if isinstance(self.told, ProgressTold) else None


@dataclass
class _Receipt:
    """What becomes of one message with run records."""

    wanted: dict[uuid.UUID, RecordTold]
    refused: list[Refused]
    fresh: list[RecordTold] = field(default_factory=list)


def take_over(session: Session, messages: Sequence[Message]) -> list[Outcome]:
    """Store what the messages tell, and what it says about the hosts; one outcome each, in their order.

    Of a host that is not there, or is another tenant's, the outcome is NotFound. A record with a repository
    that is not the host's is refused with the reason, while the rest is stored.
    """
    hosts = load_standings(session, {message.host_id for message in messages})
    before = copies(hosts)
    known = [_is_known(message, hosts) for message in messages]
    heard = [message for message, is_known in zip(messages, known, strict=True) if is_known]
    receipts = _take_runs(session, [message for message in heard if message.records], hosts)
    for message in heard:
        _take_state(hosts[message.host_id], message)
    save_standings(session, before, hosts)
    _take_running(session, heard)
    for message in heard:
        _touch(session, message)
    outcomes = iter([_outcome(message, receipts, hosts[message.host_id]) for message in heard])
    return [next(outcomes) if is_known else _gone() for is_known in known]


def _is_known(message: Message, hosts: dict[uuid.UUID, Standing]) -> bool:
    host = hosts.get(message.host_id)
    return host is not None and host.tenant_id == message.tenant_id


def _gone() -> Problem:
    return NotFound("the host of this token does not exist any more: provision it again")


def _outcome(message: Message, receipts: dict[int, _Receipt], host: Standing) -> Outcome:
    if message.heartbeat:
        return HeartbeatOut(at=message.at, last_run_at=host.last_run_at)
    if message.progress:
        return None
    receipt = receipts.get(id(message), _Receipt({}, []))
    stolen = sum(each.detail == STOLEN for each in receipt.refused)
    known = len(receipt.wanted) - len(receipt.fresh) - stolen
    return CheckinOut(accepted=len(receipt.fresh), known=known, refused=receipt.refused)


def _touch(session: Session, message: Message) -> None:
    """Say what changed. Heartbeats and progress are many: they touch no list of hosts."""
    touch(session, message.tenant_id, f"host:{message.host_id}")
    if message.progress:
        touch(session, message.tenant_id, "running")
    elif not message.heartbeat:
        touch(session, message.tenant_id, "hosts")


# ---- runs -----------------------------------------------------------------------------------------------


def _take_runs(
    session: Session, messages: Sequence[Message], hosts: dict[uuid.UUID, Standing]
) -> dict[int, _Receipt]:
    """Store runs and archives, and apply what they say to their hosts; return receipts by message."""
    if not messages:
        return {}
    owners = _repositories(session, {message.host_id for message in messages})
    receipts = {id(message): _sift(message, owners) for message in messages}
    rows: dict[uuid.UUID, dict[str, Any]] = {}
    for message in messages:
        for run_id, record in receipts[id(message)].wanted.items():
            if run_id not in rows:  # two messages of one batch may tell of one run
                rows[run_id] = _run_row(message, record, gap(record, hosts[message.host_id].last_size))
    new = _insert_runs(session, list(rows.values()))
    tellers = {run_id: rows[run_id]["host_id"] for run_id in new} | _tellers(session, rows.keys() - new)
    archives: list[dict[str, Any]] = []
    due = _Due(session, hosts)
    for message in messages:
        receipt = receipts[id(message)]
        for run_id, record in receipt.wanted.items():
            if tellers.get(run_id, message.host_id) != message.host_id:
                receipt.refused.append(Refused(run_id=run_id, detail=STOLEN))
            elif run_id in new:
                new.discard(run_id)
                receipt.fresh.append(record)
                archives += _archive_rows(message, record)
                lacks = rows[run_id]["error_code"] == INCOMPLETE
                _apply(hosts[message.host_id], record, due, INCOMPLETE if lacks else _state(record))
        if receipt.fresh:
            touch(session, message.tenant_id, "archives")
    if archives:
        session.connection().execute(insert(cast(Table, Archive.__table__)), archives)
    record_claims(session, (_claim(row, hosts) for row in archives))
    return receipts


def _repositories(session: Session, host_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, set[uuid.UUID]]:
    query = select(REPOSITORIES.c.host_id, REPOSITORIES.c.id).where(REPOSITORIES.c.host_id.in_(host_ids))
    owned: dict[uuid.UUID, set[uuid.UUID]] = {host_id: set() for host_id in host_ids}
    for host_id, repository_id in session.connection().execute(query):
        owned[host_id].add(repository_id)
    return owned


def _sift(message: Message, owned: dict[uuid.UUID, set[uuid.UUID]]) -> _Receipt:
    """Set records aside that name a repository of another host; keep the last of those with one run id."""
    receipt = _Receipt({}, [])
    for record in message.records:
        reason = _fault(record, owned[message.host_id])
        if reason:
            receipt.refused.append(Refused(run_id=record.run_id, detail=reason))
        else:
            receipt.wanted[record.run_id] = record
    for refused in receipt.refused:
        receipt.wanted.pop(refused.run_id, None)
    return receipt


def _fault(record: RecordTold, own: set[uuid.UUID]) -> str:
    for result in record.results:
        if record.kind == "backup" and result.repository_id not in own:  # restores may come from other hosts
            return f"this host has no repository {result.repository_id}: provision it again"
    return ""


def _tellers(session: Session, run_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, uuid.UUID]:
    """Return which host told of each of these runs before."""
    if not run_ids:
        return {}
    rows = session.execute(select(Run.id, Run.host_id).where(Run.id.in_(run_ids)))
    return {row.id: row.host_id for row in rows}


def _run_row(message: Message, record: RecordTold, lacks: str) -> dict[str, Any]:
    error = record.error or next((result.error for result in record.results if result.error), None)
    state = _state(record)
    restored = [record.restore.model_dump(mode="json")] if record.restore else []
    text = f"{error.message} {error.fix}".strip() if error else ""
    if state != record.state:
        text = NO_ARCHIVE
    code = error.code if error else ""
    if lacks:
        state, code, text = "warning", INCOMPLETE, lacks
    return {
        "id": record.run_id,
        "tenant_id": message.tenant_id,
        "host_id": message.host_id,
        "kind": record.kind,
        "trigger": record.trigger,
        "job_id": record.job_id,
        "state": state,
        "started_at": record.started_at,
        "finished_at": record.finished_at,
        "results": [result.model_dump(mode="json") for result in record.results] or restored,
        "error_code": code,
        "error": text[:2000],
        "log": zlib.compress(record.log_tail.encode()) if record.log_tail else None,
        "received_at": message.at,
    }


def _archive_rows(message: Message, record: RecordTold) -> list[dict[str, Any]]:
    return [
        {
            "id": new_id(),
            "tenant_id": message.tenant_id,
            "host_id": message.host_id,
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
            "reported_at": message.at,
        }
        for result in record.results
        if result.archive is not None and record.kind == "backup"
    ]


def _claim(row: dict[str, Any], hosts: dict[uuid.UUID, Standing]) -> Claim:
    return Claim(row["repository_id"], row["started_at"], hosts[row["host_id"]].clock_skew)


def _state(record: RecordTold) -> str:
    """Return the run's state; a backup without an archive is none, whatever the exit code was."""
    done = record.state in ("succeeded", "warning")
    return "failed" if record.kind == "backup" and done and not _has_archive(record) else record.state


def _has_archive(record: RecordTold) -> bool:
    return any(result.archive for result in record.results)


class _Due:
    """When the next archive is due, by host; each policy is read once, each minute's answer computed once."""

    def __init__(self, session: Session, hosts: dict[uuid.UUID, Standing]) -> None:
        self._session = session
        wanted = {host.policy_id for host in hosts.values() if host.policy_id}
        found = session.scalars(select(Policy).where(Policy.id.in_(wanted))) if wanted else ()
        self._policies = {policy.id: policy for policy in found}
        self._defaults: dict[uuid.UUID, Policy | None] = {}
        self._known: dict[tuple[uuid.UUID, datetime], datetime] = {}

    def at(self, host: Standing, finished_at: datetime) -> datetime | None:
        """Return when the archive after this one must be there; None without a policy."""
        policy = self._policies.get(host.policy_id) if host.policy_id else self._default(host.tenant_id)
        if policy is None:
            return None
        key = policy.id, finished_at.replace(second=0, microsecond=0)
        if key not in self._known:
            self._known[key] = due_at(policy, finished_at)
        return self._known[key]

    def _default(self, tenant_id: uuid.UUID) -> Policy | None:
        if tenant_id not in self._defaults:
            self._defaults[tenant_id] = default_policy(self._session, tenant_id)
        return self._defaults[tenant_id]


def _apply(host: Standing, record: RecordTold, due: _Due, state: str) -> None:
    host.add_versions(record.versions)
    if record.kind != "backup":
        return
    finished = min(record.finished_at, now())
    sizes = [result.archive.original_size for result in record.results if result.archive]
    record_backup(
        host,
        state=state,
        finished_at=finished,
        size=max((size for size in sizes if size is not None), default=None),
        succeeded=_has_archive(record) and record.state in ("succeeded", "warning"),
        due_at=due.at(host, finished),
    )


# ---- heartbeats and progress ----------------------------------------------------------------------------


def _take_state(host: Standing, message: Message) -> None:
    record_seen(host)
    told = message.heartbeat
    if told is None:
        return
    host.add_versions(told.versions)
    kept = told.model_dump(mode="json", exclude={"versions"})
    skew = round((told.at - message.at).total_seconds(), 3)
    record_heartbeat(host, kept, at=message.at, skew=skew, disk_free_share=free_share(told.disks))


def free_share(disks: Sequence[DiskTold]) -> float | None:
    """Return the smallest free share, 0 to 1, of space or inodes over the disks; None without any."""
    pairs = [(disk.free, disk.total) for disk in disks]
    pairs += [(disk.inodes_free or 0, disk.inodes) for disk in disks if disk.inodes]
    return min((min(1.0, free / total) for free, total in pairs if total), default=None)


def _take_running(session: Session, messages: Sequence[Message]) -> None:
    """Keep the newest progress of each host; what has ended, or is denied by a heartbeat, goes."""
    ended = {record.run_id for message in messages for record in message.records}
    idle = {each.host_id for each in messages if each.heartbeat and each.heartbeat.running is None}
    if ended or idle:
        by_host = RUNNING.c.host_id.in_({message.host_id for message in messages})
        by_what = RUNNING.c.run_id.in_(ended) | RUNNING.c.host_id.in_(idle)
        gone = delete(RUNNING).where(by_host, by_what).returning(RUNNING.c.tenant_id)
        for tenant_id in session.connection().execute(gone).scalars().all():
            touch(session, tenant_id, "running")
    told = {message.host_id: (message, message.progress) for message in messages if message.progress}
    ended |= _tellers(session, {progress.run_id for _, progress in told.values()}).keys()
    rows = [_running_row(*each) for each in told.values() if each[1].run_id not in ended]
    _put(session, RunningBackup, rows)


def _running_row(message: Message, progress: ProgressTold) -> dict[str, Any]:
    owner = {"host_id": message.host_id, "tenant_id": message.tenant_id, "updated_at": message.at}
    return progress.model_dump() | owner


# ---- statements -----------------------------------------------------------------------------------------


def _table(session: Session, model: type[Base]) -> tuple[Table, Any]:
    """Return a model's table and an insert into it that knows ON CONFLICT."""
    table = cast(Table, model.__table__)
    dialect: Any = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    return table, dialect.insert(table)


def _insert_runs(session: Session, rows: Sequence[dict[str, Any]]) -> set[uuid.UUID]:
    """Insert runs; those that are known stay as they are. Returns the ids of the new ones."""
    if not rows:
        return set()
    table, statement = _table(session, Run)
    statement = statement.on_conflict_do_nothing().returning(table.c.id)
    return set(session.connection().execute(statement, rows).scalars())


def _put(session: Session, model: type[Base], rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows; those of a known primary key take the place of the old ones."""
    if not rows:
        return
    table, statement = _table(session, model)
    keys = [column.name for column in table.primary_key]
    values = {column.name: statement.excluded[column.name] for column in table.c if column.name not in keys}
    session.connection().execute(statement.on_conflict_do_update(index_elements=keys, set_=values), rows)
