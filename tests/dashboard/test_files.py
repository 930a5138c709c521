"""Files of archives from the catalogue: browse through folders and time, find what is gone, bring it back."""

import stat
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect
from saveos.archives.catalogue import open_store, to_ref
from saveos.archives.models import Archive
from saveos.archives.store.entries import Item
from saveos.hosts.models import Host
from saveos.restores.models import Restore
from sqlalchemy import select

from tests.dashboard.conftest import Controller

FILE, FOLDER = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755
HOSTILE = b"/srv/<img src=x onerror=alert(1)>\xff"


@pytest.fixture
def archives(controller: Controller) -> Iterator[list[Archive]]:
    """The three newest archives of a repository, oldest first, in the catalogue."""
    with controller.session() as session:
        one = session.get_one(Archive, controller.made.archive_id)
        query = select(Archive).where(Archive.repository_id == one.repository_id)
        rows = list(session.scalars(query.order_by(Archive.started_at.desc()).limit(3)))[::-1]
        trees = [
            [Item(b"/srv/budget.ods", 9000, 1, FILE), Item(b"/srv/note", 1, 1, FILE)],
            [Item(b"/srv/note", 2, 2, FILE), *(Item(b"/srv/zoo/%03d" % n, n, 2, FILE) for n in range(250))],
            [Item(b"/srv/note", 3, 3, FILE), Item(HOSTILE, 5, 3, FILE), Item(b"/srv/zoo", 0, 3, FOLDER)],
        ]
        with open_store(session, controller.home, one.tenant_id, one.repository_id) as store:
            for row, tree in zip(rows, trees, strict=True):
                folders = [Item(b"/srv", 0, 1, FOLDER)]
                if any(item.path.startswith(b"/srv/zoo/") for item in tree):
                    folders.append(Item(b"/srv/zoo", 0, 1, FOLDER))
                items = [*folders, *tree]
                store.index(
                    str(one.repository_id), row.borg_id, row.started_at.timestamp(), items, complete=True
                )
                row.catalogue = "indexed"
    yield rows
    with controller.session() as session:
        with open_store(session, controller.home, one.tenant_id, one.repository_id) as store:
            store.drop(str(one.repository_id))
        for row in session.scalars(select(Archive).where(Archive.repository_id == one.repository_id)):
            row.catalogue = "none"


def test_a_file_that_is_gone_is_found_and_restored_in_five_clicks(
    controller: Controller, page: Page, archives: list[Archive]
) -> None:
    page.goto(f"{controller.url}/archives")
    page.get_by_role("link", name="Find files").click()
    page.get_by_label("File").fill("budget")
    page.get_by_role("button", name="Find", exact=True).click()
    expect(page.get_by_role("row").filter(has_text="/srv/budget.ods")).to_contain_text("gone since")
    page.get_by_role("link", name="Restore…").click()
    expect(page.get_by_label("What")).to_have_value("/srv/budget.ods")
    assert str(archives[0].id) in page.url
    page.get_by_role("checkbox", name="Restore onto").check()
    page.get_by_role("button", name="Start the restore").click()
    page.wait_for_url("**/jobs/*")


def test_folders_pages_marks_and_hostile_names(
    controller: Controller, page: Page, archives: list[Archive]
) -> None:
    page.goto(f"{controller.url}/archives/{archives[1].id}")
    page.get_by_role("link", name="srv", exact=True).click()
    expect(page.get_by_role("row").filter(has_text="note")).to_contain_text("changed")
    expect(page.get_by_role("row").filter(has_text="zoo")).to_contain_text("250")
    page.get_by_role("link", name="zoo", exact=True).click()
    page.get_by_role("link", name="Next page").click()
    expect(page.get_by_text("249", exact=True).first).to_be_visible()
    page.goto(f"{controller.url}/archives/{archives[2].id}")
    page.get_by_role("link", name="srv", exact=True).click()
    expect(page.get_by_text("<img src=x onerror=alert(1)>�", exact=True)).to_be_visible()


def test_the_timeline_keeps_the_folder_and_compares(
    controller: Controller, page: Page, archives: list[Archive]
) -> None:
    page.goto(f"{controller.url}/archives/{archives[1].id}")
    page.get_by_role("link", name="srv", exact=True).click()
    timeline = page.get_by_role("region", name="Timeline")
    timeline.get_by_role("link", name="Compare").last.click()
    rows = page.get_by_role("row")
    expect(rows.filter(has_text="/srv/budget.ods")).to_contain_text("removed")
    expect(rows.filter(has_text="/srv/note")).to_contain_text("changed")
    rows.filter(has_text="/srv/note").get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("/srv/note")
    expect(page.get_by_role("row")).to_have_count(4)
    page.goto(f"{controller.url}/archives/{archives[0].id}?ref={to_ref(b'/srv/zoo')}")
    expect(page.get_by_text("This archive does not have this folder.")).to_be_visible()


