"""Drills: the list by proof, a host's card, the overview's count, and drilling from a page."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from playwright.sync_api import Page, expect
from saveos.archives.models import Archive
from saveos.core.clock import now
from saveos.hosts.models import Host
from saveos.jobs.models import Job
from saveos.maintenance.models import Rebuild
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


def test_a_host_is_rebuilt_and_drilled_on_another_one(controller: Controller, page: Page) -> None:
    with controller.session() as session:
        archive = session.get_one(Archive, controller.made.archive_id)
        name = session.get_one(Host, archive.host_id).name
        others = select(Host.name).where(Host.is_agent, Host.state == "enrolled", Host.name != name)
        other = session.scalars(others.order_by(Host.name)).first()
        assert other is not None
    page.goto(f"{controller.url}/drills")
    for button, said in (("Drill there", "Restore drill"), ("Rebuild there", "The rebuild has begun")):
        page.get_by_label("Host", exact=True).fill(name)
        page.get_by_label("On another host").fill(other)
        page.get_by_role("button", name=button).click()
        expect(page.locator(".toast, [role=status]").filter(has_text=said).first).to_be_visible()
    card = page.get_by_role("region", name="Rebuilds")
    expect(card).to_contain_text(f"{name} → {other}")
    expect(card).to_contain_text("Provisioning")
    with controller.session() as session:
        job = session.scalars(select(Job).where(Job.operation == "drill").order_by(Job.id.desc())).first()
        assert job is not None and job.parameters["sandbox"] == other
        rebuild = session.scalars(select(Rebuild)).one()
        step = {"name": "provision", "job_id": str(rebuild.job_id), "state": "succeeded", "seconds": 31.5}
        rebuild.state, rebuild.step, rebuild.job_id, rebuild.steps = "proven", "", None, [step]
        rebuild.checks = [{"name": "hashes", "ok": True, "text": "4 files have the archive's SHA-256"}]
        rebuild.finished_at = rebuild.created_at + timedelta(seconds=75)
    page.reload()
    expect(card).to_contain_text("Proven")
    expect(card).to_contain_text("4 files have the archive's SHA-256")
