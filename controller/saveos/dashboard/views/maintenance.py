"""Maintenance: a card per operation; a page of each with its form, findings, results and trend; one result."""

import uuid
from collections import Counter
from datetime import UTC, datetime, time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import Response
from sqlalchemy import select

from saveos.accounts.access import describe
from saveos.core.clock import now
from saveos.core.errors import Conflict, Invalid, NotFound, Problem
from saveos.core.i18n import day as short_day
from saveos.core.i18n import gettext, number, size
from saveos.core.pagination import split
from saveos.core.settings import get_settings
from saveos.dashboard import actions, forms, parameters, queries, told, words
from saveos.dashboard.rendering import View, environment, redirect, url, view
from saveos.hosts import service as hosts
from saveos.maintenance import findings, service
from saveos.maintenance.operations import OPERATIONS, Operation
from saveos.maintenance.schemas import FindingFilter
from saveos.maintenance.system import SystemHealth, system_health
from saveos.schedules.models import Schedule

router = APIRouter(include_in_schema=False)
Reader = Annotated[View, Depends(view("jobs:read"))]
Writer = Annotated[View, Depends(view("jobs:write"))]
Typed = Annotated[str, Query(max_length=253)]
Cursor = Annotated[str, Query(max_length=1000)]
Severity = Literal["", "critical", "warning", "info"]
LIMIT, RESULTS, SHOWN_TITLES = 50, 10, 8
SUMS = {  # what pages sum up over hosts
    "cleanup": ("planned_bytes", "freed_bytes"),
    "dependencies": ("pending", "security", "cves", "held", "restarts", "projects", "vulnerable"),
}
SLUGS = {"health": "system-health"}  # pages with another name than their operation
LOOKS = ("health", "drift")  # change nothing: a dry run of them would be the same again
NAMES = {slug: name for name, slug in SLUGS.items()}
SHOWN = ("backup", "health", "cleanup", "validation", "dependencies", "secrets", "drift", "drill")


def slug_of(name: str) -> str:
    """Return the page of an operation."""
    return {"drill": "/drills", "rekey": "/secrets"}.get(name, f"/maintenance/{SLUGS.get(name, name)}")


def _operation(slug: str) -> Operation:
    """Return the operation of a page. Raises NotFound where it has none."""
    name = NAMES.get(slug, slug)
    if slug in SLUGS or name not in SHOWN or name not in OPERATIONS or name == "drill":
        raise NotFound("there is no such page: see /maintenance")
    return OPERATIONS[name]


@router.get("/maintenance")
def show_maintenance(page: Reader) -> Response:
    """Show a card per operation: how hosts stand, when it runs next, dry run."""
    stands = findings.overview(page.session, page.tenant_id)
    plans = _schedules(page)
    last = queries.last_jobs(page.session, page.tenant_id, SHOWN)
    cards = []
    for name in SHOWN:
        if name not in OPERATIONS:
            continue
        operation = OPERATIONS[name]
        cards.append(
            {
                "operation": operation,
                "title": gettext(words.operations[name]),
                "text": gettext(words.maintenance[name]),
                "image": words.maintenance_icons[name],
                "href": slug_of(name),
                "stand": stands.get(name),
                "plan": min(plans.get(name, []), key=lambda each: each.next_at or now(), default=None),
                "job": last.get(name),
            }
        )
    return page.render(
        "maintenance/list.html",
        cards=cards,
        protections=hosts.count_protection(page.session, page.tenant_id),
        proofs=hosts.count_proofs(page.session, page.tenant_id),
    )


def _schedules(page: View) -> dict[str, list[Schedule]]:
    """Return schedules that are on, by operation."""
    query = select(Schedule).where(Schedule.tenant_id == page.tenant_id, Schedule.enabled)
    found: dict[str, list[Schedule]] = {}
    for each in page.session.scalars(query.order_by(Schedule.next_at).limit(500)):
        found.setdefault(each.operation, []).append(each)
    return found


