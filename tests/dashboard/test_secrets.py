"""Secrets and drift on pages: ages without values, rotation from the page, what differs and converging."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from saveos.core.clock import now
from saveos.hosts.models import Host
from saveos.jobs.models import Job
from saveos.maintenance.models import HostDrift
from saveos.repositories.models import Repository
from saveos.secrets.models import HeldSecret
from sqlalchemy import delete, select

from tests.dashboard.conftest import Controller

DIFF = "--- /etc/saveos/agent.json (is)\n+++ /etc/saveos/agent.json (should be)\n@@ -1 +1 @@\n-<b>7</b>\n+60\n"


@pytest.fixture
def told(controller: Controller) -> Iterator[str]:
    """A host that told of its secrets and was found drifted."""
    with controller.session() as session:
        host = session.scalars(select(Host).where(Host.name == controller.made.host)).one()
        store = session.scalars(select(Repository.id).where(Repository.host_id == host.id).limit(1)).one()
        for kind, subject, is_open in (("passphrase", str(store), True), ("ssh-key", "", False)):
            row = HeldSecret(
                tenant_id=host.tenant_id, host_id=host.id, kind=kind, subject=subject, open=is_open
            )
            row.made_at, row.private = now() - timedelta(days=400), True
            session.add(row)
        host.drifted_since = host.drift_checked_at = now() - timedelta(hours=3)
        session.add(HostDrift(host_id=host.id, tenant_id=host.tenant_id, changes=1, diff=DIFF))
    yield controller.made.host
    with controller.session() as session:
        host = session.scalars(select(Host).where(Host.name == controller.made.host)).one()
        host.drifted_since = host.drift_checked_at = None
        session.execute(delete(HostDrift))
        session.execute(delete(HeldSecret))


def test_secrets_are_listed_and_rotated(
    controller: Controller, page: Page, told: str, axe: Callable[[Page], list[Any]]
) -> None:
    page.goto(f"{controller.url}/maintenance/secrets")
    page.get_by_role("link", name="All secrets and their ages").click()
    expect(page.locator("h1")).to_have_text("Secrets")
    rows = page.locator("#list tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.filter(has_text="Passphrase of a repository")).to_contain_text("rotation interrupted")
    expect(page.get_by_role("region", name="The controller's own keys")).to_contain_text("Installation key")
    assert axe(page) == []
    page.get_by_role("link", name="SSH key", exact=True).click()
    expect(rows).to_have_count(1)
    page.goto(f"{controller.url}/secrets?kind=passphrase")
    page.locator("#list").get_by_role("button", name="Rotate").click()
    expect(page.locator("[role=status]").filter(has_text="Secrets").first).to_be_visible()
    with controller.session() as session:
        job = session.scalars(select(Job).where(Job.operation == "secrets").order_by(Job.id.desc())).first()
        assert job is not None
        assert job.parameters["rotate"] == "passphrase" and job.parameters["repository_id"]
    own = page.get_by_role("region", name="The controller's own keys")
    own.get_by_role("button", name="SSH key of the controller").click()
    expect(page.locator("[role=status]").filter(has_text="New SSH key of the controller").first).to_be_visible()
    expect(own).to_contain_text("still need it")
    expect(own.get_by_role("button", name="Finish the rotation")).to_be_visible()
    assert axe(page) == []


def test_a_drifted_host_shows_what_differs_and_is_converged(
    controller: Controller, page: Page, told: str, axe: Callable[[Page], list[Any]]
) -> None:
    page.goto(f"{controller.url}/hosts/{told}")
    card = page.locator("#drift")
    expect(card).to_contain_text("1 difference")
    expect(card.locator("del")).to_have_text("-<b>7</b>")
    expect(card.locator("ins")).to_have_text("+60")
    assert axe(page) == []
    card.get_by_role("button", name="Converge").click()
    with controller.session() as session:
        job = session.scalars(select(Job).where(Job.operation == "provision").order_by(Job.id.desc())).first()
        assert job is not None and job.mode == "run" and job.requested_by == "marie"
