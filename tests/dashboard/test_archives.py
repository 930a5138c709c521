"""Archives: look inside, choose over folders, restore."""

from playwright.sync_api import Page, expect
from saveos.jobs.models import Job
from saveos.restores.models import Restore
from sqlalchemy import select

from tests.dashboard.conftest import Controller


def test_choose_over_folders_and_restore(controller: Controller, page: Page) -> None:
    archive = f"{controller.url}/archives/{controller.made.archive_id}"
    page.goto(f"{archive}?path=/etc")
    expect(page.get_by_text("<b>odd & name</b>.conf", exact=True)).to_be_visible()
    page.get_by_role("checkbox", name="Restore passwd").check()
    page.get_by_role("button", name="Root").click()
    page.wait_for_url("**path=%2F")
    page.get_by_role("checkbox", name="Restore srv").check()
    expect(page.locator(".basket li")).to_have_count(2)
    page.get_by_role("button", name="Remove /srv").press("Enter")
    expect(page.get_by_role("button", name="Remove /etc/passwd")).to_be_focused()
    page.get_by_role("checkbox", name="Restore srv").check()
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


def test_a_preview_comes_before_a_restore_in_place(controller: Controller, page: Page) -> None:
    page.goto(f"{controller.url}/archives/{controller.made.archive_id}/restore?paths=/etc/nginx")
    page.get_by_role("radio", name="In place").check()
    page.get_by_label("If something is there already").select_option("newer")
    page.get_by_label("Leave out").fill("/etc/nginx/old")
    page.get_by_role("checkbox", name="ACLs").uncheck()
    page.get_by_role("button", name="Preview").click()
    page.wait_for_url("**/restores/*")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Preview of a restore")
    with controller.session() as session:
        restore = session.scalars(select(Restore).order_by(Restore.created_at.desc()).limit(1)).one()
        assert (restore.preview, restore.in_place, restore.conflict) == (True, True, "newer")
        assert (restore.paths, restore.excludes) == (["/etc/nginx"], ["/etc/nginx/old"])
        job = session.get_one(Job, restore.job_id)
        assert (job.parameters["acls"], job.parameters["owners"]) == (False, True)
        job.state = "succeeded"
        restore.outcome = {"files": 1, "bytes": 5, "fits": True, "skipped": 1, "destination": "/"}
        restore.outcome["failed_total"] = 2
        restore.outcome |= {"entries": [{"path": "/etc/nginx/<b>x</b>", "action": "skip"}]}
        told = "/etc cannot be written. Name another destination, or run this as root."
        job.state, job.error = "failed", told
        restore.preview = False
        session.commit()
    page.reload()
    expect(page.get_by_role("alert").first).to_have_text(told)
    expect(page.get_by_role("link", name="Ask again, with changes")).to_be_visible()
    with controller.session() as session:
        restore = session.get_one(Restore, restore.id)
        restore.preview = True
        job = session.get_one(Job, restore.job_id)
        job.state, job.error = "succeeded", ""
    page.reload()
    expect(page.get_by_role("cell", name="/etc/nginx/<b>x</b>")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_text("2 paths could not be restored.")
    page.get_by_role("link", name="Go on to the restore").click()
    expect(page.get_by_role("checkbox", name="ACLs")).not_to_be_checked()
    expect(page.get_by_role("checkbox", name="Owners and groups")).to_be_checked()
    expect(page.get_by_role("radio", name="In place")).to_be_checked()
    expect(page.get_by_label("If something is there already")).to_have_value("newer")
    expect(page.get_by_label("Leave out")).to_have_value("/etc/nginx/old")
