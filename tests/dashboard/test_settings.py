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


def test_own_token_is_made_shown_once_rotated_and_revoked(controller: Controller, page: Page) -> None:
    page.goto(f"{controller.url}/settings")
    page.get_by_label("What it is for").fill("pipeline")
    page.get_by_text("Only some rights").click()
    page.get_by_label("jobs:read").check()
    page.get_by_role("button", name="Make a token").click()
    secret = page.locator("#secret").inner_text()
    row = page.locator("#tokens tr", has_text="pipeline")
    expect(row).to_contain_text("jobs:read")

    def may(token: str, path: str) -> int:
        address, headers = f"{controller.url}/api/v1{path}", {"Authorization": f"Bearer {token}"}
        return page.context.request.get(address, headers=headers).status

    assert (may(secret, "/jobs"), may(secret, "/hosts")) == (200, 403)
    page.goto(f"{controller.url}/settings")
    assert secret not in page.content()
    row.get_by_role("button", name="Rotate").click()
    assert may(page.locator("#secret").inner_text(), "/jobs") == 200
    expect(row).to_have_count(2)
    for left in (1, 0):
        row.first.get_by_role("button", name="Revoke").click()
        expect(page.locator(".toast-box")).to_contain_text("Token revoked")
        expect(row).to_have_count(left)
    assert may(secret, "/jobs") == 401
    with controller.session() as session:
        assert session.scalar(select(Token.id).where(Token.name == "pipeline")) is None


def test_a_person_is_added_switched_off_and_told_of_in_the_trail(
    controller: Controller, page: Page, visit: Callable[..., Any]
) -> None:
    page.goto(f"{controller.url}/team")
    page.locator("#add").get_by_label("Name").fill("rosa")
    page.locator("#add").get_by_label("Role").select_option("operator")
    page.get_by_role("button", name="Add", exact=True).click()
    password = page.locator("#one-time").inner_text()
    visitor = visit("")
    visitor.log_in("rosa", password)
    page.goto(f"{controller.url}/team")
    page.get_by_role("link", name="rosa").click()
    expect(page.get_by_text("one-time, not replaced yet")).to_be_visible()
    assert password not in page.content()
    page.get_by_label("May do").select_option("viewer")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".toast-box")).to_contain_text("Saved")
    page.locator("summary", has_text="Switch off").click()
    for typed in ("ros", "rosa"):
        page.locator("#f-off").fill(typed)
        page.get_by_role("button", name="Switch off").click()
        expect(page.locator(".note" if typed == "ros" else ".toast-box")).to_be_visible()
    expect(page.get_by_role("button", name="Switch on")).to_be_visible()
    assert visitor.context.request.get(f"{controller.url}/api/v1/auth/me").status == 401

    page.get_by_role("link", name="Team").first.click()
    page.get_by_role("link", name="Audit trail").click()
    page.get_by_label("To what").fill("user:rosa")
    page.get_by_role("button", name="Filter").click()
    said = ["User changed", "User changed", "Logged in", "User added"]  # not the one whose name was mistyped
    expect(page.locator("tbody .name")).to_have_text(said)
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    lines = download.value.path().read_text().splitlines()
    assert len(lines) == 5 and password not in "".join(lines)
    assert page.locator(".side a[aria-current]").inner_text().strip() == "Team"
    page.goto(f"{controller.url}/files")
    assert page.locator(".side a[aria-current]").inner_text().strip() == "Archives"
    viewer = visit("vera").page()
    viewer.goto(f"{controller.url}/team")
    expect(viewer.get_by_role("link", name="rosa")).to_be_visible()
    assert viewer.locator("main form").count() == 0


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
