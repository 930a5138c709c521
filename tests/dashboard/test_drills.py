"""Drills: the list by proof, a host's card, the overview's count, and drilling from a page."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect
from saveos.core.clock import now
from saveos.hosts.models import Host
from saveos.jobs.models import Job
from sqlalchemy import select

from tests.dashboard.conftest import Controller

FAULT = "/srv/ledger: Data integrity error"
DRILL = {
    "sampled": 20,
    "compared": 18,
    "repositories": [
        {
            "databases": [
                {"kind": "postgresql", "name": "shop", "state": "failed", "rows": 0, "error": "it ends early"}
            ]
        }
    ],
}


@pytest.fixture
def failed(controller: Controller) -> Iterator[str]:
    """The name of a host whose last drill failed."""
    with controller.session() as session:
        host = session.scalars(select(Host).where(Host.name == controller.made.host)).one()
        before = host.last_drill_state, host.facts
        host.last_drill_state, host.drill_error, host.last_drill_at = "failed", FAULT, now()
        host.facts = host.facts | {"drill": DRILL}
    yield controller.made.host
    with controller.session() as session:
        host = session.scalars(select(Host).where(Host.name == controller.made.host)).one()
        (host.last_drill_state, host.facts), host.drill_error = before, ""


def test_a_failed_drill_is_counted_listed_and_named(controller: Controller, page: Page, failed: str) -> None:
    page.goto(f"{controller.url}/")
    page.get_by_role("link", name="Proven restorable").click()
    expect(page.locator("h1")).to_have_text("Drills")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody tr")).to_contain_text(FAULT)
    page.get_by_role("link", name=failed).click()
    card = page.get_by_role("region", name="Proof of restore")
    expect(card).to_contain_text("Drill failed")
    expect(card).to_contain_text(FAULT)
    expect(card).to_contain_text("20 restored, 18 of them compared with the live file")
    expect(card).to_contain_text("it ends early")


def test_a_host_is_drilled_from_its_page(controller: Controller, page: Page) -> None:
    page.goto(f"{controller.url}/hosts/{controller.made.host}")
    page.get_by_role("button", name="Drill now").click()
    expect(page.locator(".toast, [role=status]").filter(has_text="Restore drill").first).to_be_visible()
    with controller.session() as session:
        job = session.scalars(select(Job).where(Job.operation == "drill").order_by(Job.id.desc())).first()
        assert job is not None
        assert (job.hosts_total, job.parameters["sample"]) == (1, 20)
