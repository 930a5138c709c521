"""Acts of the trail: all that a route notes has a name for people, and objects lead to their pages."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest
import saveos
from fastapi import APIRouter
from saveos.dashboard import acts


def noted(dependant: Any) -> bool:
    """Whether a route's write is noted, by accounts.access.require."""
    return getattr(dependant.call, "__name__", "") == "check_and_note" or any(
        map(noted, dependant.dependencies)
    )


def writes() -> Iterator[str]:
    """Yield what the trail calls the writes of all features and of the dashboard, as their routes are named."""
    for each in pkgutil.walk_packages(saveos.__path__, "saveos."):
        if each.name.endswith(".api") or each.name.startswith("saveos.dashboard.views."):
            for route in getattr(importlib.import_module(each.name), "router", APIRouter()).routes:
                is_agents = getattr(route, "path", "").startswith("/agents/")
                if hasattr(route, "dependant") and not is_agents and noted(route.dependant):
                    yield from [route.name.replace("_", " ")] * bool(route.methods - {"GET", "HEAD"})


def test_every_act_that_a_route_notes_has_a_name() -> None:
    found = set(writes())
    assert len(found) > 60
    assert {name for name in found if acts.SAME.get(name, name) not in acts.LABELS} == set()
    assert not set(acts.SAME) - found, "no route has this name any more"


@pytest.mark.parametrize(
    ("object_", "page"),
    [
        ("host:web1", "/hosts/web1"),
        ("job:01890000-0000-7000-8000-000000000000", "/jobs/01890000-0000-7000-8000-000000000000"),
        ("jobs/01890000-0000-7000-8000-000000000000/cancel", "/jobs/01890000-0000-7000-8000-000000000000"),
        ("policy:default", "/policies/default"),
        ("policy:a/../b", ""),
        ("host:../users", ""),
        ("token:ci", ""),
        ("settings", "/settings"),
    ],
)
def test_an_object_leads_to_its_page(object_: str, page: str) -> None:
    assert acts.page_of(object_) == page
