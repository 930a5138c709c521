"""Content that leaves its host: the wizard offers it, a download comes through, the switch takes it away."""

import io
import re
import tarfile
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect
from saveos.accounts.models import Tenant
from saveos.accounts.service import set_agent_token
from saveos.archives.catalogue import to_ref
from saveos.archives.models import Archive
from saveos.core.security import token_hash
from saveos.hosts.models import Host
from saveos.jobs.models import Job, JobHost
from saveos.restores.models import Restore
from sqlalchemy import select

from tests.dashboard.conftest import Controller
from tests.dashboard.test_files import archives

__all__ = ["archives"]  # the fixture


@pytest.fixture
def token(controller: Controller) -> str:
    """The token of the agent whose archive it is; the host itself is played by the test."""
    made = f"agent-{uuid.uuid4().hex}"
    with controller.session() as session:
        archive = session.get_one(Archive, controller.made.archive_id)
        host = session.get_one(Host, archive.host_id)
        set_agent_token(session, host.tenant_id, host.id, host.name, token_hash(made))
    return made


def packed(size: int) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        info = tarfile.TarInfo("srv/budget.ods")
        info.size = size
        tar.addfile(info, io.BytesIO(b"x" * size))
    return content.getvalue()


def send(
    controller: Controller, restore: uuid.UUID, token: str, content: bytes, form: str = "tar.gz"
) -> threading.Thread:
    """Send as the host would."""

    def pieces() -> Iterator[bytes]:
        yield from (content[at : at + 1000] for at in range(0, len(content), 1000))

    def work() -> None:
        url = f"{controller.url}/api/v1/agents/transfers/{restore}?form={form}"
        httpx.put(url, content=pieces(), headers={"Authorization": f"Bearer {token}"}, timeout=60)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_download_comes_from_the_host_to_the_browser(controller: Controller, page: Page, token: str) -> None:
    page.goto(f"{controller.url}/archives/{controller.made.archive_id}/restore?paths=/srv/budget.ods")
    page.get_by_role("radio", name="Download as a tar archive").check()
    page.get_by_role("button", name="Start the restore").click()
    page.wait_for_url(re.compile(r"/restores/[0-9a-f-]{36}$"))
    restore, content = uuid.UUID(page.url.rpartition("/")[2]), packed(100_000)
    thread = send(controller, restore, token, content)
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Download", exact=True).click()
    thread.join(30)
    assert waiting.value.suggested_filename.endswith(".tar.gz")
    with open(waiting.value.path(), "rb") as file:  # noqa: PTH123 - Playwright's path is text
        assert file.read() == content
    with controller.session() as session:
        row = session.get_one(Restore, restore)
        assert row.kind == "download" and row.outcome == {"form": "tar.gz", "sent": len(content)}
    page.goto(f"{controller.url}/restores")
    expect(page.get_by_role("row").filter(has_text="/srv/budget.ods").first).to_contain_text("download")


def test_a_file_s_text_is_shown_once_as_it_is(
    controller: Controller, page: Page, token: str, archives: list[Archive], axe: Callable[[Page], list[Any]]
) -> None:
    here = f"{controller.url}/archives/{archives[2].id}?ref={to_ref(b'/srv')}"
    page.goto(here)
    expect(page.get_by_role("button", name="Preview of zoo")).to_have_count(0)
    page.get_by_role("button", name="Preview of note").click()
    page.wait_for_url("**/restores/*/text")
    expect(page.get_by_text("reads the file…")).to_be_visible()
    restore = uuid.UUID(page.url.split("/")[-2])
    text = "\n<b>é</b> & {{ 7*7 }}\n" + "wide " * 400 + "\n<script>alert(1)</script>\n" * 200
    thread = send(controller, restore, token, text.encode(), "txt")
    shown = page.get_by_role("region", name="Text", exact=True)
    expect(shown).to_contain_text("<b>é</b> & {{ 7*7 }}")
    thread.join(30)
    for _ in range(300):
        if shown.text_content() == text:
            break
        page.wait_for_timeout(100)
    assert shown.text_content() == text
    expect(shown).to_be_focused()  # for who reads and scrolls by keys
    assert axe(page) == []
    with controller.session() as session:
        row = session.get_one(Restore, restore)
        job = session.get_one(Job, row.job_id)
        assert (job.operation, job.parameters["other"], job.trigger) == ("diff", "none", "dashboard")
        assert row.outcome == {"form": "txt", "sent": len(text.encode())}
        host = session.scalars(select(JobHost).where(JobHost.job_id == job.id)).one()
        told = "The file is no text. Restore it to look at it."
        host.state, host.error, job.state = "failed", told, "failed"
    page.reload()
    expect(page.get_by_role("alert")).to_have_text(told)
    page.goto(f"{page.url}?lang=fr")
    expect(page.get_by_role("alert")).to_have_text(
        "Le fichier n’est pas un texte. Restaurez-le pour le consulter."
    )
    with controller.session() as session:
        session.get_one(Job, row.job_id).state = "succeeded"
    page.goto(page.url.replace("lang=fr", "lang=en"))
    expect(page.get_by_text("It was shown already")).to_be_visible()
    page.goto(f"{controller.url}/files?q=note")
    with controller.session() as session:
        for tenant in session.scalars(select(Tenant)):
            tenant.content_through_controller = False
    try:
        expect(page.get_by_role("button", name="Preview of /srv/note")).to_be_visible()
        for url in (page.url, here):
            page.goto(url)
            expect(page.get_by_text("note").first).to_be_visible()
            expect(page.get_by_role("button", name="Preview of")).to_have_count(0)
    finally:
        with controller.session() as session:
            for tenant in session.scalars(select(Tenant)):
                tenant.content_through_controller = True


