"""The palette: hosts, jobs and actions by a few letters."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.responses import Response

from saveos.core.i18n import gettext
from saveos.core.inputs import Filter
from saveos.dashboard import queries
from saveos.dashboard.rendering import View, operation, target, url, view
from saveos.hosts import service as hosts
from saveos.jobs import service as jobs

router = APIRouter(include_in_schema=False)
MOST = 24  # shown


@router.get("/find")
def find(page: Annotated[View, Depends(view("hosts:read"))], q: Filter = "") -> Response:
    """Find pages, hosts and jobs; without words, the places one goes to most."""
    wish = q.strip().lower()
    results = [each for each in _places(page) if wish in each["label"].lower()]
    if wish:
        found = hosts.list_hosts(page.session, page.tenant_id, q=wish, limit=8)
        results = _hosts(found) + results
        if len(found) == 8:
            every = _result(url("/hosts", q=wish), "search", gettext("All hosts with %(words)s") % {"words": q})
            results.append(every)
    recent = jobs.list_jobs(page.session, page.tenant_id, limit=40 if wish else 4)
    for row in queries.job_rows(page.session, recent):
        label = f"{operation(row.job)} · {target(row)}"
        if wish in label.lower() and len(results) < MOST:
            results.append(_result(f"/jobs/{row.job.id}", "list-check", label, gettext("job")))
    return page.render("find/page.html", q=q, results=results[:MOST])


def _result(href: str, image: str, label: str, kind: str = "") -> dict[str, str]:
    return {"href": href, "image": image, "label": label, "kind": kind}


def _hosts(found: list[Any]) -> list[dict[str, str]]:
    # icon="server-2" icon="search" icon="list-check"
    return [_result(f"/hosts/{host.name}", "server-2", host.name, gettext("host")) for host in found]


def _places(page: View) -> list[dict[str, str]]:
    # icon="layout-dashboard" icon="history" icon="restore" icon="settings" icon="plus"
    # icon="bell" icon="alert-triangle" icon="clock" icon="calendar-time" icon="clipboard-list"
    # icon="shield-check" icon="tool" icon="database" icon="key" icon="search"
    # icon="users" icon="clipboard-text"
    places = [
        _result("/", "layout-dashboard", gettext("Overview"), gettext("page")),
        _result("/hosts", "server-2", gettext("Hosts"), gettext("page")),
        _result("/jobs", "list-check", gettext("Jobs"), gettext("page")),
        _result("/jobs?state=problem", "alert-triangle", gettext("Jobs with problems"), gettext("page")),
        _result("/alerts", "bell", gettext("Alerts"), gettext("page")),
        _result("/archives", "history", gettext("Archives"), gettext("page")),
        _result("/restores", "restore", gettext("Restores"), gettext("page")),
        _result("/files", "search", gettext("Find files"), gettext("page")),
        _result("/drills", "shield-check", gettext("Drills"), gettext("page")),
        _result("/maintenance", "tool", gettext("Maintenance"), gettext("page")),
        _result("/storage", "database", gettext("Storage"), gettext("page")),
        _result("/policies", "clipboard-list", gettext("Policies"), gettext("page")),
        _result("/schedules", "calendar-time", gettext("Schedules"), gettext("page")),
        _result("/settings", "settings", gettext("Settings"), gettext("page")),
    ]
    if page.actor.may("users:read"):
        places.append(_result("/team", "users", gettext("Team"), gettext("page")))
    if page.actor.may("audit:read"):
        places.append(_result("/audit", "clipboard-text", gettext("Audit trail"), gettext("page")))
    if page.actor.may("secrets:read"):
        places.append(_result("/secrets", "key", gettext("Secrets"), gettext("page")))
    if page.actor.may("hosts:write"):
        places.append(_result("/hosts/enrol", "plus", gettext("Enrol hosts"), gettext("action")))
        places.append(_result("/hosts/new", "plus", gettext("Add a host"), gettext("action")))
        places.append(_result("/hosts/enrol/waiting", "clock", gettext("Hosts that asked"), gettext("page")))
    return places
