"""Schedules: list, editor with live preview, on and off, run now, history, delete."""

import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from saveos.core.clock import now
from saveos.jobs.models import Job
from saveos.schedules import service
from saveos.schedules.models import Schedule
from sqlalchemy import select

from tests.dashboard.conftest import Controller


@pytest.fixture
def schedule(controller: Controller) -> Iterator[Schedule]:
    """A schedule of its own for a test."""
    with controller.session() as session:
        made = Schedule(
            tenant_id=controller.made.tenant_id,
            name=f"test-{uuid.uuid4().hex[:8]}",
            operation="health",
            targets={"hosts": [controller.made.host]},
            cron="0 6 * * *",
            created_by="marie",
        )
        session.add(made)
        session.flush()
        service.plan(made, now())
    yield made
    with controller.session() as session:
        if found := session.get(Schedule, made.id):
            service.delete_schedule(session, found)


def stored(controller: Controller, schedule: Schedule) -> Schedule:
    with controller.session() as session:
        found: Schedule = session.get_one(Schedule, schedule.id)
        return found


def test_editor_previews_while_typing_and_makes_a_schedule(controller: Controller, page: Page) -> None:
    name = f"typed-{uuid.uuid4().hex[:6]}"
    page.goto(f"{controller.url}/schedules")
    page.get_by_role("link", name="Add a schedule").click()
    runs = page.locator("#next-runs li")
    page.fill("#f-cron", "daily")
    page.fill("#f-zone", "Europe/Paris")
    expect(runs.first).to_contain_text(re.compile("00:00 CES?T"))
    expect(runs).to_have_count(10)
    page.fill("#f-cron", "not at all")
    expect(page.locator("#next-runs [role=alert]")).to_be_visible()
    page.fill("#f-name", name)
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#h-cron .problem")).to_be_visible()
    expect(page.locator("#f-name")).to_have_value(name)
    page.fill("#f-cron", "15 7 * * *")
    page.get_by_label("Only these groups and hosts").check()
    page.get_by_label("web", exact=True).check()
    page.fill("#f-hosts", "no-such-host")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#h-hosts .problem")).to_contain_text("no-such-host")
    page.fill("#f-hosts", controller.made.host)
    page.fill("#f-jitter_minutes", "2.5")
    page.get_by_role("button", name="Save").click()
    page.wait_for_url(re.compile(r"/schedules/[0-9a-f-]{36}$"))
    expect(page.get_by_role("heading", name=name)).to_be_visible()
    expect(page.locator(".facts").first).to_contain_text("group web")
    with controller.session() as session:
        made = session.scalars(select(Schedule).where(Schedule.name == name)).one()
        assert (made.cron, made.zone, made.jitter_seconds) == ("15 7 * * *", "Europe/Paris", 150)
        assert made.targets == {"groups": ["web"], "hosts": [controller.made.host]}
        assert made.next_at is not None
    page.get_by_text("Delete this schedule").click()
    page.get_by_label("to confirm").fill(name)
    page.get_by_role("button", name="Delete").click()
    page.wait_for_url("**/schedules")
    with controller.session() as session:
        assert session.scalar(select(Schedule).where(Schedule.name == name)) is None


def test_change_switch_and_run(controller: Controller, page: Page, schedule: Schedule) -> None:
    page.goto(f"{controller.url}/schedules/{schedule.id}/edit")
    expect(page.locator("#f-hosts")).to_have_value(controller.made.host)
    page.fill("#f-parameters", "surprise: 1")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".problem, .note.s-bad").first).to_contain_text("surprise")
    page.fill("#f-parameters", "")
    page.fill("#f-cron", "0 8 * * *")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".toast-box")).to_contain_text("Saved")
    assert stored(controller, schedule).cron == "0 8 * * *"
    page.goto(f"{controller.url}/schedules")
    row = page.locator(f"#sc-{schedule.id}")
    row.get_by_role("button", name="Switch off").click()
    expect(row).to_contain_text("switched off")
    assert stored(controller, schedule).next_at is None
    row.get_by_role("button", name="Switch on").click()
    expect(row.get_by_role("button", name="Switch off")).to_be_visible()
    assert stored(controller, schedule).next_at is not None
    row.get_by_role("button", name=f"Run {schedule.name} now").click()
    expect(page.locator(".toast-box").get_by_role("link", name="View job")).to_be_visible()
    expect(row).to_contain_text("Job started")
    with controller.session() as session:
        job = session.scalars(select(Job).order_by(Job.id.desc()).limit(1)).one()
        assert (job.operation, job.trigger, job.requested_by) == ("health", "dashboard", "marie")
        session.delete(job)


