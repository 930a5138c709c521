"""Alerts: list by state, acknowledge, mute and unmute, live, in the reader's language."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from saveos.alerts.models import Alert
from saveos.alerts.service import open_alert, resolve_alert
from saveos.core.clock import now
from saveos.hosts.models import Host
from sqlalchemy import select

from tests.dashboard.conftest import Controller


@pytest.fixture
def alert(controller: Controller) -> Any:
    """An open alert of the first host, resolved after the test."""
    cause = (controller.made.tenant_id, "failed", "test:host")
    with controller.session() as session:
        host_id = session.scalars(select(Host.id).where(Host.name == controller.made.host)).one()
        made = open_alert(session, *cause, "The disk is full.", host_id=host_id)
    yield made
    with controller.session() as session:
        resolve_alert(session, *cause)


def _state(controller: Controller, alert: Alert) -> Alert:
    with controller.session() as session:
        return session.get_one(Alert, alert.id)


def test_mute_unmute_and_acknowledge(controller: Controller, page: Page, alert: Alert) -> None:
    page.goto(f"{controller.url}/alerts?state=open")
    row = page.locator(f"#al-{alert.id}")
    expect(row).to_contain_text("Backup failed")
    expect(row.get_by_role("link").first).to_have_attribute("href", f"/hosts/{controller.made.host}")
    count = int(page.locator("#nav-alerts").inner_text())
    row.get_by_role("button", name="Mute for a day").click()
    expect(page.locator(".toast-box")).to_contain_text("Muted")
    expect(row).to_have_count(0)
    expect(page.locator("#nav-alerts")).to_have_text(str(count - 1))
    until = _state(controller, alert).muted_until
    assert until is not None and timedelta(hours=23) < until - now() < timedelta(hours=25)
    page.locator(".chip", has_text="Muted").click()
    page.wait_for_url("**state=muted*")
    row.get_by_role("button", name="Unmute").click()
    expect(row).to_have_count(0)
    page.locator(".chip", has_text=re.compile("^Open ")).click()
    page.wait_for_url("**state=open*")
    row.get_by_role("button", name="Acknowledge").click()
    expect(row).to_have_count(0)
    page.locator(".chip", has_text="Acknowledged").click()
    expect(row).to_contain_text("marie")
    assert _state(controller, alert).acknowledged_by == "marie"


def test_chips_count_what_the_lists_show(controller: Controller, page: Page) -> None:
    for name in ("Unresolved", "Open", "Acknowledged", "Muted", "Resolved"):
        page.goto(f"{controller.url}/alerts")
        chip = page.locator(".chip", has_text=re.compile(f"^{name} "))
        count = int(chip.locator("b").inner_text())
        chip.click()
        expect(page.locator(".chip[aria-current]")).to_contain_text(name)
        expect(page.locator("tbody tr")).to_have_count(count)
        assert count > 0, name


def test_list_and_menu_follow_the_feed(controller: Controller, page: Page, alert: Alert) -> None:
    """Someone else acknowledges: the page and the menu say so without a reload."""
    page.goto(f"{controller.url}/alerts")
    page.wait_for_selector("#live[data-state=on]")
    row = page.locator(f"#al-{alert.id}")
    expect(row.locator(".st:visible")).to_have_text("Open")
    count = int(page.locator("#nav-alerts").inner_text())
    path = f"/api/v1/alerts/{alert.id}/acknowledge"
    answer = page.context.request.post(controller.url + path, headers={"Origin": controller.url})
    assert answer.ok, answer.text()
    expect(row.locator(".st:visible")).to_have_text("Acknowledged")
    expect(page.locator("#nav-alerts")).to_have_text(str(count - 1))


def test_overview_leads_there_and_french_is_spoken(
    controller: Controller, visit: Callable[..., Any], alert: Alert
) -> None:
    page = visit(lang="fr").page()
    page.goto(controller.url)
    page.locator("section[aria-labelledby=o-attention] a", has_text="alerte").click()
    page.wait_for_url("**/alerts?state=open")
    row = page.locator(f"#al-{alert.id}")
    expect(row).to_contain_text("Sauvegarde échouée")
    expect(row.get_by_role("button", name="Prendre en charge")).to_be_visible()


def test_viewer_reads_alerts_and_changes_none(
    controller: Controller, visit: Callable[..., Any], alert: Alert
) -> None:
    visitor = visit("vera")
    page = visitor.page()
    page.goto(f"{controller.url}/alerts")
    expect(page.locator(f"#al-{alert.id}")).to_be_visible()
    assert page.locator("#list button").count() == 0
    answer = visitor.context.request.post(
        f"{controller.url}/alerts/{alert.id}/mute", form={"hours": "1"}, headers={"Origin": controller.url}
    )
    assert answer.status == 403
    assert _state(controller, alert).state == "open"
