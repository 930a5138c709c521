"""What operations found on hosts: take over a result, compare it with the one before, list, and mend.

A result record says what a run found. Findings are known again from run to run by operation, id and subject:
one that a later run does not tell of is resolved, unless that run says it did not look for it (`judged`).
"""

import hashlib
import uuid
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints, field_validator, model_validator
from sqlalchemy import Select, delete, func, or_, select
from sqlalchemy.orm import Session

from saveos.core.clock import now
from saveos.core.database import new_id, touch
from saveos.core.errors import Invalid, NotFound
from saveos.core.inputs import check_clean
from saveos.core.pagination import OTHER_LIST, decode_cursor
from saveos.hosts.models import Group, GroupMember, Host
from saveos.jobs.models import Job, JobHost
from saveos.maintenance.models import SEVERITIES, Finding, MaintenanceLatest, MaintenanceResult
from saveos.maintenance.results import host_of, parsed

KEPT = 100  # results of an operation on a host
RESOLVED_FOR = timedelta(days=90)  # so long is a finding that is gone remembered
WORST_FIRST = ("critical", "warning")

Severity = Literal["critical", "warning", "info"]
Kind = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,79}$")]


class ToldFinding(BaseModel):
    """A finding as a host tells it."""

    id: Kind
    severity: Severity
    subject: Annotated[str, Field(max_length=1000)] = ""
    title: Annotated[str, Field(max_length=500)]
    evidence: Annotated[str, Field(max_length=2000)] = ""
    fix: Annotated[str, Field(max_length=2000)] = ""
    fixable: bool = False
    fixed: bool = False


class ToldResult(BaseModel):
    """The record of a run on a host."""

    summary: dict[Annotated[str, Field(max_length=100)], Any] = {}
    judged: Annotated[list[Kind], Field(max_length=200)] | None = None
    findings: Annotated[list[ToldFinding], Field(max_length=1002)] = []

    @model_validator(mode="before")
    @classmethod
    def _clean(cls, data: Any) -> Any:
        check_clean(data)
        return data

    @field_validator("summary")
    @classmethod
    def _bounded(cls, value: dict[str, Any]) -> dict[str, Any]:
        if len(str(value)) > 20_000:
            raise ValueError("the summary is longer than 20,000 characters")
        return value


def record(session: Session, job: Job, row: JobHost, *, forget: bool = True) -> None:
    """Take over what a host told of an operation; telling twice changes nothing.

    In a check `fixed` says what a run would mend, so it counts as open. Who takes over many hosts forgets
    what is old by `forget_old`, once for all.
    """
    told, host = row.result.get(job.operation), host_of(session, row)
    if host is None or not isinstance(told, dict):
        return
    keep(session, job, host, parsed(ToldResult, told), forget=forget)


def keep(session: Session, job: Job, host: Host, found: ToldResult, *, forget: bool = True) -> None:
    """Store what a job found on a host, once; see `record`."""
    still = [each for each in found.findings if not each.fixed or job.mode == "check"]
    counts: Counter[str] = Counter(each.severity for each in still)
    same_job = (MaintenanceResult.job_id == job.id, MaintenanceResult.host_id == host.id)
    result = session.scalar(select(MaintenanceResult).where(*same_job))
    if result is None:
        result = MaintenanceResult(tenant_id=host.tenant_id, host_id=host.id, job_id=job.id, at=now())
        result.id, result.operation, result.mode = new_id(), job.operation, job.mode
        session.add(result)
    findings = [each.model_dump() for each in found.findings]
    state = next((each for each in WORST_FIRST if counts[each]), "ok")
    if result.state == state and result.summary == found.summary and result.findings == findings:
        return  # at the end of a job every result comes a second time
    result.state, result.summary = state, found.summary
    result.critical, result.warning, result.info = (counts[each] for each in SEVERITIES)
    result.fixed = len(found.findings) - len(still)
    result.keep(findings)
    session.flush()
    _reconcile(session, host, result, still, found.judged)
    if forget:
        forget_old(session, result.operation, [host.id])
    touch(session, host.tenant_id, "findings")


def _key(kind: str, subject: str) -> str:
    return hashlib.sha256(f"{kind}\0{subject}".encode()).hexdigest()


