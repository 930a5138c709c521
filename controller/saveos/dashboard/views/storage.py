"""Storage: how full servers are, what guards hold and why, approvals, undo, checks, growth."""

import json
import uuid
from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, Query
from fastapi.responses import Response

from saveos.accounts.access import describe
from saveos.core.clock import now
from saveos.core.errors import Problem
from saveos.core.i18n import SIZE_UNITS, gettext, language
from saveos.core.inputs import Filter
from saveos.core.pagination import decode_id, split
from saveos.dashboard import actions, words
from saveos.dashboard.rendering import View, redirect, url, view
from saveos.dashboard.sentences import sentence
from saveos.jobs.models import Job
from saveos.repositories import guard, service, storage
from saveos.repositories.models import GuardState, Repository, Sample
from saveos.repositories.schemas import GuardOut, Reason, ServerStorageOut

router = APIRouter(include_in_schema=False)
Reader = Annotated[View, Depends(view("repositories:read"))]
Operator = Annotated[View, Depends(view("jobs:write"))]
Approver = Annotated[View, Depends(view("repositories:approve"))]
Undoer = Annotated[View, Depends(view("repositories:undo"))]
Typed = Annotated[str, Form(max_length=253)]
State = Literal["", "held", "damaged", "missing", "approved", "ok", "compacted", "broken"]
LIMIT = 50
DAYS = 90


@router.get("/storage")
def list_storage(
    page: Reader,
    state: State = "",
    server: Filter = "",
    host: Filter = "",
    cursor: Annotated[str, Query(max_length=1000)] = "",
) -> Response:
    """Show servers with their forecast, and repositories with what guards say of them."""
    filters = {"state": state, "server": server, "host": host.strip()}
    rows, following = split(_find(page, filters, cursor), LIMIT, lambda row: [str(row.repository_id)])
    servers = storage.list_servers(page.session, page.tenant_id)
    chosen = [each for each in servers if not server or each.server == server]
    grown = storage.growth(page.session, [each.server_id for each in chosen], DAYS)
    return page.render(
        "storage/list.html",
        rows=[_row(row) for row in rows],
        servers=servers,
        sums=_sums(chosen),
        chart=chart(_added(grown.values())),
        chips=_chips(storage.totals(page.session, page.tenant_id), filters),
        filters=filters,
        first_page=url("/storage", **filters) if cursor else "",
        next_page=url("/storage", **filters, cursor=following) if following else "",
    )


def _find(page: View, filters: dict[str, str], cursor: str) -> list[GuardOut]:
    """Return a page of repositories and one more; none for a host or server that there is not."""
    after = decode_id(cursor or None)
    try:
        return storage.list_guarded(page.session, page.tenant_id, **filters, after=after, limit=LIMIT + 1)
    except Problem:
        return []


def _row(found: GuardOut) -> dict[str, Any]:
    used = found.size / found.quota_bytes if found.size is not None and found.quota_bytes else None
    return {
        "is": found,
        "state": words.guards[found.state],
        "why": [reason_words(each)[0] for each in found.reasons if each.holds],
        "used": used,
        "check": _worst(found),
    }


def _worst(found: GuardOut) -> tuple[str, datetime, words.Shown] | None:
    """Return the last check that failed, else the last one; None where there was none."""
    known = [(kind, at, shown) for kind, at, shown in _checks(found) if at]
    return max(known, key=lambda each: (each[2].tone == "bad", each[1]), default=None)


def _checks(found: GuardOut) -> list[tuple[str, datetime | None, words.Shown]]:
    kinds = (
        ("keyless", found.keyless_at, found.keyless_state),
        ("archives", found.archives_at, found.archives_state),
        ("data", found.data_at, found.data_state),
    )
    return [(kind, at, words.checked[state]) for kind, at, state in kinds]


def reason_words(reason: Reason) -> tuple[str, str]:
    """Return a reason's title and what it means, in the reader's language; else as the guard says it."""
    known = words.guard_reasons.get(reason.code)
    return (gettext(known[0]), gettext(known[1])) if known else (reason.code, reason.message)


def _sums(servers: Sequence[ServerStorageOut]) -> dict[str, Any]:
    known = [each for each in servers if each.used is not None and each.free is not None]
    ends = [each.full_in_days for each in servers if each.full_in_days is not None]
    return {
        "used": sum(each.used or 0 for each in known) if known else None,
        "free": sum(each.free or 0 for each in known) if known else None,
        "held": sum(each.held_bytes for each in servers),
        "full": min(ends) if ends else None,
    }


def _added(samples: Any) -> list[tuple[date, int, int]]:
    """Return used and held bytes by day, over several servers; a day that one lacks is left out of its sum."""
    days: dict[date, tuple[int, int]] = {}
    for each in samples:
        for sample in each:
            used, held = days.get(sample.day, (0, 0))
            days[sample.day] = used + sample.used, held + sample.held
    return [(day, *days[day]) for day in sorted(days)]


def chart(points: Sequence[tuple[date, int, int]]) -> dict[str, str] | None:
    """Return the attributes of a chart of used and held bytes; None with fewer than two days."""
    if len(points) < 2:
        return None
    series = [
        {"label": gettext("Used"), "values": [used for _, used, _ in points]},
        {"label": gettext("Held back by guards"), "values": [held for _, _, held in points]},
    ]
    return {
        "times": json.dumps([int(datetime.combine(day, time(12), UTC).timestamp()) for day, _, _ in points]),
        "series": json.dumps(series),
        "units": json.dumps(SIZE_UNITS[language()]),
    }


