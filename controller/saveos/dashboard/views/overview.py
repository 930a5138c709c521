"""The first page: how the whole fleet is."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.responses import HTMLResponse, Response

from saveos.core.i18n import day, gettext, ngettext, number
from saveos.dashboard import queries, words
from saveos.dashboard.rendering import View, environment, view
from saveos.hosts import service as hosts
from saveos.jobs import service as jobs

router = APIRouter(include_in_schema=False)
CHART = (300, 96)
SHOWN = 8


@dataclass(frozen=True)
class Step:
    """A step of the first-run guide."""

    title: str
    text: str
    done: bool
    current: bool
    href: str
    action: str


@router.get("/")
def show_overview(page: Annotated[View, Depends(view("hosts:read"))]) -> Response:
    """Show what is protected, what needs attention, what runs."""
    counts = hosts.count_protection(page.session, page.tenant_id)
    archives, last_at = queries.archive_totals(page.session, page.tenant_id)
    if not archives:
        return page.render("overview/page.html", guide=_guide(page, sum(counts.values())))
    agents = sum(count for kind, count in counts.items() if kind != "none")
    attention = sum(counts.get(kind, 0) for kind in words.ATTENTION)
    worst = next((kind for kind in words.ATTENTION if counts.get(kind)), "")
    days = queries.backup_days(page.session, page.tenant_id)
    stored, original = queries.stored(page.session, page.tenant_id)
    proofs = hosts.count_proofs(page.session, page.tenant_id)
    totals = {
        "proven": proofs.get("proven", 0),
        "drill_failed": proofs.get("failed", 0),
        "agents": agents,
        "protected": counts.get("protected", 0),
        "share": counts.get("protected", 0) / agents if agents else 0,
        "attention": attention,
        "attention_href": f"/hosts?protection={worst}" if worst else "/hosts",
        "failed_day": days[-1].counts.get("bad", 0) + days[-2].counts.get("bad", 0),
        "runs_day": days[-1].total + days[-2].total,
        "archives": archives,
        "last_archive_at": last_at,
        "stored": stored,
        "original": original,
    }
    return page.render(
        "overview/page.html",
        guide=None,
        hero=_hero(counts, attention, agents),
        totals=totals,
        days=_bars(days),
        days_label=_days_label(days),
        attention=queries.host_rows(page.session, _needing(page, counts)),
        matrix=queries.job_matrix(page.session, page.tenant_id),
        **_running(page),
    )


@router.get("/menu")
def show_menu(page: Annotated[View, Depends(view("hosts:read"))]) -> Response:
    """Show what has no place in a phone's bar."""
    return page.render("menu.html")


@router.get("/running")
def show_running(page: Annotated[View, Depends(view("hosts:read"))]) -> Response:
    """Return what goes on, alone: the overview's live part."""
    return HTMLResponse(environment().get_template("overview/running.html").render(**_running(page)))


def _running(page: View) -> dict[str, Any]:
    active = jobs.list_jobs(page.session, page.tenant_id, limit=SHOWN, state="active")
    return {
        "running": queries.job_rows(page.session, active),
        "backups": queries.running_now(page.session, page.tenant_id, SHOWN),
        "running_count": queries.count_running(page.session, page.tenant_id),
    }


def _guide(page: View, known: int) -> list[Step]:
    pending = hosts.list_hosts(page.session, page.tenant_id, limit=1)
    enrolled = hosts.list_hosts(page.session, page.tenant_id, state="enrolled", limit=1)
    first = next(iter(enrolled or pending), None)
    href = f"/hosts/{first.name}" if first else "/hosts"
    return [
        Step(
            gettext("Add a host"),
            gettext(
                "Paste one line on it, or let SaveOS come over SSH: name and address, and you confirm its key."
            ),
            known > 0,
            known == 0,
            "/hosts/enrol",
            gettext("Enrol hosts"),
        ),
        Step(
            gettext("Provision it"),
            gettext("Installs the agent over SSH, makes its keys on the host and its repository."),
            bool(enrolled),
            known > 0 and not enrolled,
            href,
            gettext("Open the host"),
        ),
        Step(
            gettext("Make the first backup"),
            gettext("By its timer tonight, or right now."),
            False,
            bool(enrolled),
            href,
            gettext("Open the host"),
        ),
    ]


def _hero(counts: dict[str, int], attention: int, agents: int) -> dict[str, str]:
    if attention:
        bad = counts.get("failing", 0) + counts.get("silent", 0)
        title = ngettext("%(num)s host needs attention", "%(num)s hosts need attention", attention)
        parts = [
            gettext("%(word)s: %(count)s")
            % {"word": gettext(words.protections[kind].label), "count": number(counts[kind])}
            for kind in words.ATTENTION
            if counts.get(kind)
        ]
        tone = "bad" if bad else "warn"
        return {"tone": tone, "title": title % {"num": number(attention)}, "text": " · ".join(parts)}
    never = counts.get("never", 0)
    if never:
        title = ngettext("%(num)s host has no archive yet", "%(num)s hosts have no archive yet", never)
        text = gettext("Everything else is protected.")
        return {"tone": "warn", "title": title % {"num": number(never)}, "text": text}
    title = ngettext("The host is protected", "All %(num)s hosts are protected", agents)
    text = gettext("Every host has an archive as recent as its policy asks.")
    return {"tone": "good", "title": title % {"num": number(agents)}, "text": text}


def _needing(page: View, counts: dict[str, int]) -> list[Any]:
    found: list[Any] = []
    for kind in words.ATTENTION:
        if counts.get(kind) and len(found) < SHOWN:
            room = SHOWN - len(found)
            found += hosts.list_hosts(page.session, page.tenant_id, protection=kind, limit=room)
    return found


def _bars(days: list[queries.Day]) -> list[dict[str, Any]]:
    """Return the bars of the chart in its own units; failures on top, where they are seen."""
    width, height = CHART
    most = max((each.total for each in days), default=0) or 1
    bars = []
    for place, each in enumerate(days):
        parts, bottom = [], float(height)
        for tone in ("good", "warn", "bad"):
            count = each.counts.get(tone, 0)
            if count:
                tall = max(count / most * (height - 4), 2.5)
                bottom -= tall
                parts.append({"tone": tone, "y": round(bottom, 2), "height": round(tall, 2)})
        if not parts:
            parts = [{"tone": "none", "y": height - 2, "height": 2}]
        name = day(queries.midnight(each.date))
        good = each.counts.get("good", 0) + each.counts.get("warn", 0)
        title = f"{name}: {number(good)} ✓ {number(each.counts.get('bad', 0))} ✕"
        bars.append({"x": round(place * width / len(days), 2), "parts": parts, "name": name, "title": title})
    return bars


def _days_label(days: list[queries.Day]) -> str:
    good = sum(each.counts.get("good", 0) + each.counts.get("warn", 0) for each in days)
    bad = sum(each.counts.get("bad", 0) for each in days)
    text = gettext("Backups of the last 30 days: %(good)s succeeded, %(bad)s failed")
    return text % {"good": number(good), "bad": number(bad)}
