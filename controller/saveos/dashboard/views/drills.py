"""Drills: when each host was last proven restorable, and what failed."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from saveos.core.clock import now
from saveos.core.i18n import gettext
from saveos.core.pagination import split
from saveos.dashboard import words
from saveos.dashboard.rendering import View, url, view
from saveos.hosts import service
from saveos.hosts.schemas import Proof

router = APIRouter(include_in_schema=False)
LIMIT = 50


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
        first_page=url("/drills", proof=chosen) if cursor else "",
        next_page=url("/drills", proof=chosen, cursor=following) if following else "",
    )


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
