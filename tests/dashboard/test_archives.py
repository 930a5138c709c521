"""Archives: look inside, choose over folders, restore."""

from playwright.sync_api import Page, expect
from saveos.jobs.models import Job
from saveos.restores.models import Restore
from sqlalchemy import select

from tests.dashboard.conftest import Controller


def test_choose_over_folders_and_restore(controller: Controller, page: Page) -> None:
    archive = f"{controller.url}/archives/{controller.made.archive_id}"
    page.goto(f"{archive}?path=/etc")
    expect(page.get_by_text("<b>odd & name</b>.conf")).to_be_visible()
    page.get_by_role("checkbox", name="Restore passwd").check()
    page.get_by_role("button", name="Root").click()
    page.wait_for_url("**path=%2F")
    page.get_by_role("checkbox", name="Restore srv").check()
    expect(page.locator(".basket li")).to_have_count(2)
    page.get_by_role("button", name="Restore…").click()
    expect(page.get_by_label("What")).to_have_value("/etc/passwd\n/srv")
    page.get_by_role("checkbox", name="Restore onto").check()
    page.get_by_role("button", name="Start the restore").click()
    page.wait_for_url("**/jobs/*")
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Restore · {controller.made.host}")
    with controller.session() as session:
        restore = session.scalars(select(Restore).order_by(Restore.created_at.desc()).limit(1)).one()
        assert restore.paths == ["/etc/passwd", "/srv"]
        assert restore.requested_by == "marie"


def test_unread_folder_becomes_a_browse_job(controller: Controller, page: Page) -> None:
    page.goto(f"{controller.url}/archives/{controller.made.archive_id}?path=/etc")
    page.get_by_role("button", name="nginx").click()
    expect(page.get_by_role("status").filter(has_text="Reading /etc/nginx")).to_be_visible()
    with controller.session() as session:
        query = select(Job).where(Job.operation == "browse").order_by(Job.created_at.desc()).limit(1)
        job = session.scalars(query).one()
        assert job.parameters["path"] == "/etc/nginx" and job.trigger == "dashboard"


def test_restore_refuses_a_relative_path(controller: Controller, page: Page) -> None:
    page.goto(f"{controller.url}/archives/{controller.made.archive_id}/restore")
    page.get_by_label("What").fill("etc/passwd")
    page.get_by_role("checkbox", name="Restore onto").check()
    page.get_by_role("button", name="Start the restore").click()
    expect(page.get_by_role("alert")).to_contain_text("path must be absolute")
    expect(page.get_by_label("What")).to_have_value("etc/passwd")
