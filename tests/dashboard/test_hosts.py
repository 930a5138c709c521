"""The list of hosts: filters, search, pages, selection, live rows, and adding one."""

import re
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Browser, Page, expect
from saveos.accounts.service import set_agent_token
from saveos.checkins.models import RunningBackup
from saveos.core import security
from saveos.core.clock import now
from saveos.core.database import new_id
from saveos.hosts.models import Host
from saveos.jobs.models import Job, JobHost
from sqlalchemy import delete, func, select

from tests.dashboard.conftest import Controller
from tests.dashboard.seed import PASSWORD


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
    expect(row.locator(".st:visible")).to_have_text("No backups")
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
    expect(page.get_by_role("heading", name="What would happen")).to_be_visible()
    with controller.session() as session:
        before = session.scalar(select(func.count()).select_from(Job))
    page.get_by_role("button", name="Back up: 2 hosts").click()
    link = page.locator(".toast-box").get_by_role("link", name="View job")
    expect(link).to_be_visible()
    with controller.session() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == before + 1
    link.click()
    page.wait_for_url(re.compile("/jobs/[0-9a-f-]{36}"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Backup · 2 hosts")
    with controller.session() as session:
        job = session.scalars(select(Job).order_by(Job.created_at.desc()).limit(1)).one()
        hosts = session.scalars(select(JobHost.name).where(JobHost.job_id == job.id)).all()
        assert (job.operation, job.trigger, job.requested_by) == ("backup", "dashboard", "marie")
        assert sorted(hosts) == sorted(names)


def test_all_that_match_get_a_tag_after_the_dry_run(
    controller: Controller, page: Page, axe: Callable[..., Any]
) -> None:
    """Ticking one host and `all that match` means the filter, on every page of the list."""
    page.goto(f"{controller.url}/hosts?group=web")
    count = page.locator("tbody tr").count()
    assert count > 2
    page.locator("tbody input[type=checkbox]").first.check()
    page.locator("#bulk [data-every]").check()
    expect(page.locator("#bulk [data-count]")).to_have_text(str(count))
    page.locator("#bulk").get_by_role("button", name="More…").click()
    page.select_option("#f-action", label="Add tags")
    page.fill("#f-tags", "frontend, prod")
    page.get_by_role("button", name="Show what would happen").click()
    apply = page.get_by_role("button", name=f"Add tags: {count} hosts")
    expect(apply).to_be_visible()
    assert axe(page) == []
    assert tagged(controller, "frontend") == 0  # so far only shown
    apply.click()
    page.wait_for_url("**group=web*")
    expect(page.locator(".toast-box")).to_contain_text("Hosts changed")
    assert tagged(controller, "frontend") == count
    page.goto(f"{controller.url}/hosts?tag=frontend")
    expect(page.locator("tbody tr")).to_have_count(count)
    expect(page.locator("select[name=tag]")).to_have_value("frontend")


def tagged(controller: Controller, tag: str) -> int:
    with controller.session() as session:
        return sum(tag in tags for tags in session.scalars(select(Host.tags)))


def test_taking_out_wants_the_number_typed(controller: Controller, page: Page) -> None:
    page.goto(f"{controller.url}/hosts?q=dns-")
    names = page.locator("tbody a.name").all_inner_texts()[:2]
    for name in names:
        page.get_by_role("checkbox", name=f"Select {name}").check()
    page.locator("#bulk").get_by_role("button", name="More…").click()
    page.select_option("#f-action", label="Take out of care")
    expect(page.get_by_text("Archives and repositories stay.")).to_be_visible()
    page.fill("#f-typed", "3")
    with page.expect_response(lambda answer: answer.status == 422):
        page.get_by_role("button", name="Take out of care: 2 hosts").click()
    expect(page.locator("#h-typed .problem")).to_be_visible()
    assert states(controller, names) == {"enrolled"}
    page.fill("#f-typed", "2")
    page.get_by_role("button", name="Take out of care: 2 hosts").click()
    page.wait_for_url(f"{controller.url}/hosts")
    assert states(controller, names) == {"decommissioned"}
    with controller.session() as session:
        for host in session.scalars(select(Host).where(Host.name.in_(names))):
            host.state = "enrolled"


def states(controller: Controller, names: list[str]) -> set[str]:
    with controller.session() as session:
        return set(session.scalars(select(Host.state).where(Host.name.in_(names))))


def test_bulk_works_without_javascript(controller: Controller, browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{controller.url}/hosts?q=file-")
    page.fill("#f-name", "marie")
    page.fill("#f-password", PASSWORD)
    page.click("button.btn-primary")
    page.wait_for_url("**/hosts?q=file-*")
    page.locator("tbody input[type=checkbox]").first.check()
    page.locator("#bulk").get_by_role("button", name="More…").click()
    page.select_option("#f-action", label="Add tags")
    page.get_by_role("button", name="Show what would happen").click()
    page.fill("#f-tags", "by-hand")
    page.get_by_role("button", name="Show what would happen").click()
    page.get_by_role("button", name="Add tags: 1 host").click()
    expect(page.locator(".toast-box")).to_contain_text("Hosts changed")
    assert tagged(controller, "by-hand") == 1
    context.close()


def test_drift_is_filtered_and_converged(controller: Controller, page: Page) -> None:
    page.goto(f"{controller.url}/hosts")
    chip = page.locator(".chip", has_text="Drift")
    count = int(chip.locator("b").inner_text())
    chip.click()
    page.wait_for_url("**drift=true*")
    expect(page.locator("tbody tr")).to_have_count(count)
    page.locator("tbody tr", has_text="drift").locator("a.name").first.click()
    page.locator(".head").get_by_role("link", name="Drift").click()
    expect(page.get_by_role("heading", name="Drift")).to_be_visible()
    expect(page.locator("pre.yaml")).to_contain_text("source_directories:")
    expect(page.locator(".chain [aria-current]")).to_contain_text("the default")
    page.get_by_role("button", name="Converge").click()
    expect(page.locator(".toast-box")).to_contain_text("Provisioning started")
    with controller.session() as session:
        job = session.scalars(select(Job).order_by(Job.created_at.desc()).limit(1)).one()
        assert (job.operation, job.mode) == ("provision", "run")


def test_a_policy_of_its_own_choice_applies(controller: Controller, page: Page) -> None:
    with controller.session() as session:
        name = session.scalars(select(Host.name).where(Host.is_agent).order_by(Host.name.desc())).first()
    page.goto(f"{controller.url}/hosts/{name}/policy")
    for choice, source in (("default", "the host's own choice"), ("", "the default")):
        page.select_option("select[name=policy]", choice)
        page.get_by_role("button", name="Choose").click()
        expect(page.locator(".toast-box")).to_contain_text("Saved")
        expect(page.locator(".chain [aria-current]")).to_contain_text(source)


def test_a_running_backup_is_followed_live(controller: Controller, page: Page) -> None:
    """The agent tells how far it is: list, overview and the host's page follow without a reload."""
    with controller.session() as session:
        host = session.scalars(select(Host).where(Host.name.like("mail-%"), Host.last_size > 0)).first()
        assert host is not None
        secret = security.new_token("saveos_agent")
        set_agent_token(session, host.tenant_id, host.id, host.name, security.token_hash(secret))
    page.goto(f"{controller.url}/hosts/{host.name}")
    page.wait_for_selector("#live[data-state=on]")
    assert page.locator("#running .card").count() == 0
    told = {"run_id": str(new_id()), "kind": "backup", "trigger": "timer", "phase": "create"}
    told |= {"started_at": now().isoformat(), "repository_id": None, "job_id": None}

    def tell(files: int, size: int) -> None:
        answer = page.context.request.post(
            f"{controller.url}/api/v1/agents/progress",
            data=told | {"files": files, "original_size": size},
            headers={"Authorization": f"Bearer {secret}"},
        )
        assert answer.ok, answer.text()

    tell(1234, host.last_size // 4)
    card = page.locator("#running .card")
    expect(card).to_contain_text("1,234")
    expect(card.locator("svg.bar rect")).to_have_attribute("width", re.compile(r"2[45](\.|$)"))
    tell(5678, host.last_size // 2)
    expect(card).to_contain_text("5,678")
    page.goto(f"{controller.url}/hosts?q=mail-")
    expect(page.locator(f"#h-{host.id} .run")).to_contain_text("Backing up")
    with controller.session() as session:
        session.execute(delete(RunningBackup).where(RunningBackup.host_id == host.id))


def test_activity_shows_runs_and_acts(controller: Controller, page: Page) -> None:
    name = controller.made.host
    answer = page.context.request.patch(
        f"{controller.url}/api/v1/hosts/{name}",
        data={"user": "root"},
        headers={"Origin": controller.url},
    )
    assert answer.ok, answer.text()
    page.goto(f"{controller.url}/hosts/{name}/activity")
    first = page.locator("tbody tr").first
    expect(first).to_contain_text("Host changed")
    expect(first).to_contain_text("marie")
    expect(page.locator("tbody tr", has_text="Backup").first).to_contain_text("host's timer")


def test_drift_from_a_host(controller: Controller, page: Page) -> None:
    page.goto(f"{controller.url}/hosts/{controller.made.host}")
    page.get_by_role("button", name="Show drift").click()
    expect(page.locator(".toast-box")).to_contain_text("Drift started")
    with controller.session() as session:
        job = session.scalars(select(Job).order_by(Job.created_at.desc()).limit(1)).one()
        assert (job.operation, job.mode) == ("drift", "run")


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
    page.wait_for_selector("#live[data-state]")  # scripts run
    page.keyboard.press("Control+k")
    page.keyboard.type("vault")
    expect(page.locator("#palette-list li").first).to_contain_text("vault-1")
    page.keyboard.press("Enter")
    page.wait_for_url("**/hosts/vault-1*")


def test_a_slow_answer_holds_up_no_letter(controller: Controller, page: Page) -> None:
    held = []

    def hold(route: Any) -> None:
        held.append(route)

    page.route(re.compile(r"/find\?q=$"), hold)  # the answer to nothing typed never comes
    page.goto(f"{controller.url}/")
    page.wait_for_selector("#live[data-state]")
    page.keyboard.press("Control+k")
    page.keyboard.type("vault")
    expect(page.locator("#palette-list li").first).to_contain_text("vault-1")
    assert held


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