@router.post("/maintenance/findings/fix")
def fix(
    page: Writer,
    finding: Annotated[list[uuid.UUID], Form()],
    mode: Annotated[Literal["run", "check"], Form()] = "run",
) -> Response:
    """Let operations mend findings, and come back."""
    made = service.fix(page.session, page.actor, finding, mode=mode, trigger="dashboard")
    describe(page.session, "findings", mode=mode, findings=len(finding), jobs=[str(job.id) for job in made])
    return page.back("/maintenance", actions.flash(made[0]))


@router.get("/maintenance/{slug}/fix")
def confirm_fixes(
    page: Writer,
    slug: str,
    *,
    severity: Severity = "",
    kind: Typed = "",
    host: Typed = "",
    group: Typed = "",
) -> Response:
    """Show how many findings of a filter would be mended, to be confirmed."""
    filters = {"severity": severity, "kind": kind, "host": host.strip(), "group": group}
    return _confirm(page, _operation(slug), filters)


def _confirm(page: View, operation: Operation, filters: dict[str, str], error: str = "") -> Response:
    asked = FindingFilter(operation=operation.name, **filters)
    found, left_out = service.fixable(page.session, page.tenant_id, asked)
    titles = Counter(told.finding(each.kind, each.title).text for each in found)
    return page.render(
        "maintenance/fix.html",
        409 if error else 200,
        operation=operation,
        title=gettext(words.operations.get(operation.name, operation.name)),
        href=slug_of(operation.name),
        back=url(slug_of(operation.name), **filters),
        filters=filters,
        count=len(found),
        hosts=len({each.host_id for each in found}),
        titles=titles.most_common(SHOWN_TITLES),
        more=max(0, len(titles) - SHOWN_TITLES),
        left_out=left_out,
        error=error,
    )


@router.post("/maintenance/{slug}/fix")
def fix_all(
    page: Writer,
    slug: str,
    *,
    expected: Annotated[int, Form(ge=0)],
    mode: Annotated[Literal["run", "check"], Form()] = "run",
    severity: Annotated[Severity, Form()] = "",
    kind: Annotated[str, Form(max_length=253)] = "",
    host: Annotated[str, Form(max_length=253)] = "",
    group: Annotated[str, Form(max_length=253)] = "",
) -> Response:
    """Let an operation mend all findings of a filter, as many as were confirmed."""
    operation = _operation(slug)
    filters = {"severity": severity, "kind": kind, "host": host, "group": group}
    asked = FindingFilter(operation=operation.name, **filters)
    try:
        made = service.fix_matching(
            page.session, page.actor, asked, expected=expected, mode=mode, trigger="dashboard"
        )
    except Conflict as problem:
        return _confirm(page, operation, filters, problem.detail)
    describe(page.session, "findings", mode=mode, findings=expected, jobs=[str(job.id) for job in made])
    return redirect(url(slug_of(operation.name), **filters), actions.flash(made[0]))


@router.get("/maintenance/results/{result_id}")
def show_result(page: Reader, result_id: uuid.UUID) -> Response:
    """Show what one run came to on a host, beside the one before."""
    result, host = findings.get_result(page.session, page.tenant_id, result_id)
    before = findings.before(page.session, result)
    found = result.findings
    changes = findings.compare(found, before.findings if before else [])
    new = {(each["id"], each["subject"]) for each in changes["new"]} if before else set()
    return page.render(
        "maintenance/result.html",
        result=result,
        host=host,
        title=gettext(words.operations.get(result.operation, result.operation)),
        href=slug_of(result.operation),
        rows=[(each, (each["id"], each["subject"]) in new) for each in found],
        gone=changes["gone"],
        before=before,
        facts=_facts(result.summary),
    )


