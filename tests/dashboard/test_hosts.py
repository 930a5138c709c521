"""The list of hosts: filters, search, pages, selection, live rows, and adding one."""

import re
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, expect
from saveos.hosts.models import Host
from saveos.jobs.models import Job, JobHost
from sqlalchemy import select

from tests.dashboard.conftest import Controller


def test_search_filters_while_typing_and_keeps_focus(controller: Controller, page: Page) -> None:
    page.goto(f"{controller.url}/hosts")
    expect(page.locator("tbody tr")).to_have_count(50)
    page.keyboard.press("/")
    page.keyboard.type("vault")
    expect(page.locator("tbody tr")).to_have_count(1)
    assert "q=vault" in page.url
    assert page.evaluate("document.activeElement.id") == "q"


def test_chips_filter_by_protection_and_count_right(controller: Controller, page: Page) -> None:
    page.goto(f"{controller.url}/hosts")
    chip = page.locator(".chip", has_text="Failing")
    count = int(chip.locator("b").inner_text())
    chip.click()
    page.wait_for_url("**protection=failing*")
    expect(page.locator("tbody tr")).to_have_count(count)
    expect(page.locator("tbody .st:visible").first).to_have_text("Failing")


def test_next_page_continues_and_back_returns(controller: Controller, page: Page) -> None:
    page.goto(f"{controller.url}/hosts")
    first = page.locator("tbody a.name").all_inner_texts()
    page.click("#next")
    page.wait_for_url("**cursor=*")
    second = page.locator("tbody a.name").all_inner_texts()
    assert len(first) == 50 and len(second) == 11 and not set(first) & set(second)
    assert sorted(first + second) == first + second
    page.go_back()
    expect(page.locator("tbody a.name").first).to_have_text(first[0])


def test_live_row_keeps_selection(controller: Controller, page: Page) -> None:
    """A host changes on the server: its row follows, what was ticked stays ticked."""
    page.goto(f"{controller.url}/hosts")
    page.wait_for_selector("#live[data-state=on]")
    row = page.locator("tbody tr").first
    host_id = str(row.get_attribute("id")).removeprefix("h-")
    row.locator("input[type=checkbox]").check()
    expect(page.locator("#bulk")).to_be_visible()
    answer = page.context.request.patch(
        f"{controller.url}/api/v1/hosts/{host_id}",
        data={"state": "paused"},
        headers={"Origin": controller.url},
    )
    assert answer.ok, answer.text()
    expect(row.locator(".st:visible")).to_have_text("No backups", timeout=5000)
    expect(row.locator("input[type=checkbox]")).to_be_checked()
    expect(page.locator("#bulk [data-count]")).to_have_text("1")
    page.context.request.patch(
        f"{controller.url}/api/v1/hosts/{host_id}",
        data={"state": "enrolled"},
        headers={"Origin": controller.url},
    )


def test_bulk_back_up_makes_one_job(controller: Controller, page: Page) -> None:
    page.goto(f"{controller.url}/hosts?q=web-")
    names = page.locator("tbody a.name").all_inner_texts()[:2]
    for name in names:
        page.get_by_role("checkbox", name=f"Select {name}").check()
    page.locator("#bulk").get_by_role("button", name="Back up").click()
    link = page.locator(".toast-box").get_by_role("link", name="View job")
    link.click()
    page.wait_for_url(re.compile("/jobs/[0-9a-f-]{36}"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Backup · 2 hosts")
    with controller.session() as session:
        job = session.scalars(select(Job).order_by(Job.created_at.desc()).limit(1)).one()
        hosts = session.scalars(select(JobHost.name).where(JobHost.job_id == job.id)).all()
        assert (job.operation, job.trigger, job.requested_by) == ("backup", "dashboard", "marie")
        assert sorted(hosts) == sorted(names)


def test_provision_check_from_a_host(controller: Controller, page: Page) -> None:
    page.goto(f"{controller.url}/hosts/{controller.made.host}")
    page.get_by_role("button", name="Show drift").click()
    expect(page.locator(".toast-box")).to_contain_text("Provisioning started")
    with controller.session() as session:
        job = session.scalars(select(Job).order_by(Job.created_at.desc()).limit(1)).one()
        assert (job.operation, job.mode) == ("provision", "check")


def test_add_a_host_after_confirming_its_key(
    controller: Controller, page: Page, sshd: Callable[[], tuple[int, str]]
) -> None:
    """The form reads the real key of a real sshd; without the tick nothing is made."""
    port, fingerprint = sshd()
    page.goto(f"{controller.url}/hosts/new")
    page.fill("#f-name", "new-1.example.net")
    page.fill("#f-address", "127.0.0.1")
    page.fill("#f-port", str(port))
    page.get_by_role("button", name="Read its host key").click()
    expect(page.locator(".keys")).to_contain_text(fingerprint)
    page.get_by_role("checkbox", name="I have compared").check()
    page.fill("#f-tags", "new, web")
    page.get_by_role("button", name="Add the host").click()
    page.wait_for_url("**/jobs/*")
    expect(page.get_by_role("heading", level=1)).to_have_text("Provisioning · new-1.example.net")
    with controller.session() as session:
        host = session.scalars(select(Host).where(Host.name == "new-1.example.net")).one()
        assert (host.port, host.state, host.tags) == (port, "pending", ["new", "web"])
        assert len(host.ssh_host_keys) == 1
        host.state = "decommissioned"


def test_bad_input_says_where_and_keeps_what_was_typed(controller: Controller, page: Page) -> None:
    page.goto(f"{controller.url}/hosts/new")
    page.fill("#f-name", "bad name!")
    page.fill("#f-user", "Root User")
    with page.expect_response(lambda answer: answer.status == 422):
        page.get_by_role("button", name="Read its host key").click()
    expect(page.locator("#h-name .problem")).to_contain_text("A host's name has letters")
    expect(page.locator("#f-user")).to_have_value("Root User")


def test_palette_finds_a_host(controller: Controller, page: Page) -> None:
    page.goto(f"{controller.url}/")
    page.keyboard.press("Control+k")
    page.keyboard.type("vault")
    expect(page.locator("#palette-list li").first).to_contain_text("vault-1")
    page.keyboard.press("Enter")
    page.wait_for_url("**/hosts/vault-1*")


def test_ten_thousand_hosts_answer_fast(
    installations: Callable[[int], Controller], visit: Callable[..., Any]
) -> None:
    """A page of a large fleet costs a page. The time is printed, not judged."""
    large = installations(10_000)
    visitor = visit(at=large)
    page = visitor.page()
    for path in ("/", "/hosts", "/hosts?protection=failing", "/hosts?q=db-0", "/jobs", "/archives"):
        page.goto(large.url + path)
        timing = page.evaluate("performance.getEntriesByType('navigation')[0].toJSON()")
        spent = timing["responseEnd"] - timing["requestStart"]
        print(f"{path}: {spent:.0f} ms, {timing['transferSize'] // 1024} KiB")
        assert timing["transferSize"] < 200_000
    page.goto(f"{large.url}/hosts")
    expect(page.locator("tbody tr")).to_have_count(50)
    expect(page.locator(".head .num")).to_have_text("10,001")