def test_the_catalogue_is_built_anew_from_an_archive_s_page(
    controller: Controller, page: Page, archives: list[Archive]
) -> None:
    page.goto(f"{controller.url}/archives/{archives[2].id}")
    page.get_by_text("Build it anew").click()
    page.get_by_role("button", name="Drop and build anew").click()
    expect(page.get_by_text("asked for anew")).to_be_visible()
    expect(page.get_by_text("Build it anew")).to_have_count(0)


def test_nothing_found_says_so(controller: Controller, page: Page, archives: list[Archive]) -> None:
    page.goto(f"{controller.url}/files?q=no-such-file")
    expect(page.get_by_text("Nothing found")).to_be_visible()
    page.goto(f"{controller.url}/files?q=x&host=no-such-host")
    expect(page.get_by_role("alert")).to_contain_text("no host")


def test_whose_names_stay_on_hosts_is_said(controller: Controller, page: Page, archives: list[Archive]) -> None:
    with controller.session() as session:
        host = session.get_one(Host, archives[0].host_id)
        before, host.variables = host.variables, {"agent_catalogue": "off"}
    try:
        page.goto(f"{controller.url}/files?q=no-such-file")
        expect(page.get_by_text("Not looked through")).to_contain_text(host.name)
        page.goto(f"{controller.url}/archives/{archives[0].id}?lang=fr")
        expect(page.get_by_role("region", name="À propos de cette archive")).to_contain_text(
            f"La variable agent_catalogue propre à {host.name} y garde les noms de fichiers"
        )
        page.goto(f"{controller.url}/archives/{archives[0].id}?lang=en")
        expect(page.get_by_text("Build it anew")).to_have_count(0)
    finally:
        with controller.session() as session:
            session.get_one(Host, host.id).variables = before


def test_files_are_found_by_size_and_time(controller: Controller, page: Page, archives: list[Archive]) -> None:
    page.goto(f"{controller.url}/files?q=note")
    rows = page.get_by_role("row").filter(has_text="/srv/note")
    expect(rows).to_contain_text("in the newest archive")
    page.get_by_text("Size and time").click()
    page.get_by_label("At most").fill("2")
    page.get_by_role("button", name="Find", exact=True).click()
    expect(rows).to_contain_text("an older version")
    page.get_by_label("Changed from").fill("2000-01-01")
    page.get_by_role("button", name="Find", exact=True).click()
    expect(page.get_by_text("Nothing found")).to_be_visible()
    page.get_by_role("link", name="Clear filters").click()
    expect(rows).to_contain_text("in the newest archive")
    page.goto(f"{controller.url}/files?q=note&min_size=much")
    expect(page.get_by_role("alert")).to_contain_text("10M")


def test_a_name_of_any_bytes_is_chosen_shown_and_restored(
    controller: Controller, page: Page, archives: list[Archive]
) -> None:
    page.goto(f"{controller.url}/archives/{archives[2].id}")
    page.get_by_role("link", name="srv", exact=True).click()
    shown = HOSTILE.decode(errors="replace")
    page.get_by_label(f"Restore {shown.rpartition('/')[2]}").check()
    page.get_by_label("Restore note").check()
    page.get_by_role("link", name="Root").click()
    expect(page.locator("#basket")).to_contain_text("<img src=x")
    page.locator("#basket").get_by_role("button", name="Restore…").click()
    expect(page.get_by_label("What")).to_have_value("/srv/note")
    expect(page.get_by_role("checkbox", name=shown)).to_be_checked()
    page.get_by_role("checkbox", name="Restore onto").check()
    page.get_by_role("button", name="Start the restore").click()
    page.wait_for_url("**/jobs/*")
    with controller.session() as session:
        asked = session.scalars(select(Restore).order_by(Restore.id.desc())).first()
        assert asked is not None
        assert (asked.paths, asked.refs) == (["/srv/note"], [to_ref(HOSTILE)])
    page.goto(f"{controller.url}/restores/{asked.id}")
    expect(page.get_by_text(shown, exact=True)).to_be_visible()
    page.goto(f"{controller.url}/files?q=onerror")
    page.get_by_role("row").filter(has_text="onerror").get_by_role("link", name="Restore…").click()
    expect(page.get_by_role("checkbox", name=shown)).to_be_checked()