def test_a_text_difference_is_a_page_that_names_both_archives(
    controller: Controller, page: Page, token: str, archives: list[Archive], axe: Callable[[Page], list[Any]]
) -> None:
    old, new = archives[0], archives[1]
    diff = "--- a\n+++ b\n@@ -1,3 +1,2 @@\n kept <b>\x0c+no line of its own\n--- an SQL remark\n-gone\n+come\n"
    for sent, regions in ((diff, 1), ("The file is the same in both.\n", 0)):
        page.goto(f"{controller.url}/archives/{old.id}/compare/{new.id}?ref={to_ref(b'/srv')}")
        page.get_by_role("button", name="Text /srv/note").click()
        page.wait_for_url("**/restores/*/text")
        expect(page.get_by_role("link", name=old.name)).to_be_visible()
        expect(page.get_by_role("link", name=new.name)).to_be_visible()
        thread = send(controller, uuid.UUID(page.url.split("/")[-2]), token, sent.encode(), "diff")
        expect(page.get_by_role("region", name="Changes, line by line")).to_have_count(regions)
        if regions:
            assert page.locator(".diff del").all_text_contents() == ["--- an SQL remark", "-gone"]
            assert page.locator(".diff ins").all_text_contents() == ["+come"]
            assert axe(page) == []
        else:
            expect(page.get_by_text("The text is the same in both.")).to_be_visible()
        thread.join(30)


def test_another_host_is_chosen_by_its_name(controller: Controller, page: Page) -> None:
    with controller.session() as session:
        archive = session.get_one(Archive, controller.made.archive_id)
        query = select(Host).where(Host.id != archive.host_id, Host.state == "enrolled").order_by(Host.id)
        other = session.scalars(query.where(Host.tenant_id == archive.tenant_id)).first()
        assert other is not None
        name, other_id = other.name, other.id
    page.goto(f"{controller.url}/archives/{controller.made.archive_id}/restore?paths=/srv/moved")
    page.get_by_role("radio", name="Another host").check()
    page.get_by_label("Destination on").fill("/srv/from-there")
    page.get_by_role("checkbox", name="Restore onto").check()
    page.get_by_role("button", name="Start the restore").click()
    expect(page.get_by_text("Name the other host.")).to_be_visible()
    page.get_by_label("Other host", exact=True).fill("no-such-host")
    page.get_by_role("checkbox", name="Restore onto").check()
    page.get_by_role("button", name="Start the restore").click()
    expect(page.get_by_text("no-such-host")).to_be_visible()
    page.get_by_label("Other host", exact=True).fill(name)
    page.get_by_role("checkbox", name="Restore onto").check()
    page.get_by_role("button", name="Start the restore").click()
    page.wait_for_url("**/jobs/*")
    with controller.session() as session:
        row = session.scalars(select(Restore).order_by(Restore.id.desc())).first()
        assert row is not None
        assert (row.kind, row.target_host_id, row.destination) == ("other_host", other_id, "/srv/from-there")


def test_the_switch_takes_downloads_and_other_hosts_away(controller: Controller, page: Page) -> None:
    page.goto(f"{controller.url}/settings#content")
    box = page.get_by_role("checkbox", name="May pass through")
    box.uncheck()
    page.locator("#content").get_by_role("button", name="Save").click()
    try:
        expect(page.get_by_role("checkbox", name="May pass through")).not_to_be_checked()
        page.goto(f"{controller.url}/archives/{controller.made.archive_id}/restore")
        expect(page.get_by_text("switched off")).to_be_visible()
        expect(page.get_by_role("radio", name="Download as a tar archive")).to_have_count(0)
    finally:
        with controller.session() as session:
            for tenant in session.scalars(select(Tenant)):
                tenant.content_through_controller = True
