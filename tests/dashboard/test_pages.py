"""Every page in both themes and languages: no fault that axe sees, no console error, nothing too wide."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.dashboard.conftest import Controller

PAGES = {
    "overview": "/",
    "hosts": "/hosts",
    "host": "/hosts/{host}",
    "host-archives": "/hosts/{host}/archives",
    "host-jobs": "/hosts/{host}/jobs",
    "host-policy": "/hosts/{host}/policy",
    "host-activity": "/hosts/{host}/activity",
    "add-host": "/hosts/new",
    "enrol": "/hosts/enrol",
    "enrol-token": "/hosts/enrol/token",
    "enrol-waiting": "/hosts/enrol/waiting",
    "enrol-tokens": "/hosts/enrol/tokens",
    "jobs": "/jobs",
    "job-running": "/jobs/{running_job}",
    "job-failed": "/jobs/{failed_job}",
    "alerts": "/alerts",
    "alerts-resolved": "/alerts?state=resolved",
    "alert-channels": "/alerts/channels",
    "alert-channel": "/alerts/channels/{channel_id}",
    "alert-channel-edit": "/alerts/channels/{channel_id}/edit",
    "alert-rules": "/alerts/rules",
    "secrets": "/secrets",
    "policies": "/policies",
    "policy": "/policies/{policy_id}",
    "policy-form": "/policies/{policy_id}/edit",
    "policy-yaml": "/policies/{policy_id}/yaml",
    "policy-versions": "/policies/{policy_id}/versions?a=1&b=2",
    "policy-version": "/policies/{policy_id}/versions/1",
    "policy-groups": "/policies/{policy_id}/groups",
    "policy-new": "/policies/new",
    "policy-retention": "/policies/{used_policy_id}/retention?keep_daily=2&days=30",
    "storage": "/storage",
    "storage-held": "/storage/{repository_id}",
    "schedules": "/schedules",
    "schedule": "/schedules/{schedule_id}",
    "schedule-edit": "/schedules/{schedule_id}/edit",
    "archives": "/archives",
    "archive": "/archives/{archive_id}?path=/etc",
    "archive-closed": "/archives/{archive_id}?path=/srv",
    "restore": "/archives/{archive_id}/restore?paths=/etc/nginx",
    "restores": "/restores",
    "drills": "/drills",
    "maintenance": "/maintenance",
    "maintenance-backup": "/maintenance/backup",
    "maintenance-cleanup": "/maintenance/cleanup",
    "maintenance-dependencies": "/maintenance/dependencies",
    "maintenance-health": "/maintenance/system-health",
    "maintenance-validation": "/maintenance/validation",
    "settings": "/settings",
    "team": "/team",
    "team-user": "/team/{user_id}",
    "audit": "/audit",
    "menu": "/menu",
    "escrow": "/settings/recovery",
    "find": "/find?q=web",
    "login": "/login",
}

# What makes a page or the list of hosts scroll sideways, cells in which words are broken letter by letter,
# and links and buttons that lost their name with their words
UNFIT = """() => {
    const seen = (within) => [...document.querySelectorAll(within)].filter((each) => each.offsetParent);
    const say = (each) => `${each.tagName} ${each.innerText.trim().slice(0, 60)}`;
    const scrolls = document.documentElement.scrollWidth > innerWidth;
    const wide = seen("body *").filter((each) => scrolls && each.getBoundingClientRect().right > innerWidth);
    const squeezed = seen("main td, main dd").filter((each) =>
        each.clientWidth < 44 && each.innerText.split("\\n").some((line) => line.trim().length > 12));
    const hosts = seen(".list.hosts").filter((each) => each.offsetWidth > each.parentElement.clientWidth);
    const folded = (each) => each.closest("details:not([open]) > :not(summary)");
    const nameless = seen("a, button").filter(
        (each) => !(each.innerText.trim() || each.ariaLabel || each.title || folded(each)));
    const found = [...wide, ...squeezed].slice(0, 5).map(say);
    const lost = nameless.map((each) => each.outerHTML);
    return [...(scrolls ? ["scrolls"] : []), ...found, ...hosts.map(say), ...lost];
}"""


# What fades in has no contrast yet
AT_REST = """() => Promise.all(document.getAnimations()
    .filter((each) => each.effect.getComputedTiming().endTime !== Infinity)
    .map((each) => each.finished.catch(() => null)))"""


def address(name: str, controller: Controller) -> str:
    return controller.url + PAGES[name].format(**vars(controller.made))


# Colours are the theme's and lengths the language's, so two visits see both of each.
@pytest.mark.parametrize(("theme", "language"), [("light", "en"), ("dark", "fr")])
def test_no_fault_on_any_page(
    controller: Controller, visit: Callable[..., Any], axe: Callable[..., Any], theme: str, language: str
) -> None:
    """Nothing that axe sees, the right words and colours, and nothing too wide or squeezed at any width."""
    page = visit(theme=theme, lang=language).page()
    usual = page.viewport_size
    faults: dict[str, Any] = {}
    wide = []
    for name in PAGES:
        answer = page.goto(address(name, controller))
        assert answer is not None and answer.status == 200, name
        page.wait_for_timeout(250)
        page.evaluate(AT_REST)
        if found := axe(page):
            faults[name] = found
        assert page.locator("html").get_attribute("lang") == language
        assert page.locator("html").get_attribute("data-bs-theme") == theme
        for width in (360, 768, 1024, 2560):
            page.set_viewport_size({"width": width, "height": 800})
            if found := page.evaluate(UNFIT):
                wide.append((name, width, found))
        page.set_viewport_size(usual)
    assert faults == {}, json.dumps(faults, indent=1)
    assert wide == []


def test_everything_is_two_taps_away_on_a_phone(controller: Controller, visit: Callable[..., Any]) -> None:
    page = visit(width=390, height=800, lang="fr").page()
    page.goto(controller.url)
    bar = page.get_by_role("navigation", name="Menu principal").locator("a:visible")
    assert bar.count() == 6
    boxes = [bar.nth(place).bounding_box() for place in range(6)]
    assert all(box and box["x"] >= 0 and box["x"] + box["width"] <= 390 for box in boxes)
    for name in ("Maintenance", "Stockage", "Planifications", "Réglages"):
        page.goto(controller.url)
        bar.last.click()
        page.get_by_role("main").get_by_role("link", name=name, exact=True).click()
        page.locator("h1").wait_for(state="visible")


def test_fresh_installation_shows_its_first_steps(
    installations: Callable[[int], Controller], visit: Callable[..., Any], axe: Callable[..., Any]
) -> None:
    """Every page has an empty state; the one-time password has to be replaced before anything is seen."""
    fresh = installations(0)
    password = (fresh.home / "admin-password").read_text().strip()
    page = visit("", at=fresh).page()
    page.goto(f"{fresh.url}/hosts")
    page.fill("#f-name", "admin")
    page.fill("#f-password", password)
    page.click("button.btn-primary")
    page.wait_for_url("**/password")
    page.goto(f"{fresh.url}/hosts")
    page.wait_for_url("**/password")
    page.fill("#f-current", password)
    page.fill("#f-new", "a password of my own")
    page.fill("#f-again", "a password of my own")
    page.click("button.btn-primary")
    page.wait_for_url(f"{fresh.url}/")
    assert page.get_by_role("heading", name="Welcome to SaveOS").is_visible()
    for path, title in {
        "/": "Welcome to SaveOS",
        "/hosts": "No hosts yet",
        "/jobs": "No jobs yet",
        "/alerts": "All quiet",
        "/archives": "No archives yet",
        "/restores": "No restores yet",
    }.items():
        page.goto(fresh.url + path)
        assert page.get_by_role("heading", name=title).is_visible(), path
        assert axe(page) == []


def test_problem_pages_carry_the_request_id(controller: Controller, visit: Callable[..., Any]) -> None:
    page = visit("vera").page()
    for path, status, title in (("/nothing", 404, "Nothing here"), ("/hosts/new", 403, "Not allowed")):
        answer = page.goto(controller.url + path)
        assert answer is not None and answer.status == status
        assert page.get_by_role("heading", name=title).is_visible()
        assert page.locator("code").inner_text() == answer.headers["x-request-id"]


def test_viewer_sees_no_control_that_is_not_theirs(controller: Controller, visit: Callable[..., Any]) -> None:
    page = visit("vera").page()
    for name in ("hosts", "host", "job-failed", "archive"):
        page.goto(address(name, controller))
        assert page.locator("main form[method=post]").count() - page.locator("main form[hidden]").count() <= 1
        for words in ("Back up now", "Add a host", "Provision", "Retry", "Restore…"):
            assert page.get_by_role("button", name=words).count() == 0, (name, words)


def test_pages_work_without_javascript(controller: Controller, browser: Any) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{controller.url}/hosts")
    page.fill("#f-name", "marie")
    page.fill("#f-password", "correct horse battery")
    page.click("button.btn-primary")
    page.wait_for_url(f"{controller.url}/hosts")
    page.fill("#q", "db-")
    page.press("#q", "Enter")
    page.wait_for_url("**q=db-*")
    assert page.locator("tbody tr").count() == page.locator("tbody a.name", has_text="db-").count() > 0
    page.locator("tbody button[title='Back up now']").first.click()
    expect(page.locator(".toast-box").get_by_role("link", name="View job")).to_be_visible()
    context.close()
