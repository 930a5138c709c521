"""Storage: what is held and why, approvals with a typed name, undo, checks, growth, and trying a retention."""

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from saveos.jobs.models import Job
from saveos.policies.models import Policy
from saveos.repositories.models import Approval
from sqlalchemy import delete, select

from tests.dashboard.conftest import Controller


@pytest.fixture
def held(controller: Controller, page: Page) -> Iterator[Page]:
    """The page of the repository that its guard holds."""
    page.goto(f"{controller.url}/storage?state=held")
    rows = page.locator("#list tbody tr")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("Archives vanished")
    rows.get_by_role("link", name=controller.made.host).click()
    yield page
    with controller.session() as session:
        session.execute(delete(Approval).where(Approval.digest == "ab" * 32))


def newest_job(controller: Controller) -> Job:
    with controller.session() as session:
        return session.scalars(select(Job).order_by(Job.id.desc()).limit(1)).one()


def test_servers_say_how_full_they_are_and_when_they_will_be(controller: Controller, page: Page) -> None:
    page.goto(f"{controller.url}/storage")
    expect(page.locator(".kpi").nth(1)).to_contain_text("900")
    assert 35 < int(page.locator(".kpi").nth(3).locator("b").inner_text().split()[0]) < 45
    expect(page.locator("time-chart canvas")).to_have_count(1)
    expect(page.get_by_role("region", name="Storage servers")).to_contain_text("1 held")
    page.get_by_role("link", name="Held").click()
    expect(page.locator("#list tbody tr")).to_have_count(1)


def test_a_hold_is_told_in_plain_words_in_both_languages(
    controller: Controller, held: Page, visit: Callable[..., Any], axe: Callable[..., Any]
) -> None:
    region = held.get_by_role("region", name="What the guard says")
    expect(region).to_contain_text(
        "Archives are gone that policy still keeps. Somebody may be deleting backups."
    )
    held.get_by_text("What would be destroyed for good: 14").click()
    expect(region).to_contain_text("web-2026-11-14T02:04:11")
    for language, said in (("en", "Somebody may be deleting"), ("fr", "supprime peut-être des sauvegardes")):
        page = visit(lang=language).page()
        page.goto(f"{controller.url}/storage/{controller.made.repository_id}")
        expect(page.locator("main")).to_contain_text(said)
        for summary in page.locator("summary").all():
            summary.click()
        assert axe(page) == []


def test_an_approval_needs_the_typed_name_and_can_be_revoked(controller: Controller, held: Page) -> None:
    held.get_by_text("That was intended").click()
    held.get_by_label("Why").fill("the films went elsewhere")
    held.locator("#f-approve-name").fill("another")
    held.get_by_role("button", name="Approve").click()
    expect(held.get_by_role("alert")).to_contain_text(f"Type {controller.made.host} to confirm")
    held.locator("#f-approve-name").fill(controller.made.host)
    held.get_by_role("button", name="Approve").click()
    expect(held.locator(".toast-box")).to_contain_text("frees the space when it runs next")
    row = held.get_by_role("region", name="Approvals").locator("tbody tr").first
    expect(row).to_contain_text("marie")
    with controller.session() as session:
        made = session.scalars(select(Approval).order_by(Approval.id.desc()).limit(1)).one()
    assert (made.digest, made.reason) == ("ab" * 32, "vanished")
    row.get_by_role("button", name="Revoke").click()
    expect(held.get_by_role("region", name="Approvals").locator("tbody tr").first).to_contain_text("revoked by")


def test_an_undo_is_shown_first_and_needs_the_typed_name(controller: Controller, held: Page) -> None:
    address = held.url
    held.get_by_role("button", name="Show first what it would do").click()
    held.wait_for_url("**/jobs/*")
    job = newest_job(controller)
    assert (job.operation, job.mode, job.parameters["to"]) == ("undo", "check", "latest-good")
    held.goto(address)
    held.locator("#undo input[type=radio]").nth(1).check()
    chosen = held.locator("#undo input[type=radio]").nth(1).get_attribute("value")
    held.locator("#undo summary").click()
    held.locator("#f-undo-name").fill(controller.made.host)
    held.get_by_role("button", name="Roll back").click()
    held.wait_for_url("**/jobs/*")
    job = newest_job(controller)
    assert (job.operation, job.mode, job.parameters["to"]) == ("undo", "run", chosen)


def test_a_repository_is_checked_from_its_page(controller: Controller, held: Page) -> None:
    held.get_by_label("What to check").select_option("data")
    held.get_by_role("button", name="Check now").click()
    expect(held.locator(".toast-box")).to_contain_text("Check")
    job = newest_job(controller)
    assert (job.operation, job.parameters["kind"]) == ("check", "data")
    assert job.parameters["repository_ids"] == [str(controller.made.repository_id)]


def test_who_may_only_look_sees_no_button(controller: Controller, visit: Callable[..., Any]) -> None:
    page = visit("vera").page()
    page.goto(f"{controller.url}/storage/{controller.made.repository_id}")
    expect(page.get_by_role("region", name="What the guard says")).to_be_visible()
    for name in ("Approve", "Roll back", "Check now", "Revoke", "Show first what it would do"):
        expect(page.get_by_role("button", name=name)).to_have_count(0)
    page.goto(f"{controller.url}/storage/{uuid.uuid4()}")
    expect(page.locator("h1")).to_have_text("Nothing here")


def test_a_shorter_retention_shows_what_would_go_before_it_is_kept(controller: Controller, page: Page) -> None:
    policy = f"{controller.url}/policies/{controller.made.used_policy_id}"
    page.goto(f"{policy}/retention?keep_within=1d&keep_daily=1")
    expect(page.get_by_text("pruned, kept until now").first).to_be_attached()
    page.goto(f"{policy}/edit")
    page.get_by_label("Every archive of").fill("1d")
    page.get_by_label("Daily").fill("1")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("main")).to_contain_text("that are kept now would be pruned with the next backups")
    with controller.session() as session:
        assert session.get_one(Policy, controller.made.used_policy_id).retention["keep_daily"] == 7
    expect(page.get_by_label("Prune them")).not_to_be_checked()
