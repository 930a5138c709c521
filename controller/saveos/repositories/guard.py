"""What guards report about repositories, checks of them, and people's approvals.

A guard is root on its storage server and may be hostile: its report is checked like any input, and
can say something only about repositories that its own server holds. Nothing here makes a guard
destroy anything: an approval is told to the guard, which judges it for itself.
"""

import hashlib
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from saveos.alerts.rules import one_line
from saveos.core.clock import now
from saveos.core.database import touch
from saveos.core.errors import Conflict, NotFound
from saveos.hosts.models import Host
from saveos.repositories.models import Approval, Check, Guard, GuardState, Repository, Sample

KEEP_CHECKS = 50  # of a repository
KEEP_SAMPLES = timedelta(days=800)
GRAVEST = ("failed", "damaged")
# Reasons that a person may lift; guards know no others.
LIFTED = ("vanished", "shrunk", "future", "unexpected", "freeable", "tampered", "key")

Bytes = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(ge=0, lt=2**31)]
Line = Annotated[str, Field(max_length=2000), AfterValidator(one_line)]
Code = Annotated[str, Field(max_length=40, pattern=r"^[a-z][a-z_]*$")]
Digest = Annotated[str, Field(max_length=64, pattern=r"^[0-9a-f]*$")]


def _aware(value: datetime) -> datetime:
    """Take a time without zone for UTC; refuse years that overflow."""
    if not 1970 <= value.year <= 2200:
        raise ValueError("the time must be between 1970 and 2200")
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


Moment = Annotated[datetime, AfterValidator(_aware)]


class Destroyed(BaseModel):
    """An archive that compact would make unreadable for good."""

    id: Annotated[str, Field(max_length=64)] = ""
    name: Annotated[str, Field(max_length=400), AfterValidator(one_line)] = ""


class Reason(BaseModel):
    """Why a guard does not compact a repository, or what it noticed; `holds` says which."""

    code: Code
    message: Line = ""
    level: Literal["info", "warning", "critical"] = "warning"
    holds: bool = True
    would_destroy: Annotated[list[Destroyed], Field(max_length=1000)] = []
    archives: Count | None = None
    bytes: Bytes | None = None


class Copy(BaseModel):
    """A copy that a guard holds back; `extra_bytes` is what it keeps beside the repository."""

    at: Moment
    extra_bytes: Bytes = 0
    good: bool | None = None
    why: Annotated[str, Field(max_length=20), AfterValidator(one_line)] = ""


class LastCheck(BaseModel):
    """A keyless check by the guard."""

    at: Moment
    state: Literal["ok", "damaged", "failed"]
    detail: Line = ""
    seconds: Annotated[float, Field(ge=0, lt=10**8)] | None = None


class RepositoryGuarded(BaseModel):
    """One repository in a guard's report."""

    id: Annotated[str, Field(max_length=64)]
    state: Literal["new", "ok", "held", "approved", "compacted", "damaged", "missing"]
    reasons: Annotated[list[Reason], Field(max_length=100)] = []
    digest: Digest = ""
    archives_expected: Count | None = None
    freeable_bytes: Bytes | None = None
    freeable_share: Annotated[float, Field(ge=0, le=1)] | None = None
    bytes: Bytes | None = None
    copies: Annotated[list[Copy], Field(max_length=2000)] = []
    held_bytes: Bytes | None = None
    last_check: LastCheck | None = None
    last_compact_at: Moment | None = None
    guard_seconds: Annotated[float, Field(ge=0, lt=10**8)] | None = None


class Refused(BaseModel):
    """A hold that the controller asked to shorten, and what the guard keeps instead."""

    asked: Annotated[float, Field(ge=-(2**31), lt=2**31)]
    kept: Annotated[float, Field(ge=0, lt=2**31)]


class GuardReport(BaseModel):
    """What `saveos-guard` reports of its storage server."""

    at: Annotated[str, Field(max_length=40)]
    version: Annotated[str, Field(max_length=60)] = ""
    hold_days: Annotated[float, Field(ge=0, le=100_000)]
    interval_seconds: Annotated[int, Field(ge=60, le=31 * 86_400)] = 3600
    clock_synced: bool | None = None
    free: Bytes | None = None
    total: Bytes | None = None
    hold_refused: Refused | None = None
    repositories: Annotated[list[RepositoryGuarded], Field(max_length=20_000)] = []