def _chips(totals: dict[str, Any], filters: dict[str, str]) -> list[dict[str, Any]]:
    choices = [("", "none", gettext("All repositories"), totals["repositories"])]
    choices += [
        (state, shown.tone, gettext(shown.label), totals["states"].get(state, 0))
        for state, shown in words.guards.items()
        if state in storage.STATES
    ]
    choices.append(("broken", "bad", gettext("Check failed"), totals["broken"]))
    return [
        {
            "tone": tone,
            "label": label,
            "count": count,
            "href": url("/storage", **(filters | {"state": state})),
            "current": state == filters["state"],
        }
        for state, tone, label, count in choices
        if count or state in ("", "held", "ok")
    ]


@router.get("/storage/{repository_id}")
def show_storage(page: Reader, repository_id: uuid.UUID) -> Response:
    """Show one repository: why it is held, what would be destroyed, approvals, copies, checks, growth."""
    return _show(page, service.get_repository(page.session, page.tenant_id, repository_id))


def _show(page: View, repository: Repository, error: str = "", form: str = "") -> Response:
    found = storage.describe_guarded(page.session, repository)
    samples: list[Sample] = storage.growth(page.session, [repository.id], DAYS).get(repository.id, [])
    at = now()
    return page.render(
        "storage/repository.html",
        422 if error else 200,
        repository=repository,
        row=_row(found),
        checks=_checks(found),
        reasons=[(each, *reason_words(each)) for each in found.reasons],
        liftable=[
            (each.code, reason_words(each)[0])
            for each in found.reasons
            if each.holds and each.code in guard.LIFTED
        ],
        approvals=guard.approvals(page.session, [repository.id]).get(repository.id, [])[:20],
        valid=lambda each: each.revoked_at is None and each.until > at,
        copies=[
            each | {"moment": datetime.fromisoformat(each["at"])}
            for each in guard.copies(page.session.get(GuardState, repository.id))
        ],
        history=guard.list_checks(page.session, repository, None, 10),
        chart=chart([(each.day, each.used, each.held) for each in samples]),
        can_approve=page.actor.may("repositories:approve"),
        can_undo=page.actor.may("repositories:undo") and found.server is not None,
        error=error,
        form=form,
    )


@router.post("/storage/{repository_id}/approve")
def approve(  # noqa: PLR0917 - the fields of a form
    page: Approver,
    repository_id: uuid.UUID,
    reason: Annotated[str, Form(max_length=40)] = "",
    digest: Annotated[str, Form(max_length=64)] = "",
    days: Annotated[Literal["1", "3", "7"], Form()] = "1",
    note: Annotated[str, Form(max_length=500)] = "",
    name: Typed = "",
) -> Response:
    """Approve what the page showed, for who types the host's name."""
    repository = service.get_repository(page.session, page.tenant_id, repository_id)
    error = _mistyped(page, repository, name)
    if not error:
        try:
            row = guard.approve(
                page.session,
                repository,
                reason=reason,
                digest=digest,
                days=int(days),
                note=note,
                by=page.actor.name,
            )
        except Problem as problem:
            error = sentence(problem.detail)
    if error:
        return _show(page, repository, error, "approve")
    describe(page.session, f"repository:{repository.id}", reason=row.reason, digest=row.digest, days=int(days))
    return redirect(f"/storage/{repository.id}", "compaction-approved")


@router.post("/storage/{repository_id}/approvals/{approval_id}/revoke")
def revoke(page: Approver, repository_id: uuid.UUID, approval_id: uuid.UUID) -> Response:
    """Take an approval back."""
    repository = service.get_repository(page.session, page.tenant_id, repository_id)
    row = guard.revoke(page.session, repository, approval_id, page.actor.name)
    describe(page.session, f"repository:{repository.id}", reason=row.reason, revoked=str(row.id))
    return redirect(f"/storage/{repository.id}", "approval-revoked")


@router.post("/storage/{repository_id}/undo")
def undo(
    page: Undoer,
    repository_id: uuid.UUID,
    to: Annotated[str, Form(max_length=40)] = "latest-good",
    preview: Annotated[bool, Form()] = False,
    name: Typed = "",
) -> Response:
    """Roll a repository back to a copy, for who types its host's name; `preview` only says what that does."""
    repository = service.get_repository(page.session, page.tenant_id, repository_id)
    error = "" if preview else _mistyped(page, repository, name)
    if not error:
        try:
            with page.session.begin_nested():
                job = _start(page, repository, "undo", "check" if preview else "run", to=to)
        except Problem as problem:
            error = sentence(problem.detail)
    if error:
        return _show(page, repository, error, "undo")
    return redirect(f"/jobs/{job.id}", actions.flash(job))


@router.post("/storage/{repository_id}/check")
def check(
    page: Operator, repository_id: uuid.UUID, kind: Annotated[Literal["keyless", "archives", "data"], Form()]
) -> Response:
    """Check a repository now."""
    repository = service.get_repository(page.session, page.tenant_id, repository_id)
    found = storage.describe_guarded(page.session, repository)
    parameters = {"kind": kind, "repository_ids": [str(repository.id)]}
    job = actions.start(page, "check", [found.host], parameters=parameters)
    return redirect(f"/storage/{repository.id}", actions.flash(job))


def _start(page: View, repository: Repository, operation: str, mode: str, **parameters: Any) -> Job:
    host = storage.describe_guarded(page.session, repository).host
    asked = {"repository_id": str(repository.id)} | parameters
    return actions.start(page, operation, [host], mode=mode, parameters=asked)


def _mistyped(page: View, repository: Repository, name: str) -> str:
    host = storage.describe_guarded(page.session, repository).host
    return "" if name.strip() == host else gettext("Type %(name)s to confirm") % {"name": host} + "."