@router.get("/maintenance/{slug}")
def show_operation(
    page: Reader,
    slug: str,
    *,
    severity: Severity = "",
    kind: Typed = "",
    host: Typed = "",
    group: Typed = "",
    cursor: Cursor = "",
) -> Response:
    """Show an operation: how hosts stand, what is open, what runs came to, and a form to start it."""
    operation = _operation(slug)
    if operation.name == "backup":
        return _backups(page, host, cursor)
    filters = {"severity": severity, "kind": kind, "host": host.strip(), "group": group}
    return _page(page, operation, filters, cursor)


def _page(
    page: View,
    operation: Operation,
    filters: dict[str, str],
    cursor: str = "",
    *,
    typed: dict[str, list[str]] | None = None,
    error: Problem | None = None,
) -> Response:
    name, href = operation.name, slug_of(operation.name)
    found = _findings(page, name, filters, cursor)
    rows, following = split(found, LIMIT, lambda row: [row[0].rank, str(row[0].id)])
    fields = parameters.fields(operation, typed)
    known = {"hosts", *(each["name"] for each in fields)}
    problems, rest = forms.problems(_inner(error), known) if error else ({}, "")
    return page.render(
        "maintenance/operation.html",
        422 if error else 200,
        operation=operation,
        only_looks=name in LOOKS,
        title=gettext(words.operations.get(name, name)),
        text=gettext(words.maintenance[name]) if name in words.maintenance else operation.summary,
        own=_own_summary(name),
        system=_system(page) if name == "health" else None,
        href=href,
        stand=findings.overview(page.session, page.tenant_id, name).get(name),
        totals=findings.totals(page.session, page.tenant_id, name, SUMS.get(name, ())) if name in SUMS else {},
        kinds=findings.kinds(page.session, page.tenant_id, name),
        rows=rows,
        fixable=[finding for finding, _ in rows if finding.fixable and operation.fix_parameter],
        fix_href=url(f"{href}/fix", **filters),
        filters=filters,
        chips=_chips(page, name, filters),
        groups=queries.groups(page.session, page.tenant_id),
        results=findings.list_results(page.session, page.tenant_id, operation=name, limit=RESULTS),
        trend=_trend(page, name),
        plans=_schedules(page).get(name, []),
        fields=fields,
        typed=typed or {},
        problems=problems,
        error=rest,
        may_start=page.actor.may(operation.right),
        first_page=url(href, **filters) if cursor else "",
        next_page=url(href, **filters, cursor=following) if following else "",
    )


def _inner(error: Problem) -> Problem:
    """Return a problem whose field is the form's own: without `parameters.` before it."""
    field = (error.field or "").removeprefix("parameters.").split(".")[0]
    field = "hosts" if field == "targets" else field
    return Invalid(error.detail.removeprefix(f"{error.field}: "), field=field or None)


def _system(page: View) -> SystemHealth | None:
    """Return how the controller itself is, for who may know."""
    if not page.actor.may("system:read"):
        return None
    return system_health(page.session, get_settings())


def _own_summary(name: str) -> str:
    """Return the operation's own part of its page, where its owner made one."""
    template = f"maintenance/summary_{name}.html"
    return template if template in environment().list_templates() else ""


def _findings(page: View, name: str, filters: dict[str, str], cursor: str) -> list[Any]:
    try:
        host = hosts.get_host(page.session, page.tenant_id, filters["host"]).id if filters["host"] else None
    except NotFound:
        return []
    return findings.list_findings(
        page.session,
        page.tenant_id,
        operation=name,
        severity=filters["severity"],
        kind=filters["kind"],
        host_id=host,
        group=filters["group"],
        after=findings.decode_place(cursor or None),
        limit=LIMIT + 1,
    )


def _chips(page: View, name: str, filters: dict[str, str]) -> list[dict[str, Any]]:
    stand = findings.overview(page.session, page.tenant_id, name).get(name) or {}
    counts = {severity: stand.get(severity, 0) for severity in words.severities}
    choices = [("", "none", gettext("All findings"), sum(counts.values()))]
    choices += [
        (severity, words.severity_tones[severity], gettext(label).capitalize(), counts[severity])
        for severity, label in words.severities.items()
    ]
    return [
        {
            "tone": tone,
            "label": label,
            "count": count,
            "href": url(slug_of(name), **(filters | {"severity": severity})),
            "current": severity == filters["severity"],
        }
        for severity, tone, label, count in choices
    ]