class CheckedArchive(BaseModel):
    """What a check found of one archive."""

    id: Annotated[str, Field(max_length=64)] = ""
    name: Annotated[str, Field(max_length=400), AfterValidator(one_line)] = ""
    state: Literal["ok", "damaged"]
    detail: Line = ""


class RepositoryChecked(BaseModel):
    """What a check found of one repository: in order, damaged, or that it could not be checked."""

    repository_id: uuid.UUID
    state: Literal["ok", "damaged", "failed"]
    detail: Line = ""
    seconds: Annotated[float, Field(ge=0, lt=10**8)] | None = None
    archives: Annotated[list[CheckedArchive], Field(max_length=5000)] = []


class Checked(BaseModel):
    """The result of the operation `check` at a host or a storage server."""

    at: Moment
    kind: Literal["keyless", "archives", "data"]
    repositories: Annotated[list[RepositoryChecked], Field(max_length=20_000)] = []


def record_guard(session: Session, server: Host, told: GuardReport, *, partial: bool = False) -> None:
    """Take over a guard's report; the same one twice changes nothing.

    A `partial` one was asked for some repositories only: of the others it says nothing.
    """
    at = now()
    guard = session.get(Guard, server.id)
    mark = _mark(told)
    if guard is not None and guard.at == mark:
        return
    if guard is None:
        guard = Guard(server_id=server.id, tenant_id=server.tenant_id, reported_at=at, hold_days=0)
        session.add(guard)
    guard.reported_at, guard.at, guard.version = at, mark, told.version
    guard.hold_days, guard.interval_seconds = int(told.hold_days), told.interval_seconds
    guard.clock_synced, guard.free, guard.total = told.clock_synced, told.free, told.total
    refused = told.hold_refused
    guard.refused = f"{refused.asked:g} days were asked, {refused.kept:g} are kept" if refused else ""
    own = _held_by(session, server)
    states = _states(session, server.tenant_id, list(own))
    session.add_all(_compare(own, states, told, at, partial=partial))
    _sample(session, server, own.values(), states, told, at.date())
    touch(session, server.tenant_id, "storage")


def _mark(told: GuardReport) -> str:
    """Return what tells a report from others, also from one of the same second."""
    return hashlib.sha256(told.model_dump_json().encode()).hexdigest()[:40]


def _held_by(session: Session, server: Host) -> dict[uuid.UUID, Repository]:
    query = select(Repository).where(
        Repository.tenant_id == server.tenant_id, Repository.server_id == server.id
    )
    return {each.id: each for each in session.scalars(query)}


def _states(session: Session, tenant_id: uuid.UUID, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, GuardState]:
    """Return the guard's states of repositories, made where there is none yet."""
    found: dict[uuid.UUID, GuardState] = {}
    for start in range(0, len(ids), 500):
        query = select(GuardState).where(GuardState.repository_id.in_(ids[start : start + 500]))
        found |= {each.repository_id: each for each in session.scalars(query)}
    for identity in ids:
        if identity not in found:
            found[identity] = GuardState(repository_id=identity, tenant_id=tenant_id)
            session.add(found[identity])
    return found


def _compare(
    own: dict[uuid.UUID, Repository],
    states: dict[uuid.UUID, GuardState],
    told: GuardReport,
    at: datetime,
    *,
    partial: bool,
) -> Iterator[Check]:
    seen = {each.id: each for each in told.repositories}
    for identity, repository in own.items():
        found, state = seen.get(str(identity)), states[identity]
        if found is not None:
            if check := _note(state, repository, found, at):
                yield check
        elif not partial and repository.initialised_at is not None and state.reported_at is not None:
            state.state, state.reported_at = "missing", at  # the guard knew it, and knows it no more
            state.detail = "its guard does not find it any more"


