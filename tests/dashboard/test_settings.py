"""Settings: what the installation is trusted by, its recovery key, its agents, and one's own tokens."""

from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, expect
from saveos.accounts.models import Tenant, Token
from saveos.accounts.service import create_user
from sqlalchemy import select

from tests.dashboard.conftest import Controller


def test_recovery_key_warns_and_leads_to_unsealed_hosts(controller: Controller, page: Page) -> None:
    page.goto(f"{controller.url}/settings")
    card = page.locator("#recovery")
    expect(card).to_contain_text("whoever controls it can read every repository")
    count = int(card.locator("a[href$='state=none']").inner_text().split()[0])
    assert count > 0
    card.locator("a[href$='state=none']").click()
    expect(page.locator("tbody tr")).to_have_count(count)
    page.locator("tbody a.name").first.click()
    expect(page.get_by_text("missing: provision the host")).to_be_visible()


def test_agents_are_counted_by_version(controller: Controller, page: Page) -> None:
    page.goto(f"{controller.url}/settings")
    card = page.locator("#agents")
    expect(card).to_contain_text("1.4.5 × ")
    expect(card.locator(".is-bad")).to_have_text("1")  # the host with the wrong clock


def test_own_token_is_revoked(controller: Controller, page: Page) -> None:
    answer = page.context.request.post(
        f"{controller.url}/api/v1/tokens", data={"name": "pipeline"}, headers={"Origin": controller.url}
    )
    assert answer.ok, answer.text()
    page.goto(f"{controller.url}/settings")
    page.locator("#tokens tr", has_text="pipeline").get_by_role("button", name="Revoke").click()
    expect(page.locator(".toast-box")).to_contain_text("Token revoked")
    with controller.session() as session:
        assert session.scalar(select(Token.id).where(Token.name == "pipeline")) is None


def test_a_fresh_installation_asks_for_a_recovery_key(
    installations: Callable[[int], Controller], visit: Callable[..., Any]
) -> None:
    fresh = installations(0)
    visitor = visit("", at=fresh)
    with fresh.session() as session:
        create_user(
            session, session.scalars(select(Tenant.id)).one(), "petra", "admin", "correct horse battery"
        )
    visitor.log_in("petra")
    page = visitor.page()
    page.goto(f"{fresh.url}/settings")
    expect(page.locator("#recovery-init")).to_have_text("saveos recovery init --output recovery.key")
