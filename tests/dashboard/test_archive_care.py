"""Care of an archive on its page: what is started, what wants a typed name, what the host found."""

import pytest
from playwright.sync_api import Page, expect
from saveos.archives.models import Archive
from saveos.core.clock import now
from saveos.jobs.models import Job, JobHost
from sqlalchemy import select

from tests.dashboard.conftest import Controller


def newest(controller: Controller, operation: str) -> Job:
    with controller.session() as session:
        found = session.scalars(select(Job).where(Job.operation == operation).order_by(Job.id.desc())).first()
        assert found is not None
        return found


@pytest.fixture
def archive(controller: Controller) -> Archive:
    with controller.session() as session:
        return session.get_one(Archive, controller.made.archive_id)


def test_protect_rename_and_export_become_jobs(controller: Controller, page: Page, archive: Archive) -> None:
    here = f"{controller.url}/archives/{archive.id}"
    page.goto(here)
    page.get_by_role("button", name="Protect").click()
    page.wait_for_url("**/jobs/*")
    job = newest(controller, "care")
    assert (job.parameters["action"], job.parameters["archive"], job.trigger) == (
        "protect",
        archive.borg_id,
        "dashboard",
    )
    page.goto(here)
    page.get_by_text("Rename", exact=True).first.click()
    page.get_by_label("New name").fill("a/b")
    page.get_by_role("button", name="Rename").click()
    expect(page.get_by_role("alert")).to_contain_text("new_name")
    expect(page.get_by_label("New name")).to_have_value("a/b")
    page.get_by_label("New name").fill("release-1")
    page.get_by_role("button", name="Rename").click()
    page.wait_for_url("**/jobs/*")
    assert newest(controller, "care").parameters["new_name"] == "release-1"
    page.goto(here)
    page.get_by_text("Export as a tar file").click()
    page.get_by_label("File on").fill("/srv/out.tar.gz")
    page.get_by_role("button", name="Export").click()
    page.wait_for_url("**/jobs/*")
    assert newest(controller, "care").parameters["destination"] == "/srv/out.tar.gz"


def test_a_delete_wants_the_name_and_shows_first(controller: Controller, page: Page, archive: Archive) -> None:
    page.goto(f"{controller.url}/archives/{archive.id}")
    page.get_by_text("Delete this archive").click()
    page.get_by_role("button", name="Show what would go").click()
    page.wait_for_url("**/jobs/*")
    assert newest(controller, "care").mode == "check"
    page.goto(f"{controller.url}/archives/{archive.id}")
    page.get_by_text("Delete this archive").click()
    page.get_by_label("to confirm").fill("something else")
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("Type the archive's name")
    page.get_by_label("to confirm").fill(archive.name)
    page.get_by_role("button", name="Delete", exact=True).click()
    page.wait_for_url("**/jobs/*")
    job = newest(controller, "care")
    assert (job.mode, job.parameters["action"]) == ("run", "delete")


def test_a_protected_archive_says_so_and_cannot_be_deleted(
    controller: Controller, page: Page, archive: Archive
) -> None:
    with controller.session() as session:
        session.get_one(Archive, archive.id).protected = True
    page.goto(f"{controller.url}/archives/{archive.id}")
    expect(page.get_by_text("Protected: retention leaves it out")).to_be_visible()
    expect(page.get_by_text("Delete this archive")).to_have_count(0)
    page.goto(f"{controller.url}/archives")
    expect(page.locator(f"#a-{archive.id}")).to_contain_text("protected")
    with controller.session() as session:
        session.get_one(Archive, archive.id).protected = False


def test_a_database_is_replaced_only_with_its_name_typed(
    controller: Controller, page: Page, archive: Archive
) -> None:
    page.goto(f"{controller.url}/archives/{archive.id}")
    page.get_by_text("Bring a database back").click()
    page.get_by_label("Database", exact=True).fill("shop")
    page.get_by_role("radio", name="Replace the present one").check()
    page.get_by_role("button", name="Bring it back").click()
    expect(page.get_by_role("alert")).to_contain_text("Type the database's name")
    page.get_by_role("radio", name="Replace the present one").check()
    page.get_by_label("Type the database's name").fill("shop")
    page.get_by_role("button", name="Bring it back").click()
    page.wait_for_url("**/jobs/*")
    job = newest(controller, "database")
    assert job.parameters["database_as"] == "replace"
    told = {"kind": "postgresql", "into": "shop", "safety": "/var/lib/s/safety/shop.dump", "rows": 4211}
    with controller.session() as session:
        result = session.scalars(select(JobHost).where(JobHost.job_id == job.id)).one()
        result.result, result.error = {"database": told}, "The disk is nearly full."
    page.goto(f"{controller.url}/restores")
    row = page.get_by_role("region", name="Databases").get_by_role("row").filter(has_text="shop").first
    for text in ("in place", "brought back as shop · 4,211 rows", told["safety"], "The disk is nearly full."):
        expect(row).to_contain_text(text)


def test_a_comparison_with_the_host_is_shown_by_pages(
    controller: Controller, page: Page, archive: Archive
) -> None:
    page.goto(f"{controller.url}/archives/{archive.id}")
    page.get_by_role("button", name="Compare with the host").click()
    expect(page.get_by_role("status").filter(has_text="looks at its files")).to_be_visible()
    hostile = {"kind": "added", "path": "/srv/<b>x</b>\n", "ref": "L3Nydg", "size": None, "now": 5}
    many = [{"kind": "removed", "path": f"/z{n:04}", "ref": "L3o", "size": 4, "now": None} for n in range(250)]
    told = {"compared": 900, "added": {"files": 1, "bytes": 5}, "removed": {"files": 251, "bytes": 1004}}
    told |= {"modified": {"files": 0, "bytes": 0}, "differences": [hostile, *many], "more": 1}
    job = newest(controller, "compare")
    with controller.session() as session:
        row = session.scalars(select(JobHost).where(JobHost.job_id == job.id)).one()
        row.result, row.state, row.finished_at = {"compare": told}, "ok", now()
        done = session.get_one(Job, job.id)
        done.state, done.finished_at = "succeeded", now()
    page.goto(f"{controller.url}/archives/{archive.id}/host")
    expect(page.get_by_text("/srv/<b>x</b>")).to_be_visible()
    expect(page.get_by_role("row")).to_have_count(201)
    page.get_by_role("link", name="Next page").click()
    expect(page.get_by_text("/z0249")).to_be_visible()
    expect(page.get_by_text("Only the first 251 are shown")).to_be_visible()