def _note(state: GuardState, repository: Repository, found: RepositoryGuarded, at: datetime) -> Check | None:
    """Take over what the guard says of a repository; return its keyless check where that is new."""
    state.reported_at, state.digest = at, found.digest
    state.state = "" if found.state == "missing" and repository.initialised_at is None else found.state
    state.held_since = (state.held_since or at) if found.state == "held" else None
    state.reasons = [each.model_dump(exclude_none=True) for each in found.reasons]
    for reason in state.reasons:
        reason["would_destroy"] = reason["would_destroy"][:50]
    state.detail = one_line(
        "; ".join(each.message.rstrip(".") or each.code for each in found.reasons if each.holds)
    )
    for name in ("archives_expected", "bytes", "freeable_bytes", "freeable_share", "last_compact_at"):
        setattr(state, name, getattr(found, name))
    held = sum(copy.extra_bytes for copy in found.copies) if found.held_bytes is None else found.held_bytes
    state.held_bytes, state.guard_seconds = min(held, 2**63 - 1), found.guard_seconds
    state.copies = [copy.model_dump(mode="json", exclude_none=True) for copy in found.copies]
    if found.bytes is not None:
        repository.size = found.bytes
    last = found.last_check
    if last and _is_new(state, last.at, at):
        state.keyless_told_at = last.at
        state.keyless_at, state.keyless_state = min(last.at, at), last.state
        _explain(state, last.state, last.detail)
        return Check(
            tenant_id=state.tenant_id,
            repository_id=repository.id,
            kind="keyless",
            state=last.state,
            at=state.keyless_at,
            seconds=last.seconds,
            detail=last.detail,
            archives=[],
        )
    return None


def _is_new(state: GuardState, told: datetime, at: datetime) -> bool:
    """Whether a check of this time, by the guard's clock, is not known yet; that clock may be set back."""
    known = state.keyless_told_at or state.keyless_at
    return known is None or told > known or (told != known and known > at)


def _explain(state: GuardState, outcome: str, detail: str) -> None:
    """Keep why a check failed; nothing where no kind of check fails any more."""
    if outcome != "ok":
        state.check_detail = one_line(detail)
    elif not {state.keyless_state, state.archives_state, state.data_state} & set(GRAVEST):
        state.check_detail = ""


def record_checks(
    session: Session, host: Host, told: Checked, allowed: Collection[uuid.UUID], *, at: datetime | None = None
) -> dict[uuid.UUID, RepositoryChecked]:
    """Take over what a check found, of repositories that the host may speak of; the same twice is once."""
    known = {each.repository_id: each for each in told.repositories if each.repository_id in allowed}
    states = _states(session, host.tenant_id, list(known))
    moment = min(told.at, at or now())
    for identity, found in known.items():
        state = states[identity]
        if getattr(state, f"{told.kind}_at") == moment:
            continue
        setattr(state, f"{told.kind}_at", moment)
        setattr(state, f"{told.kind}_state", found.state)
        _explain(state, found.state, found.detail)
        session.add(
            Check(
                tenant_id=host.tenant_id,
                repository_id=identity,
                kind=told.kind,
                state=found.state,
                at=moment,
                seconds=found.seconds,
                detail=found.detail,
                archives=[each.model_dump() for each in found.archives],
            )
        )
        _forget_checks(session, identity)
    touch(session, host.tenant_id, "storage")
    return known


def _forget_checks(session: Session, repository_id: uuid.UUID) -> None:
    session.flush()
    mine = Check.repository_id == repository_id
    last = session.scalar(select(Check.id).where(mine).order_by(Check.id.desc()).offset(KEEP_CHECKS).limit(1))
    if last is not None:
        session.execute(delete(Check).where(mine, Check.id <= last))


