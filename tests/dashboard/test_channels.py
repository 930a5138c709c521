"""Channels and rules: what may be told, tests, the log of deliveries; an address is never shown again."""

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from saveos.accounts.models import Audit
from saveos.alerts import channels
from saveos.alerts.models import Channel
from saveos.alerts.rules import RULES
from saveos.alerts.schemas import ChannelIn
from sqlalchemy import select

from tests.dashboard.conftest import Controller


@pytest.fixture
def channel(controller: Controller) -> Iterator[Channel]:
    """A channel whose address is out of bounds: nothing may be sent to this machine."""
    asked = ChannelIn(name=f"test-{uuid.uuid4().hex[:8]}", url="json://127.0.0.1:9/hush-hush")
    with controller.session() as session:
        made = channels.create_channel(session, controller.made.tenant_id, asked)
    yield made
    with controller.session() as session:
        if found := session.get(Channel, made.id):
            session.delete(found)


def test_an_address_out_of_bounds_is_refused_and_not_sent_back(controller: Controller, page: Page) -> None:
    page.goto(f"{controller.url}/alerts")
    page.get_by_role("link", name="Channels").first.click()
    page.get_by_role("link", name="Add a channel").click()
    page.fill("#f-name", "inside")
    page.fill("#f-url", "json://user:hush-hush@127.0.0.1:9/")
    page.get_by_label("critical", exact=True).check()
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#h-url .problem")).to_be_visible()
    expect(page.locator("#f-name")).to_have_value("inside")
    expect(page.get_by_label("critical", exact=True)).to_be_checked()
    assert "hush-hush" not in page.content()
    with controller.session() as session:
        assert session.scalar(select(Channel).where(Channel.name == "inside")) is None


def test_a_test_that_does_not_arrive_says_why(controller: Controller, page: Page, channel: Channel) -> None:
    page.goto(f"{controller.url}/alerts/channels")
    page.locator(f"#ch-{channel.id}").get_by_role("button", name="Send a test").click()
    page.wait_for_url(f"**/alerts/channels/{channel.id}")
    expect(page.locator(".toast-box")).to_contain_text("not delivered")
    row = page.locator("tbody tr")
    expect(row).to_contain_text("Not delivered")
    expect(row).to_contain_text("test")
    expect(row.locator(".is-bad")).to_contain_text("SAVEOS_OUTGOING_ALLOW")
    assert "hush-hush" not in page.content()


def test_change_keeps_the_address_and_is_audited(controller: Controller, page: Page, channel: Channel) -> None:
    page.goto(f"{controller.url}/alerts/channels/{channel.id}/edit")
    expect(page.locator("#f-url")).to_have_value("")
    page.get_by_label("Agent silent").check()
    page.get_by_label("web", exact=True).check()
    page.get_by_label("Switched on").uncheck()
    page.get_by_role("button", name="Save").click()
    page.wait_for_url(f"**/alerts/channels/{channel.id}")
    expect(page.locator(".facts")).to_contain_text("Agent silent, group web")
    with controller.session() as session:
        found = session.get_one(Channel, channel.id)
        assert (found.rules, found.groups, found.enabled) == (["silent"], ["web"], False)
        assert channels.url_of(session, found) == "json://127.0.0.1:9/hush-hush"
        act = session.scalars(select(Audit).where(Audit.object == f"channel:{channel.name}")).one()
        assert (act.actor, act.action) == ("marie", "change channel")
    page.get_by_text("Delete this channel").click()
    page.get_by_label("to confirm").fill(channel.name)
    page.get_by_role("button", name="Delete").click()
    page.wait_for_url("**/alerts/channels")
    expect(page.locator(f"#ch-{channel.id}")).to_have_count(0)


def test_rules_lead_to_their_alerts(controller: Controller, page: Page) -> None:
    page.goto(f"{controller.url}/alerts/rules")
    expect(page.locator("tbody tr")).to_have_count(len(RULES))
    row = page.locator("tbody tr", has_text="Backup failed")
    count = int(row.get_by_role("link").inner_text())
    row.get_by_role("link").click()
    page.wait_for_url("**/alerts?rule=failed")
    expect(page.locator("tbody tr")).to_have_count(count)
    page.get_by_label("Severity").select_option("warning")
    page.wait_for_url("**severity=warning*")
    expect(page.get_by_role("heading", name="No alert here")).to_be_visible()


def test_alerts_of_one_host(controller: Controller, page: Page) -> None:
    page.goto(f"{controller.url}/alerts")
    host = page.locator("tbody a[href^='/hosts/']").first.inner_text()
    page.get_by_label("Host", exact=True).fill(host)
    page.get_by_label("Host", exact=True).press("Enter")
    page.wait_for_url("**host=*")
    assert set(page.locator("tbody a[href^='/hosts/']").all_inner_texts()) == {host}
    page.goto(f"{controller.url}/alerts?host=nobody")
    expect(page.get_by_role("heading", name="No alert here")).to_be_visible()


def test_viewer_changes_no_channel(controller: Controller, visit: Callable[..., Any], channel: Channel) -> None:
    visitor = visit("vera")
    page = visitor.page()
    page.goto(f"{controller.url}/alerts/channels/{channel.id}")
    assert page.locator("main form").count() == 0
    for act in ("edit", "test", "delete"):
        answer = visitor.context.request.post(
            f"{controller.url}/alerts/channels/{channel.id}/{act}", headers={"Origin": controller.url}
        )
        assert answer.status == 403, act