def _reconcile(
    session: Session,
    host: Host,
    result: MaintenanceResult,
    told: Sequence[ToldFinding],
    judged: Sequence[str] | None,
) -> None:
    """Open, update and resolve the findings of an operation on a host; note what stands now."""
    own = (Finding.host_id == host.id, Finding.operation == result.operation)
    wanted = {_key(each.id, each.subject): each for each in told}
    query = select(Finding).where(*own, or_(Finding.resolved_at.is_(None), Finding.key.in_(list(wanted))))
    known = {each.key: each for each in session.scalars(query)}
    for key, each in wanted.items():
        finding = known.get(key)
        if finding is None:
            finding = Finding(tenant_id=host.tenant_id, host_id=host.id, operation=result.operation, key=key)
            finding.first_seen = result.at
            known[key] = finding
            session.add(finding)
        elif finding.resolved_at is not None:
            finding.first_seen, finding.resolved_at = result.at, None
        finding.kind, finding.subject, finding.rank = each.id, each.subject, SEVERITIES.index(each.severity)
        finding.title, finding.evidence, finding.fix = each.title, each.evidence, each.fix
        finding.fixable, finding.result_id, finding.last_seen = each.fixable, result.id, result.at
    for key, finding in known.items():
        if key not in wanted and finding.resolved_at is None and (judged is None or finding.kind in judged):
            finding.resolved_at = result.at
    still = [each for each in known.values() if each.resolved_at is None]
    _stand(session, host, result, sorted(still, key=lambda each: (each.rank, each.first_seen)))


def _stand(session: Session, host: Host, result: MaintenanceResult, still: Sequence[Finding]) -> None:
    mine = (MaintenanceLatest.host_id == host.id, MaintenanceLatest.operation == result.operation)
    latest = session.scalar(select(MaintenanceLatest).where(*mine))
    if latest is None:
        latest = MaintenanceLatest(tenant_id=host.tenant_id, host_id=host.id, operation=result.operation)
        session.add(latest)
    counts = Counter(each.severity for each in still)
    latest.result_id, latest.at, latest.mode = result.id, result.at, result.mode
    latest.critical, latest.warning, latest.info = (counts[each] for each in SEVERITIES)
    latest.state = next((each for each in WORST_FIRST if counts[each]), "ok")
    latest.critical_since = min((each.first_seen for each in still if each.rank == 0), default=None)
    latest.worst = still[0].title if still else ""
    latest.summary = result.summary
    session.flush()


def forget_old(session: Session, operation: str, host_ids: Sequence[uuid.UUID]) -> None:
    """Forget results of hosts but the newest ones, and findings that were resolved long ago."""
    for start in range(0, len(host_ids), 500):
        ids = host_ids[start : start + 500]
        gone = (Finding.host_id.in_(ids), Finding.operation == operation)
        session.execute(delete(Finding).where(*gone, Finding.resolved_at < now() - RESOLVED_FOR))
        newest_first = MaintenanceResult.id.desc()
        place = (
            func.row_number().over(partition_by=MaintenanceResult.host_id, order_by=newest_first).label("place")
        )
        own = (MaintenanceResult.host_id.in_(ids), MaintenanceResult.operation == operation)
        placed = select(MaintenanceResult.id, place).where(*own).subquery()
        old = select(placed.c.id).where(placed.c.place > KEPT)
        gone_results = delete(MaintenanceResult).where(MaintenanceResult.id.in_(old))
        session.execute(gone_results, execution_options={"synchronize_session": False})


def list_results(
    session: Session,
    tenant_id: uuid.UUID,
    *,
    operation: str = "",
    host_id: uuid.UUID | None = None,
    job_id: uuid.UUID | None = None,
    mode: str = "",
    state: str = "",
    before: uuid.UUID | None = None,
    limit: int,
) -> list[tuple[MaintenanceResult, str]]:
    """Return results with their hosts' names, the newest first."""
    query = select(MaintenanceResult, Host.name).join(Host, Host.id == MaintenanceResult.host_id)
    query = query.where(MaintenanceResult.tenant_id == tenant_id).order_by(MaintenanceResult.id.desc())
    for column, value in (
        (MaintenanceResult.operation, operation),
        (MaintenanceResult.host_id, host_id),
        (MaintenanceResult.job_id, job_id),
        (MaintenanceResult.mode, mode),
        (MaintenanceResult.state, state),
    ):
        query = query.where(column == value) if value else query
    query = query.where(MaintenanceResult.id < before) if before else query
    return [(result, name) for result, name in session.execute(query.limit(limit))]


def get_result(session: Session, tenant_id: uuid.UUID, result_id: uuid.UUID) -> tuple[MaintenanceResult, str]:
    """Return a result and its host's name. Raises NotFound."""
    query = select(MaintenanceResult, Host.name).join(Host, Host.id == MaintenanceResult.host_id)
    query = query.where(MaintenanceResult.tenant_id == tenant_id, MaintenanceResult.id == result_id)
    found = session.execute(query).first()
    if found is None:
        raise NotFound("there is no such result: see GET /api/v1/maintenance/results")
    return found[0], found[1]


