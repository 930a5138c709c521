"""Maintenance: cards, one page per operation with form, findings, fixes, results and trend; big fleets."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from saveos.hosts.models import Host
from saveos.jobs.models import Job, JobHost
from saveos.maintenance import findings
from saveos.maintenance.models import Finding, MaintenanceLatest, MaintenanceResult
from sqlalchemy import delete, select

from tests.dashboard.conftest import Controller

SLUGS = ("backup", "system-health", "dependencies", "cleanup", "validation")
FOUND = [
    {
        "id": "apt-archives",
        "severity": "info",
        "title": "Package files of apt: 1.2 GB can be removed.",
        "evidence": "12 files older than 1 days\n/var/cache/apt/archives/<b>x</b>.deb",
        "fixable": True,
    },
    {
        "id": "rule-refused",
        "severity": "warning",
        "subject": "everything",
        "title": "The cleanup rule everything is not carried out: its root is /.",
        "fix": "Mend the rule.",
    },
]
SUMMARY = {"planned_bytes": 1_200_000_000, "freed_bytes": 0, "files": 12, "apt-archives_bytes": 1_200_000_000}


def tell(
    controller: Controller, host: str, found: list[dict[str, Any]], operation: str = "cleanup"
) -> uuid.UUID:
    """Tell a result of a dry run, as the engine does."""
    with controller.session() as session:
        row = session.scalars(select(Host).where(Host.name == host)).one()
        job = Job(tenant_id=row.tenant_id, operation=operation, mode="check", state="succeeded")
        session.add(job)
        session.flush()
        told = {operation: {"schema": 1, "summary": SUMMARY, "findings": found}}
        findings.record(
            session, job, JobHost(job_id=job.id, name=host, host_id=row.id, result=told, state="ok")
        )
        return uuid.UUID(
            str(session.scalars(select(MaintenanceResult.id).where(MaintenanceResult.job_id == job.id)).one())
        )


@pytest.fixture
def told(controller: Controller) -> Iterator[str]:
    """The name of a host on which a cleanup found something."""
    tell(controller, controller.made.host, FOUND)
    yield controller.made.host
    with controller.session() as session:
        for table in (Finding, MaintenanceLatest, MaintenanceResult):
            session.execute(delete(table))


def test_every_operation_has_a_card_and_a_page(controller: Controller, page: Page, told: str) -> None:
    page.goto(f"{controller.url}/maintenance")
    card = page.get_by_role("article", name="Cleanup")
    expect(card).to_contain_text("Warning 1")
    card.get_by_role("button", name="Dry run").click()
    expect(page.locator(".toast-box")).to_contain_text("Cleanup started")
    for slug in SLUGS:
        answer = page.goto(f"{controller.url}/maintenance/{slug}")
        assert answer is not None and answer.status == 200, slug
    for slug in ("health", "nothing", "restore"):
        answer = page.goto(f"{controller.url}/maintenance/{slug}")
        assert answer is not None and answer.status == 404, slug


def test_findings_are_filtered_shown_as_text_and_fixed(controller: Controller, page: Page, told: str) -> None:
    page.goto(f"{controller.url}/maintenance/cleanup")
    table = page.locator("#findings tbody")
    expect(table.locator("tr")).to_have_count(2)
    expect(table.locator("tr").first).to_contain_text("The cleanup rule everything")  # the worst come first
    expect(page.locator("#stand")).to_contain_text("1.1 GiB")
    table.get_by_text("Evidence and fix").last.click()
    expect(table.locator("pre").first).to_contain_text("<b>x</b>.deb")
    page.locator("#findings").get_by_role("link", name="Warning").click()
    expect(table.locator("tr")).to_have_count(1)
    page.fill("#findings input[name=host]", "no-such-host")
    page.press("#findings input[name=host]", "Enter")
    expect(page.get_by_role("heading", name="No finding here")).to_be_visible()
    page.goto(f"{controller.url}/maintenance/cleanup")
    page.get_by_role("link", name="Package files of apt").click()
    expect(table.locator("tr")).to_have_count(1)
    page.goto(f"{controller.url}/maintenance/cleanup")
    assert table.get_by_role("button").count() == 1  # only what the operation can mend has a button
    table.get_by_role("button", name="Fix").click()
    expect(page.locator(".toast-box")).to_contain_text("Cleanup started")
    with controller.session() as session:
        job = session.scalars(select(Job).where(Job.operation == "cleanup").order_by(Job.id.desc())).first()
        assert (job.mode, job.parameters["rules"], job.hosts_total) == ("run", ["apt-archives"], 1)
        assert job.trigger == "dashboard"


def test_all_findings_of_a_filter_are_fixed_after_a_confirmation(
    controller: Controller, browser: Any, told: str
) -> None:
    """Sixty findings, fifty on a page, without JavaScript."""
    more = [FOUND[0] | {"id": f"rule-{number}", "title": f"Rule {number}"} for number in range(60)]
    tell(controller, told, more)
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{controller.url}/maintenance/cleanup?severity={more[0]['severity']}")
    page.fill("#f-name", "marie")
    page.fill("#f-password", "correct horse battery")
    page.click("button.btn-primary")
    page.get_by_role("link", name="Fix all that match").click()
    expect(page.locator("main")).to_contain_text("60 findings can be fixed by themselves, on 1 host")
    tell(controller, told, more[:59])
    page.get_by_role("button", name="Fix 60 findings").click()
    expect(page.locator("main")).to_contain_text("The findings changed meanwhile")
    page.get_by_role("button", name="Fix 59 findings").click()
    expect(page.locator("h1")).to_have_text("Cleanup")
    with controller.session() as session:
        job = session.scalars(select(Job).where(Job.operation == "cleanup").order_by(Job.id.desc())).first()
        assert len(job.parameters["rules"]) == 59 and job.mode == "run"
    context.close()


def test_form_is_made_from_the_parameters(controller: Controller, page: Page) -> None:
    page.goto(f"{controller.url}/maintenance/cleanup")
    page.get_by_text("Run or dry run…").click()
    page.get_by_label("Only these groups and hosts:").check()
    page.fill("#f-hosts", "nobody")
    page.get_by_label("container images").uncheck()
    page.fill("#f-older_than", "3")
    page.get_by_role("button", name="Dry run").click()
    expect(page.locator("form .problem")).to_contain_text("There is no host nobody")
    assert page.input_value("#f-older_than") == "3"
    page.fill("#f-hosts", controller.made.host)
    page.fill("#f-older_than", "many")
    page.get_by_role("button", name="Dry run").click()
    expect(page.locator("form .problem")).to_contain_text("Write a number.")
    page.fill("#f-older_than", "3")
    page.fill("#f-custom", "- name: app\n  root: /var/cache/app\n  patterns: ['*.tmp']")
    page.get_by_role("button", name="Dry run").click()
    expect(page.locator(".toast-box")).to_contain_text("Cleanup started")
    with controller.session() as session:
        job = session.scalars(select(Job).where(Job.operation == "cleanup").order_by(Job.id.desc())).first()
        assert (job.mode, job.targets["hosts"]) == ("check", [controller.made.host])
        asked = job.parameters
        assert (asked["older_than"], asked["rule_kinds"]) == (3, ["cache", "logs", "temp"])
        assert [rule["root"] for rule in asked["custom"]] == ["/var/cache/app"]


def test_result_says_what_is_new_and_gone(controller: Controller, page: Page, told: str) -> None:
    result = tell(controller, told, [FOUND[1], {"id": "tmp", "severity": "info", "title": "Fresh one."}])
    page.goto(f"{controller.url}/maintenance/cleanup")
    page.locator("#results").get_by_role("link", name=told).first.click()
    expect(page).to_have_url(f"{controller.url}/maintenance/results/{result}")
    expect(page.locator("tr", has_text="Fresh one.")).to_contain_text("new")
    expect(page.get_by_role("region", name="Gone since the result before")).to_contain_text(
        "Package files of apt"
    )


def test_a_viewer_sees_and_starts_nothing(controller: Controller, visit: Callable[..., Any], told: str) -> None:
    page = visit("vera").page()
    page.goto(f"{controller.url}/maintenance/cleanup")
    expect(page.locator("#findings tbody tr")).to_have_count(2)
    assert page.get_by_role("button", name="Fix").count() == 0
    assert page.get_by_role("button", name="Dry run").count() == 0
    answer = page.context.request.post(
        f"{controller.url}/maintenance/cleanup", form={"scope": "all"}, headers={"Origin": controller.url}
    )
    assert answer.status == 403


# Colours are the theme's and lengths the language's, so two visits see both of each.
@pytest.mark.parametrize(("theme", "language"), [("light", "en"), ("dark", "fr")])
def test_no_fault_that_axe_sees(
    controller: Controller,
    visit: Callable[..., Any],
    axe: Callable[..., Any],
    theme: str,
    language: str,
    told: str,
) -> None:
    page = visit(theme=theme, lang=language).page()
    faults = {}
    result = tell(controller, told, FOUND)
    for path in ("", *(f"/{slug}" for slug in SLUGS), f"/results/{result}"):
        page.goto(f"{controller.url}/maintenance{path}")
        for summary in page.locator("details > summary").all():
            summary.click()
        page.wait_for_timeout(200)
        if found := axe(page):
            faults[path] = found
    assert faults == {}, json.dumps(faults, indent=1)
    page.set_viewport_size({"width": 360, "height": 800})
    for path in ("", "/cleanup", f"/results/{result}"):
        page.goto(f"{controller.url}/maintenance{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path


def test_page_is_quick_with_ten_thousand_hosts(
    installations: Callable[[int], Controller], tmp_path: Any
) -> None:
    """Keyset pages and figures over a fleet: some hundred milliseconds, and as quick on the last page."""
    from saveos.core.clock import now
    from saveos.core.database import new_id
    from sqlalchemy import insert

    controller = installations(60)
    made = []
    with controller.session() as session:
        tenant = controller.made.tenant_id
        rows = [
            {"id": new_id(), "tenant_id": tenant, "name": f"bulk{n}", "address": "10.0.0.1",
             "state": "enrolled", "is_agent": False, "is_storage_server": True}
            for n in range(10_000)
        ]  # fmt: skip
        session.execute(insert(Host), rows)
        made = [row["id"] for row in rows]
        at, result = now(), new_id()
        session.execute(
            insert(MaintenanceLatest),
            [
                {"id": new_id(), "tenant_id": tenant, "host_id": host, "operation": "validation",
                 "result_id": result, "at": at, "mode": "run", "state": "warning", "critical": 0,
                 "warning": 3, "info": 0, "worst": "x", "summary": {}}
                for host in made
            ],
        )  # fmt: skip
        session.execute(
            insert(Finding),
            [
                {"id": new_id(), "tenant_id": tenant, "host_id": host, "operation": "validation",
                 "key": str(n), "kind": f"kind-{n}", "subject": "", "rank": 1, "title": "x",
                 "evidence": "", "fix": "", "fixable": True,
                 "result_id": result, "first_seen": at, "last_seen": at}
                for host in made
                for n in range(3)
            ],
        )  # fmt: skip
    try:
        with controller.session() as session:
            began = time.monotonic()
            page = findings.list_findings(session, tenant, operation="validation", limit=51)
            assert len(page) == 51
            findings.overview(session, tenant)
            findings.kinds(session, tenant, "validation")
            findings.trend(session, tenant, "validation")
            took = time.monotonic() - began
        assert took < 10, f"{took:.2f} s; it takes a fraction of one where nothing else works"
    finally:
        with controller.session() as session:
            session.execute(delete(Finding).where(Finding.operation == "validation"))
            session.execute(delete(MaintenanceLatest).where(MaintenanceLatest.operation == "validation"))
            session.execute(delete(Host).where(Host.name.like("bulk%")))
