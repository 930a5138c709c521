"""Log-in, log-out, language and theme, password."""

from collections.abc import Callable
from typing import Any

from playwright.sync_api import expect

from tests.dashboard.conftest import Controller
from tests.dashboard.seed import PASSWORD


def test_log_in_leads_where_one_wanted_to_go(controller: Controller, visit: Callable[..., Any]) -> None:
    page = visit("").page()
    page.goto(f"{controller.url}/jobs?state=active")
    page.wait_for_url("**/login?next=*")
    page.fill("#f-name", "marie")
    page.fill("#f-password", "wrong password")
    page.click("button.btn-primary")
    expect(page.get_by_role("alert")).to_have_text("Name or password is wrong.")
    page.fill("#f-password", PASSWORD)
    page.click("button.btn-primary")
    page.wait_for_url("**/jobs?state=active")
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login")
    page.goto(f"{controller.url}/hosts")
    page.wait_for_url("**/login?next=%2Fhosts")


def test_log_in_never_leads_to_another_site(controller: Controller, visit: Callable[..., Any]) -> None:
    page = visit("").page()
    page.goto(f"{controller.url}/login?next=//elsewhere.example/")
    page.fill("#f-name", "marie")
    page.fill("#f-password", PASSWORD)
    page.click("button.btn-primary")
    page.wait_for_url(f"{controller.url}/")


def test_another_site_cannot_write(controller: Controller, visit: Callable[..., Any]) -> None:
    visitor = visit()
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {}):
        answer = visitor.context.request.post(
            f"{controller.url}/operations/backup", form={"all": "true"}, headers=headers
        )
        assert answer.status == 403, headers


def test_language_and_theme_are_kept(controller: Controller, visit: Callable[..., Any]) -> None:
    page = visit("otto").page()
    page.goto(f"{controller.url}/settings")
    page.get_by_label("Language").select_option("fr")
    page.get_by_label("Theme").select_option("dark")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Réglages")
    assert page.locator("html").get_attribute("data-bs-theme") == "dark"
    expect(page.locator(".toast-box")).to_contain_text("Enregistré")
    page.locator("#theme").click()
    page.goto(f"{controller.url}/hosts")
    assert page.locator("html").get_attribute("data-bs-theme") == "light"


def test_password_change(controller: Controller, visit: Callable[..., Any]) -> None:
    page = visit("paula").page()
    page.goto(f"{controller.url}/settings")
    page.fill("#f-current", PASSWORD)
    page.fill("#f-new", "short")
    page.fill("#f-again", "short")
    page.get_by_role("button", name="Change the password").click()
    expect(page.locator("#h-new .problem")).to_have_text("A password has at least 10 characters.")
    page.fill("#f-current", PASSWORD)
    page.fill("#f-new", PASSWORD + "!")
    page.fill("#f-again", PASSWORD + "!")
    page.get_by_role("button", name="Change the password").click()
    expect(page.locator(".toast-box")).to_contain_text("Password changed")
    visit("").log_in("paula", PASSWORD + "!")