def _sample(  # noqa: PLR0917
    session: Session,
    server: Host,
    own: Iterable[Repository],
    states: dict[uuid.UUID, GuardState],
    told: GuardReport,
    day: date,
) -> None:
    """Note how large everything is, once a day; the last report of a day counts."""
    sizes = {each.id: (each.size, states[each.id].held_bytes or 0) for each in own if each.size is not None}
    ids = [server.id, *sizes]
    known: dict[uuid.UUID, Sample] = {}
    for start in range(0, len(ids), 500):
        query = select(Sample).where(Sample.subject_id.in_(ids[start : start + 500]), Sample.day == day)
        known |= {each.subject_id: each for each in session.scalars(query)}
    values: dict[uuid.UUID, tuple[int, int, int | None]] = {
        identity: (size or 0, held, None) for identity, (size, held) in sizes.items()
    }
    if told.free is not None and told.total is not None:
        held = min(sum(each[1] for each in values.values()), 2**63 - 1)
        values[server.id] = (max(0, told.total - told.free), held, told.free)
    for identity, (used, held, free) in values.items():
        row = known.get(identity)
        if row is None:
            row = Sample(subject_id=identity, day=day, tenant_id=server.tenant_id, used=used)
            session.add(row)
        row.used, row.held, row.free = used, held, free
    session.execute(delete(Sample).where(Sample.tenant_id == server.tenant_id, Sample.day < day - KEEP_SAMPLES))


def approve(
    session: Session, repository: Repository, *, reason: str, digest: str, days: int, note: str, by: str
) -> Approval:
    """Approve that a guard compacts a repository in spite of one reason.

    Raises Conflict unless the repository is held for that reason and `digest` is what it shows now.
    """
    state = session.get(GuardState, repository.id)
    if state is None or state.state not in ("held", "approved"):
        raise Conflict("the guard does not hold this repository: there is nothing to approve")
    if reason not in LIFTED:
        raise Conflict(f"no approval lifts {reason}: it lifts {', '.join(LIFTED)}", field="reason")
    if reason not in {each["code"] for each in state.reasons}:
        held = ", ".join(str(each["code"]) for each in state.reasons)
        raise Conflict(
            f"the repository is not held for {reason}: approve what it is held for ({held or 'nothing'})",
            field="reason",
        )
    if not digest or digest != state.digest:
        raise Conflict(
            "what compact would destroy has changed since it was shown: look at it again", field="digest"
        )
    until = now() + timedelta(days=days)
    row = Approval(
        tenant_id=repository.tenant_id,
        repository_id=repository.id,
        reason=reason,
        digest=digest,
        note=note.strip(),
        created_by=by[:150],
        until=until,
    )
    session.add(row)
    session.flush()
    touch(session, repository.tenant_id, "storage")
    return row


def revoke(session: Session, repository: Repository, approval_id: uuid.UUID, by: str) -> Approval:
    """Take an approval back; what a guard did meanwhile stays done. Raises NotFound, Conflict."""
    row = session.scalar(
        select(Approval).where(Approval.id == approval_id, Approval.repository_id == repository.id)
    )
    if row is None:
        raise NotFound("there is no such approval of this repository: see saveos repositories approvals")
    if row.revoked_at is not None:
        raise Conflict("the approval is revoked already")
    row.revoked_at, row.revoked_by = now(), by[:150]
    session.flush()
    touch(session, repository.tenant_id, "storage")
    return row


def approvals(
    session: Session, repository_ids: Sequence[uuid.UUID], *, valid_at: datetime | None = None
) -> dict[uuid.UUID, list[Approval]]:
    """Return approvals of repositories, newest first; with `valid_at` only those that hold then."""
    found: dict[uuid.UUID, list[Approval]] = {}
    for start in range(0, len(repository_ids), 500):
        part = repository_ids[start : start + 500]
        query = select(Approval).where(Approval.repository_id.in_(part)).order_by(Approval.id.desc())
        if valid_at:
            query = query.where(Approval.until > valid_at, Approval.revoked_at.is_(None))
        for row in session.scalars(query):
            found.setdefault(row.repository_id, []).append(row)
    return found


def list_checks(session: Session, repository: Repository, before: uuid.UUID | None, limit: int) -> list[Check]:
    """Return up to `limit` checks of a repository, newest first."""
    query = select(Check).where(Check.repository_id == repository.id).order_by(Check.id.desc()).limit(limit)
    return list(session.scalars(query.where(Check.id < before) if before else query))


def copies(state: GuardState | None) -> list[dict[str, Any]]:
    """Return the copies that a guard holds of a repository, newest first."""
    return sorted(state.copies if state else [], key=lambda each: str(each["at"]), reverse=True)