def before(session: Session, result: MaintenanceResult) -> MaintenanceResult | None:
    """Return the result before, of the same operation and host."""
    own = (MaintenanceResult.host_id == result.host_id, MaintenanceResult.operation == result.operation)
    query = select(MaintenanceResult).where(*own, MaintenanceResult.id < result.id)
    return session.scalar(query.order_by(MaintenanceResult.id.desc()).limit(1))


def compare(
    now_: Sequence[Mapping[str, Any]], then: Sequence[Mapping[str, Any]]
) -> dict[str, list[Mapping[str, Any]]]:
    """Return what is `new`, `gone` and the `same` between two results' findings."""
    old = {(each["id"], each["subject"]): each for each in then}
    new = {(each["id"], each["subject"]): each for each in now_}
    return {
        "new": [each for key, each in new.items() if key not in old],
        "gone": [each for key, each in old.items() if key not in new],
        "same": [each for key, each in new.items() if key in old],
    }


def list_findings(
    session: Session,
    tenant_id: uuid.UUID,
    *,
    operation: str = "",
    severity: str = "",
    kind: str = "",
    host_id: uuid.UUID | None = None,
    group: str = "",
    open_only: bool = True,
    after: tuple[int, uuid.UUID] | None = None,
    limit: int,
) -> list[tuple[Finding, str]]:
    """Return findings with their hosts' names, the worst first; open ones only of hosts in care."""
    columns: tuple[Any, ...] = (Finding, Host.name)
    query: Select[Any] = select(*columns)
    query = query.join(Host, Host.id == Finding.host_id)
    filters: dict[str, Any] = {
        "operation": operation,
        "severity": severity,
        "kind": kind,
        "host_id": host_id,
        "group": group,
    }
    query = query.where(*_matching(tenant_id, **filters))
    if open_only:
        query = query.where(Finding.resolved_at.is_(None), Host.state != "decommissioned")
    if after:
        rank, identity = after
        query = query.where(or_(Finding.rank > rank, (Finding.rank == rank) & (Finding.id > identity)))
    query = query.order_by(Finding.rank, Finding.id).limit(limit)
    return [(finding, name) for finding, name in session.execute(query)]


def list_fixable(
    session: Session,
    tenant_id: uuid.UUID,
    *,
    operation: str = "",
    severity: str = "",
    kind: str = "",
    host_id: uuid.UUID | None = None,
    group: str = "",
    limit: int,
) -> list[tuple[Finding, Host]]:
    """Return up to `limit` open findings that their operation can mend, with their hosts, the worst first."""
    columns: tuple[Any, ...] = (Finding, Host)
    query: Select[Any] = select(*columns)
    query = query.join(Host, Host.id == Finding.host_id)
    filters: dict[str, Any] = {
        "operation": operation,
        "severity": severity,
        "kind": kind,
        "host_id": host_id,
        "group": group,
    }
    query = query.where(*_matching(tenant_id, **filters), Finding.fixable)
    query = query.where(Finding.resolved_at.is_(None), Host.state != "decommissioned")
    rows = session.execute(query.order_by(Finding.rank, Finding.id).limit(limit))
    return [(finding, host) for finding, host in rows]


def _matching(
    tenant_id: uuid.UUID, *, operation: str, severity: str, kind: str, host_id: uuid.UUID | None, group: str
) -> list[Any]:
    """Return what a filter of findings means; empty values do not filter."""
    wanted: list[Any] = [Finding.tenant_id == tenant_id]
    wanted += [Finding.operation == operation] if operation else []
    wanted += [Finding.rank == SEVERITIES.index(severity)] if severity else []
    wanted += [Finding.kind == kind] if kind else []
    wanted += [Finding.host_id == host_id] if host_id else []
    if group:
        members = select(GroupMember.host_id).join(Group, Group.id == GroupMember.group_id)
        members = members.where(Group.tenant_id == tenant_id, Group.name == group)
        wanted.append(Finding.host_id.in_(members))
    return wanted


def decode_place(cursor: str | None) -> tuple[int, uuid.UUID] | None:
    """Return the rank and id in the cursor of a list of findings; None without one. Raises Invalid."""
    if not cursor:
        return None
    rank, identity = decode_cursor(cursor, 2)
    try:
        if rank not in range(len(SEVERITIES)):
            raise ValueError
        return int(rank), uuid.UUID(identity)
    except (ValueError, TypeError, AttributeError) as error:
        raise Invalid(OTHER_LIST, field="cursor") from error


