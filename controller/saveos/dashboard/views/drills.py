"""Drills: when each host was last proven restorable, and what failed."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Query
from fastapi.responses import Response

from saveos.accounts.access import describe
from saveos.core.clock import now
from saveos.core.errors import Invalid
from saveos.core.i18n import gettext
from saveos.core.pagination import split
from saveos.dashboard import actions, words
from saveos.dashboard.rendering import View, url, view
from saveos.hosts import service
from saveos.hosts.schemas import Proof
from saveos.maintenance import rebuilds
from saveos.maintenance.rebuilds import RebuildIn, RebuildOut
from saveos.restores import service as restores

router = APIRouter(include_in_schema=False)
LIMIT, REBUILDS = 50, 10


@router.get("/drills")
def list_drills(
    page: Annotated[View, Depends(view("hosts:read"))],
    proof: Proof | None = None,
    cursor: Annotated[str, Query(max_length=1000)] = "",
) -> Response:
    """List hosts by name with what drills say of their archives."""
    chosen = proof or ""
    found = service.list_hosts(
        page.session, page.tenant_id, proof=chosen, cursor=cursor or None, limit=LIMIT + 1
    )
    hosts, following = split(found, LIMIT, lambda host: [host.name])
    at = now()
    return page.render(
        "drills/list.html",
        rows=[(host, words.proofs[service.proof_of(host, at)]) for host in hosts],
        chips=_chips(service.count_proofs(page.session, page.tenant_id), chosen),
        can_run=page.actor.may("jobs:write"),
        can_rebuild=all(page.actor.may(right) for right in rebuilds.RIGHTS),
        rebuilds=_rebuilds(page) if page.actor.may("restores:read") else [],
        first_page=url("/drills", proof=chosen) if cursor else "",
        next_page=url("/drills", proof=chosen, cursor=following) if following else "",
    )


Elsewhere = Annotated[View, Depends(view(restores.OTHER_HOST))]
Name = Annotated[str, Form(max_length=253)]


@router.post("/drills/sandbox")
def start_on_sandbox(page: Elsewhere, host: Name = "", sandbox: Name = "") -> Response:
    """Drill a host on another one; the toast leads to the job."""
    asked = _asked(host, sandbox)
    job = actions.start(page, "drill", [asked.host], parameters={"sandbox": asked.sandbox})
    return page.back("/drills", actions.flash(job))


@router.post("/drills/rebuilds")
def start_rebuild(page: Elsewhere, host: Name = "", sandbox: Name = "") -> Response:
    """Rebuild a host on another one."""
    rebuilds.check_rights(page.actor)
    asked = _asked(host, sandbox)
    made = rebuilds.request(
        page.session, page.tenant_id, asked, requested_by=page.actor.name, trigger="dashboard"
    )
    describe(page.session, f"rebuild:{made.id}", host=asked.host, sandbox=asked.sandbox)
    return page.back("/drills", "rebuilding")


def _asked(host: str, sandbox: str) -> RebuildIn:
    if not (host.strip() and sandbox.strip()):
        raise Invalid("name the host, and the other host on which", field="host")
    return RebuildIn(host=host.strip(), sandbox=sandbox.strip())


def _rebuilds(page: View) -> list[tuple[RebuildOut, words.Shown]]:
    found = rebuilds.list_rebuilds(page.session, page.tenant_id, limit=REBUILDS)
    return [(each, words.rebuilds[each.state]) for each in rebuilds.describe(page.session, found)]


def _chips(counts: dict[str, int], chosen: str) -> list[dict[str, Any]]:
    choices = [("", "none", gettext("All hosts"), sum(counts.values()))]
    choices += [
        (proof, shown.tone, gettext(shown.label), counts.get(proof, 0)) for proof, shown in words.proofs.items()
    ]
    return [
        {
            "tone": tone,
            "label": label,
            "count": count,
            "href": url("/drills", proof=proof),
            "current": proof == chosen,
        }
        for proof, tone, label, count in choices
    ]
