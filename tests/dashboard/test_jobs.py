"""A job's page: figures, grid, live log with filter, scope and permalinks; cancel and retry."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from saveos.jobs.models import Job, JobHost
from sqlalchemy import select

from tests.dashboard.conftest import Controller
from tests.dashboard.seed import append_log, new_job


@pytest.fixture
def job(controller: Controller) -> Callable[..., Job]:
    """Make a job with a log of so many events."""

    def make(events: int, state: str = "running") -> Job:
        with controller.session() as session:
            made = new_job(session, controller.made, state)
            append_log(session, made, _events(1, events))
            return made

    return make


def _events(first: int, last: int) -> list[dict[str, Any]]:
    return [
        {
            "n": number,
            "t": time.time(),
            "k": "ok",
            "h": "odd.example.net" if number % 2 else "even.example.net",
            "task": "Count",
            "text": f"line {number:06d}" + ("\nand a second line" if number % 100 == 0 else ""),
        }
        for number in range(first, last + 1)
    ]


def _tell(controller: Controller, page: Page, job: Job, first: int, last: int) -> None:
    """Store events as the engine does, then make the server look: another process cannot wake its feed."""
    with controller.session() as session:
        found = session.get_one(Job, job.id)
        append_log(session, found, _events(first, last))
    page.context.request.post(
        f"{controller.url}/api/v1/jobs/{job.id}/cancel", headers={"Origin": controller.url}
    )


def test_long_log_is_virtual_and_follows(controller: Controller, page: Page, job: Callable[..., Job]) -> None:
    made = job(60_000)
    page.goto(f"{controller.url}/jobs/{made.id}")
    expect(page.locator(".log-count")).to_have_text("60,000 events")
    expect(page.locator("log-view .l").last).to_contain_text("second line")
    _tell(controller, page, made, 60_001, 70_050)
    expect(page.locator(".log-count")).to_have_text("70,050 events")
    expect(page.locator("log-view .l").last).to_contain_text("line 070050")
    assert page.locator("log-view .l").count() < 120
    page.evaluate("document.querySelector('.log-box').scrollTop = 0")
    expect(page.locator("log-view .l").first).to_contain_text("line 000001")
    expect(page.locator("[data-follow]")).not_to_be_checked()


def test_filter_and_host_scope_look_at_every_line(
    controller: Controller, page: Page, job: Callable[..., Job]
) -> None:
    made = job(12_000, "succeeded")
    page.goto(f"{controller.url}/jobs/{made.id}?host=odd.example.net")
    expect(page.locator(".log-count")).to_have_text("12,000 events")
    page.get_by_role("searchbox", name="Filter the log").fill("line 0119")
    expect(page.locator(".log-count")).to_have_text("100 of 12,000 events")
    expect(page.locator("log-view mark").first).to_have_text("line 0119")
    page.get_by_role("searchbox", name="Filter the log").fill("")
    expect(page.locator(".log-count")).to_have_text("12,000 events")


def test_permalink_opens_at_its_line(controller: Controller, page: Page, job: Callable[..., Job]) -> None:
    made = job(9_000, "succeeded")
    raw = page.context.request.get(f"{controller.url}/jobs/{made.id}/log.txt").text()
    assert raw.count("line 00") == 9_000 and raw.rstrip().endswith("second line")
    page.goto(f"{controller.url}/jobs/{made.id}#L4321")
    expect(page.locator("log-view .l.at").first).to_contain_text("line 004321")


def test_grid_scopes_the_log(controller: Controller, page: Page) -> None:
    page.goto(f"{controller.url}/jobs/{controller.made.failed_job}")
    expect(page.locator(".kpi", has_text="Hosts done")).to_contain_text("24 / 24")
    link = page.locator(".matrix th a").first
    name = link.inner_text()
    link.click()
    expect(page.locator("log-view .scope")).to_contain_text(name)
    expect(page.locator(".log-count")).to_contain_text(" of ")
    expect(page.locator("log-view .l", has_text=name).first).to_be_visible()
    hosts = set(page.locator("log-view .l").all_inner_texts())
    assert hosts and all(name in line or "Connection closed" in line for line in hosts)
    assert "host=" in page.url


def test_retry_makes_a_job_of_the_failed_hosts(controller: Controller, page: Page) -> None:
    page.goto(f"{controller.url}/jobs/{controller.made.failed_job}")
    page.get_by_role("button", name="Retry 3 failed hosts").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Backup · 3 hosts")
    expect(page.get_by_role("link", name="an earlier job")).to_have_attribute(
        "href", f"/jobs/{controller.made.failed_job}"
    )
    expect(page.locator("log-view h2")).to_have_text("Live log")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".head .st")).to_have_text("Canceled")


def test_log_is_live_until_the_job_ends(controller: Controller, page: Page, job: Callable[..., Job]) -> None:
    made = job(10)
    page.goto(f"{controller.url}/jobs")  # what runs is above what ended, however long ago it began
    first, second = page.locator("tbody").all()
    expect(first.get_by_role("rowheader")).to_have_text("Running now")
    expect(first.locator(f"#j-{controller.made.running_job}")).to_be_visible()
    expect(second.locator(".s-busy")).to_have_count(0)
    page.locator(f"#j-{made.id}").get_by_role("link").click()
    expect(page.locator("log-view h2")).to_have_text("Live log")
    with controller.session() as session:
        session.get_one(Job, made.id).state = "succeeded"
    expect(page.locator("log-view h2")).to_have_text("Log")


def test_job_page_follows_its_state(controller: Controller, page: Page, job: Callable[..., Job]) -> None:
    """Canceled by someone else, the page says so without a reload."""
    made = job(10)
    page.goto(f"{controller.url}/jobs/{made.id}")
    page.wait_for_selector("#live[data-state=on]")
    expect(page.locator(".head .st")).to_have_text("Running")
    with controller.session() as session:
        session.scalars(select(JobHost).where(JobHost.job_id == made.id)).one().error = "The disk is full."
    _tell(controller, page, made, 11, 12)
    expect(page.locator(".head .st")).to_have_text("Canceling")
    expect(page.locator("#results")).to_contain_text("The disk is full.")
    with controller.session() as session:
        assert session.scalars(select(Job.state).where(Job.id == made.id)).one() == "canceling"


def test_jobs_filters(controller: Controller, page: Page) -> None:
    page.goto(f"{controller.url}/jobs")
    kinds = page.get_by_role("combobox", name="Kind")
    kinds.press("ArrowDown")  # by keys a list is stepped through, and sent when one is chosen
    kinds.press("ArrowDown")
    expect(kinds).to_have_value("restore")
    page.wait_for_timeout(300)
    assert "operation=" not in page.url
    kinds.press("Enter")
    page.wait_for_url("**operation=restore*")
    names = set(page.locator("tbody a.name").all_inner_texts())
    assert names == {"Restore"}
    page.locator(".chip", has_text="With problems").click()
    page.wait_for_url("**state=problem*")
    expect(page.get_by_role("heading", name="No job matches")).to_be_visible()