def find(session: Session, tenant_id: uuid.UUID, ids: Sequence[uuid.UUID]) -> list[Finding]:
    """Return findings by id. Raises Invalid where one is unknown or resolved."""
    found = {
        each.id: each
        for start in range(0, len(ids), 500)
        for each in session.scalars(
            select(Finding).where(Finding.tenant_id == tenant_id, Finding.id.in_(ids[start : start + 500]))
        )
    }
    for each in ids:
        if each not in found:
            raise Invalid(f"there is no finding {each}: see GET /api/v1/maintenance/findings", field="findings")
        if found[each].resolved_at is not None:
            raise Invalid(f"the finding {each} is resolved already: leave it out", field="findings")
    return list(found.values())


def by_fix(findings: Sequence[Finding]) -> dict[tuple[str, tuple[str, ...]], list[uuid.UUID]]:
    """Return hosts by what is to be mended on them: (operation, references). One job each mends them all."""
    wanted: dict[tuple[str, uuid.UUID], set[str]] = defaultdict(set)
    for each in findings:
        wanted[each.operation, each.host_id].add(each.reference)
    jobs: dict[tuple[str, tuple[str, ...]], list[uuid.UUID]] = defaultdict(list)
    for (operation, host_id), references in wanted.items():
        jobs[operation, tuple(sorted(references))].append(host_id)
    return jobs


def overview(session: Session, tenant_id: uuid.UUID, operation: str = "") -> dict[str, dict[str, Any]]:
    """Return for each operation how many hosts are ok, warning and critical, their open findings, and when
    the newest result came."""
    columns = (
        MaintenanceLatest.operation,
        MaintenanceLatest.state,
        func.count(),
        func.sum(MaintenanceLatest.critical),
        func.sum(MaintenanceLatest.warning),
        func.sum(MaintenanceLatest.info),
        func.max(MaintenanceLatest.at),
    )
    query = select(*columns).join(Host, Host.id == MaintenanceLatest.host_id)
    query = query.where(MaintenanceLatest.tenant_id == tenant_id, Host.state != "decommissioned")
    query = query.where(MaintenanceLatest.operation == operation) if operation else query
    query = query.group_by(MaintenanceLatest.operation, MaintenanceLatest.state)
    out: dict[str, dict[str, Any]] = {}
    for name, state, hosts, *sums, at in session.execute(query):
        one = out.setdefault(name, {"hosts": Counter(), "at": None, **dict.fromkeys(SEVERITIES, 0)})
        one["hosts"][state] += hosts
        for severity, count in zip(SEVERITIES, sums, strict=True):
            one[severity] += int(count or 0)
        one["at"] = max(filter(None, (one["at"], at)), default=None)
    return out


def totals(session: Session, tenant_id: uuid.UUID, operation: str, names: Sequence[str]) -> dict[str, int]:
    """Return the sums of numbers in hosts' last summaries, by name; 0 where no host tells one."""
    columns = [func.sum(MaintenanceLatest.summary[name].as_integer()) for name in names]
    query = select(*columns).join(Host, Host.id == MaintenanceLatest.host_id)
    query = query.where(MaintenanceLatest.tenant_id == tenant_id, MaintenanceLatest.operation == operation)
    row = session.execute(query.where(Host.state != "decommissioned")).one()
    return {name: int(value or 0) for name, value in zip(names, row, strict=True)}


def kinds(session: Session, tenant_id: uuid.UUID, operation: str, limit: int = 8) -> list[dict[str, Any]]:
    """Return the commonest kinds of open findings, the worst first: kind, severity, a title, hosts."""
    hosts = func.count(func.distinct(Finding.host_id))
    rank = func.min(Finding.rank)
    query = select(Finding.kind, rank, func.max(Finding.title), hosts).join(Host, Host.id == Finding.host_id)
    query = query.where(Finding.tenant_id == tenant_id, Finding.operation == operation)
    query = query.where(Finding.resolved_at.is_(None), Host.state != "decommissioned")
    query = query.group_by(Finding.kind).order_by(rank, hosts.desc(), Finding.kind).limit(limit)
    return [
        {"kind": kind, "severity": SEVERITIES[rank], "title": title, "hosts": count}
        for kind, rank, title, count in session.execute(query)
    ]


def trend(
    session: Session, tenant_id: uuid.UUID, operation: str, days: int = 30
) -> list[tuple[date, Counter[str]]]:
    """Return for each of the last days, oldest first, how many results were ok, warning and critical."""
    today = now().date()
    first = now().replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days - 1)
    day = func.date(MaintenanceResult.at)
    query = select(day, MaintenanceResult.state, func.count())
    query = query.where(MaintenanceResult.tenant_id == tenant_id, MaintenanceResult.operation == operation)
    query = query.where(MaintenanceResult.at >= first).group_by(day, MaintenanceResult.state)
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for when, state, count in session.execute(query):
        found[str(when)][state] += count
    shown = [today - timedelta(days=ago) for ago in reversed(range(days))]
    return [(each, found[each.isoformat()]) for each in shown]