def test_history_names_every_outcome_with_its_reason(controller: Controller, page: Page) -> None:
    page.goto(f"{controller.url}/schedules/{controller.made.schedule_id}")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(3)
    expect(rows.nth(0)).to_contain_text("Failed")
    expect(rows.nth(0)).to_contain_text("provision one first")
    expect(rows.nth(1)).to_contain_text("2 times")
    expect(rows.nth(1)).to_contain_text("The controller was stopped.")
    rows.nth(2).get_by_role("link", name="View job").click()
    page.wait_for_url(f"**/jobs/{controller.made.failed_job}")


def test_list_follows_the_feed(controller: Controller, page: Page, schedule: Schedule) -> None:
    page.goto(f"{controller.url}/schedules")
    page.wait_for_selector("#live[data-state=on]")
    row = page.locator(f"#sc-{schedule.id}")
    answer = page.context.request.patch(
        f"{controller.url}/api/v1/schedules/{schedule.id}",
        data={"enabled": False},
        headers={"Origin": controller.url},
    )
    assert answer.ok, answer.text()
    expect(row).to_contain_text("switched off")


def test_built_in_schedule_cannot_be_deleted(controller: Controller, page: Page) -> None:
    page.goto(f"{controller.url}/schedules")
    page.get_by_role("link", name="health hourly").click()
    expect(page.get_by_role("link", name="Edit")).to_be_visible()
    assert page.get_by_text("Delete this schedule").count() == 0


def test_viewer_reads_and_changes_nothing(
    controller: Controller, visit: Callable[..., Any], schedule: Schedule
) -> None:
    visitor = visit("vera")
    page = visitor.page()
    for path in ("/schedules", f"/schedules/{schedule.id}"):
        page.goto(controller.url + path)
        assert page.locator("main button, main .btn").count() == 0
    for act in ("edit", "switch", "run", "delete"):
        answer = visitor.context.request.post(
            f"{controller.url}/schedules/{schedule.id}/{act}",
            form={"name": schedule.name},
            headers={"Origin": controller.url},
        )
        assert answer.status == 403, act
    assert stored(controller, schedule).enabled


def test_operator_schedules_only_what_he_may_start(
    controller: Controller, visit: Callable[..., Any], schedule: Schedule
) -> None:
    page = visit("otto").page()
    page.goto(f"{controller.url}/schedules/{schedule.id}")
    page.get_by_role("button", name="Switch off").click()
    expect(page.locator(".st.pill")).to_have_text("Off")
    assert not stored(controller, schedule).enabled


def test_schedule_without_javascript(controller: Controller, browser: Any, schedule: Schedule) -> None:
    context = browser.new_context(java_script_enabled=False)
    context.request.post(
        f"{controller.url}/api/v1/auth/login", data={"name": "marie", "password": "correct horse battery"}
    )
    page = context.new_page()
    page.goto(f"{controller.url}/schedules/{schedule.id}/edit")
    expect(page.locator("#next-runs li")).to_have_count(10)
    page.fill("#f-cron", "5 5 * * *")
    page.get_by_role("button", name="Save").click()
    page.wait_for_url(f"**/schedules/{schedule.id}")
    assert stored(controller, schedule).cron == "5 5 * * *"
    context.close()