def _trend(page: View, name: str) -> list[dict[str, Any]]:
    """Return a bar per day of the last 30: hosts whose last result of the day was ok, a warning, critical."""
    days = findings.trend(page.session, page.tenant_id, name)
    most = max((sum(counts.values()) for _, counts in days), default=0) or 1
    bars = []
    for place, (day, counts) in enumerate(days):
        parts, top = [], 60.0
        for tone, state in (("good", "ok"), ("warn", "warning"), ("bad", "critical")):
            height = 60 * counts.get(state, 0) / most
            top -= height
            if height:
                parts.append({"tone": tone, "y": round(top, 2), "height": round(height, 2)})
        bars.append(
            {
                "x": place * 10,
                "parts": parts,
                "name": short_day(datetime.combine(day, time(12), UTC)),
                "counts": counts,
            }
        )
    return bars


def _facts(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Return a summary's facts as they are shown: name and value."""
    return [
        (_fact_name(name), _fact_value(name, value))
        for name, value in summary.items()
        if isinstance(value, str | int | float)
    ]


def _fact_name(name: str) -> str:
    if label := words.facts.get(name):
        return gettext(label)
    return name.removesuffix("_bytes").replace("_", " ").capitalize()


def _fact_value(name: str, value: str | float) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return gettext("yes") if value else gettext("no")
    return size(int(value)) if name.endswith("_bytes") else number(value)


def _backups(page: View, host: str, cursor: str) -> Response:
    """Show every host's last backup, with a button to back it up now."""
    here, q = page.tenant_id, host.strip()
    found = hosts.list_hosts(page.session, here, q=q, cursor=cursor or None, limit=LIMIT + 1)
    listed, following = split(found, LIMIT, lambda row: [row.name])
    at = now()
    counts = hosts.count_protection(page.session, page.tenant_id)
    href = slug_of("backup")
    return page.render(
        "maintenance/backup.html",
        rows=[(row, words.protections[hosts.protection(row, at)]) for row in listed],
        host=host,
        chips=[
            {
                "tone": shown.tone,
                "label": gettext(shown.label),
                "count": counts.get(kind, 0),
                "href": f"/hosts?protection={kind}",
            }
            for kind, shown in words.protections.items()
        ],
        first_page=url(href, host=host) if cursor else "",
        next_page=url(href, host=host, cursor=following) if following else "",
    )


async def read_form(request: Request) -> dict[str, list[str]]:
    """Return what a form sent, by name; its fields depend on the operation."""
    typed: dict[str, list[str]] = {}
    for key, value in (await request.form(max_fields=500)).multi_items():
        if isinstance(value, str):
            typed.setdefault(key, []).append(value[:65_536])
    return typed


@router.post("/maintenance/{slug}")
def start(page: Writer, slug: str, typed: Annotated[dict[str, list[str]], Depends(read_form)]) -> Response:
    """Start an operation as its form says, and come back with a toast; or show the form with what is wrong."""
    operation = _operation(slug)
    href = slug_of(operation.name)
    chosen = forms.lines(typed.get("hosts", [""])[0])
    everything = typed.get("scope") == ["all"]
    try:
        with page.session.begin_nested():
            job = actions.start(
                page,
                operation.name,
                [] if everything else chosen,
                groups=[] if everything else typed.get("groups", []),
                everything=everything,
                mode="check" if typed.get("mode") == ["check"] else "run",
                parameters=parameters.values(operation, typed),
            )
    except Invalid as error:
        none = dict.fromkeys(("severity", "kind", "host", "group"), "")
        return _page(page, operation, none, typed=typed, error=error)
    return redirect(href, actions.flash(job))
