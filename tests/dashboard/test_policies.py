"""Policies: list, editor with live preview, YAML, versions, groups; secrets are never shown again."""

import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from saveos.core.clock import now
from saveos.hosts.models import Group, GroupMember, Host
from saveos.hosts.service import drift_sql
from saveos.jobs.models import Job, JobHost
from saveos.policies import precedence, service
from saveos.policies.models import Policy
from saveos.policies.schemas import PolicyIn
from saveos.policies.versions import database_passwords, hooks_of
from sqlalchemy import func, select

from tests.dashboard.conftest import Controller


@pytest.fixture
def policy(controller: Controller) -> Iterator[Policy]:
    """A policy of its own for a test, gone after it."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    database = {"kind": "postgresql", "name": "shop", "username": "shop", "password": "hush-hush"}
    asked = PolicyIn(name=name, sources=["/srv"], databases=[database], hooks={"before": ["echo hush-hush"]})
    with controller.session() as session:
        made = service.create_policy(session, controller.made.tenant_id, asked, by="marie")
    yield made
    with controller.session() as session:
        for group in session.scalars(select(Group)):
            row = precedence.group_policy(session, group)
            if row.policy == stored(session, made).name:
                precedence.set_group_policy(session, group, None, 100)
        service.delete_policy(session, stored(session, made))


def stored(session: Any, policy: Policy) -> Policy:
    found: Policy = session.get_one(Policy, policy.id)
    return found


def test_list_counts_hosts_and_drift(controller: Controller, page: Page) -> None:
    page.goto(f"{controller.url}/policies")
    row = page.locator("tbody tr", has=page.get_by_role("link", name="default", exact=True))
    with controller.session() as session:
        policy = session.scalars(select(Policy).where(Policy.is_default)).one()
        mine = (Host.policy_id == policy.id, Host.state != "decommissioned")
        hosts = session.scalar(select(func.count()).where(*mine))
        drift = session.scalar(select(func.count()).where(*mine, drift_sql()))
    assert hosts and drift
    expect(row.get_by_role("link", name=re.compile("^Hosts with default"))).to_have_text(str(hosts))
    link = row.get_by_role("link", name=re.compile("have yet to follow"))
    expect(link).to_have_text(str(drift))
    link.click()
    page.wait_for_url("**/hosts?policy=default&drift=true")
    expect(page.locator("tbody tr[id^=h-]")).to_have_count(drift)


def test_form_previews_while_typing_and_makes_a_policy(controller: Controller, page: Page) -> None:
    name = f"typed-{uuid.uuid4().hex[:6]}"
    page.goto(f"{controller.url}/policies")
    page.get_by_role("link", name="Add a policy").click()
    runs = page.locator("#next-runs li")
    expect(runs).to_have_count(10)
    page.fill("#f-schedule", "Mon..Fri 05:30")
    expect(runs.first).to_contain_text("05:30 UTC")
    expect(page.locator("#next-runs .mono").first).to_have_text("30 5 * * 1,2,3,4,5")
    page.fill("#f-zone", "Europe/Lisbon")
    expect(page.locator("#next-runs")).to_contain_text("Europe/Lisbon")
    expect(page.locator("#next-runs svg.load rect.others")).to_have_count(48)
    page.fill("#f-schedule", "61 * * * *")
    expect(page.locator("#next-runs [role=alert]")).to_contain_text("out of range")
    page.fill("#f-schedule", "30 5 * * *")
    page.fill("#f-name", name)
    page.fill("#f-sources", "/srv\n\n  /opt/data ")
    page.fill("#f-excludes", "*.tmp")
    page.get_by_text("Add databases").click()
    row = page.locator(".row-fields").first
    row.get_by_label("Kind").select_option("mariadb")
    row.get_by_label("Server").fill("db.example.net")
    row.get_by_label("User").fill("dump")
    row.get_by_label("Password").fill("top-secret")
    page.fill("#f-before", "systemctl stop app # top-secret")
    page.fill("#f-keep_daily", "14")
    page.select_option("#f-catalogue", "off")
    page.get_by_label("vault-1.par1.example.net").check()
    page.get_by_role("button", name="Save").click()
    page.wait_for_url(re.compile(r"/policies/[0-9a-f-]{36}$"))
    expect(page.get_by_role("heading", name=name)).to_be_visible()
    assert "top-secret" not in page.content()
    with controller.session() as session:
        made = session.scalars(select(Policy).where(Policy.name == name)).one()
        assert (made.sources, made.excludes) == (["/srv", "/opt/data"], ["*.tmp"])
        assert (made.schedule, made.zone, made.version) == ("30 5 * * *", "Europe/Lisbon", 1)
        assert made.retention["keep_daily"] == 14
        assert made.catalogue == "off"
        assert made.servers == ["vault-1.par1.example.net"]
        assert made.databases[0]["hostname"] == "db.example.net"
        assert database_passwords(session, made) == {0: "top-secret"}
        assert hooks_of(session, made)["before"] == ["systemctl stop app # top-secret"]
    page.get_by_role("link", name="Form").click()
    assert "top-secret" not in page.content()
    page.get_by_role("link", name="Overview").last.click()
    page.get_by_text("Delete this policy").click()
    page.get_by_label("to confirm").fill("something else")
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="That cannot be accepted")).to_be_visible()
    page.go_back()
    page.get_by_text("Delete this policy").click()
    page.get_by_label("to confirm").fill(name)
    page.get_by_role("button", name="Delete").click()
    page.wait_for_url("**/policies")
    expect(page.locator(".toast-box")).to_contain_text("Deleted")
    with controller.session() as session:
        assert session.scalar(select(Policy).where(Policy.name == name)) is None


def test_form_says_what_is_wrong_and_keeps_what_was_typed(
    controller: Controller, page: Page, policy: Policy
) -> None:
    page.goto(f"{controller.url}/policies/{policy.id}/edit")
    page.fill("#f-sources", "relative/path")
    page.fill("#f-schedule", "never")
    page.fill("#f-keep_daily", "7")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#h-sources .problem")).to_contain_text("absolute")
    expect(page.locator("#h-schedule .problem")).to_be_visible()
    expect(page.locator("#f-sources")).to_have_value("relative/path")
    page.fill("#f-sources", "/srv")
    page.fill("#f-schedule", "0 3 * * *")
    page.fill("#f-keep_daily", "many")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#h-keep_daily .problem")).to_have_text("Give a whole number.")
    with controller.session() as session:
        assert stored(session, policy).version == 1


def test_saving_keeps_hooks_and_passwords_unless_told(
    controller: Controller, page: Page, policy: Policy
) -> None:
    page.goto(f"{controller.url}/policies/{policy.id}/edit")
    page.fill("#f-excludes", "*.bak")
    page.fill("#f-note", "why not")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".toast-box")).to_contain_text("Saved")
    with controller.session() as session:
        found = stored(session, policy)
        assert (found.excludes, found.version) == (["*.bak"], 2)
        assert hooks_of(session, found)["before"] == ["echo hush-hush"]
        assert database_passwords(session, found) == {0: "hush-hush"}
    page.goto(f"{controller.url}/policies/{policy.id}/edit")
    page.get_by_label("Replace the 1 command").check()
    page.locator(".row-fields").first.get_by_label("Kind").select_option("")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".toast-box")).to_contain_text("Saved")
    with controller.session() as session:
        found = stored(session, policy)
        assert (found.hooks, found.databases, found.version) == (None, [], 3)


def test_yaml_shows_what_would_change_before_it_does(
    controller: Controller, page: Page, policy: Policy
) -> None:
    page.goto(f"{controller.url}/policies/{policy.id}/yaml")
    text = page.locator("#f-document").input_value()
    assert "hush-hush" not in page.content()
    page.fill("#f-document", text.replace("- /srv", "- /srv\n- /opt"))
    page.get_by_role("button", name="Show what would change").click()
    expect(page.locator(".diff ins")).to_have_text(re.compile("/opt"))
    with controller.session() as session:
        assert stored(session, policy).version == 1
    page.get_by_role("button", name="Save").click()
    page.wait_for_url(f"**/policies/{policy.id}")
    with controller.session() as session:
        found = stored(session, policy)
        assert (found.sources, found.version) == (["/srv", "/opt"], 2)
        assert database_passwords(session, found) == {0: "hush-hush"}
    for bad, sentence in (
        ("name: [", "This is no YAML"),
        (text.replace(policy.name, "another"), "must stay"),
        (text + "\nsurprise: 1\n", "surprise"),
    ):
        page.goto(f"{controller.url}/policies/{policy.id}/yaml")
        page.fill("#f-document", bad)
        page.get_by_role("button", name="Save").click()
        expect(page.locator(".note.s-bad")).to_contain_text(sentence)
        expect(page.locator("#f-document")).to_have_value(bad)


def test_versions_are_compared_and_gone_back_to(controller: Controller, page: Page, policy: Policy) -> None:
    with controller.session() as session:
        found = stored(session, policy)
        service.apply_document(
            session, found.tenant_id, {"name": policy.name, "sources": ["/srv", "/var/www"]}, by="paula"
        )
    page.goto(f"{controller.url}/policies/{policy.id}")
    page.get_by_role("link", name="Versions").click()
    expect(page.locator("tbody tr")).to_have_count(2)
    expect(page.locator("tbody tr").first).to_contain_text("paula")
    page.get_by_role("button", name="Compare").click()
    expect(page.locator(".diff ins").first).to_contain_text("/var/www")
    page.locator("tbody").get_by_role("link", name="version 1").click()
    expect(page.locator(".diff del").first).to_contain_text("/var/www")
    page.get_by_role("button", name="Go back to version 1").click()
    page.wait_for_url("**/versions")
    expect(page.locator("tbody tr")).to_have_count(3)
    expect(page.locator("tbody tr").first).to_contain_text("back to version 1")
    with controller.session() as session:
        assert stored(session, policy).sources == ["/srv"]


def test_groups_give_a_policy_by_priority(controller: Controller, page: Page, policy: Policy) -> None:
    page.goto(f"{controller.url}/policies/{policy.id}/groups")
    page.get_by_label("Group", exact=True).select_option("web")
    page.get_by_label("Priority", exact=True).fill("20")
    page.get_by_role("button", name="Give it").click()
    row = page.locator("tbody tr", has_text="web")
    expect(row).to_contain_text(policy.name)
    with controller.session() as session:
        group = session.scalars(select(Group).where(Group.name == "web")).one()
        members = select(GroupMember.host_id).where(GroupMember.group_id == group.id)
        cared_for = select(Host.policy_source).where(Host.id.in_(members), Host.state != "decommissioned")
        sources = set(session.scalars(cared_for))
        assert sources == {"group:web"}
    page.get_by_label("Priority of web").fill("many")
    row.get_by_role("button", name="Set").click()
    expect(page.get_by_role("heading", name="That cannot be accepted")).to_be_visible()
    page.go_back()
    page.get_by_label("Priority of web").fill("7")
    row.get_by_role("button", name="Set").click()
    expect(row.locator("td").first).to_have_text("7")
    page.get_by_role("link", name="Overview").last.click()
    note = page.locator(".note.s-warn")
    expect(note).to_contain_text("yet to follow")
    note.get_by_role("button", name="Provision them").click()
    page.wait_for_url("**/jobs/*")
    page.goto(
        f"{controller.url}/policies/{policy.id}/groups"
    )  # the job's page follows a job that is about to go
    with controller.session() as session:
        job = session.scalars(select(Job).order_by(Job.id.desc()).limit(1)).one()
        assert (job.operation, job.trigger) == ("provision", "dashboard")
        session.delete(job)
    row.get_by_role("button", name="Take away").click()
    expect(page.locator(".empty")).to_contain_text("No group gives a policy")


def test_viewer_reads_and_changes_nothing(
    controller: Controller, visit: Callable[..., Any], policy: Policy
) -> None:
    visitor = visit("vera")
    page = visitor.page()
    page.goto(f"{controller.url}/policies/{policy.id}")
    assert page.locator("main form").count() == 0
    expect(page.locator(".tabs a")).to_have_text(["Overview", "Versions", "Groups"])
    headers = {"Origin": controller.url}
    for act in ("edit", "yaml", "rollback", "groups", "default", "delete", "provision"):
        answer = visitor.context.request.post(
            f"{controller.url}/policies/{policy.id}/{act}", form={"name": policy.name}, headers=headers
        )
        assert answer.status == 403, act


def test_policy_without_javascript(controller: Controller, browser: Any, policy: Policy) -> None:
    context = browser.new_context(java_script_enabled=False)
    context.request.post(
        f"{controller.url}/api/v1/auth/login", data={"name": "marie", "password": "correct horse battery"}
    )
    page = context.new_page()
    page.goto(f"{controller.url}/policies/{policy.id}/edit")
    expect(page.locator("#next-runs li")).to_have_count(10)
    page.fill("#f-grace_minutes", "90")
    page.get_by_role("button", name="Save").click()
    page.wait_for_url(f"**/policies/{policy.id}")
    with controller.session() as session:
        assert stored(session, policy).grace_minutes == 90
    context.close()


def measured(controller: Controller, job_id: uuid.UUID, told: dict[str, Any]) -> None:
    """Let a job end as the worker would, with what its host told."""
    with controller.session() as session:
        job = session.get_one(Job, job_id)
        job.state, job.finished_at = "succeeded", now()
        host = session.scalars(select(JobHost).where(JobHost.job_id == job_id)).one()
        host.state, host.result = "ok", {"measure": told}


def newest_job(controller: Controller) -> Job:
    with controller.session() as session:
        found: Job = session.scalars(select(Job).order_by(Job.id.desc()).limit(1)).one()
        return found


def test_a_draft_is_measured_on_a_host_in_place(controller: Controller, page: Page, policy: Policy) -> None:
    page.goto(f"{controller.url}/policies/{policy.id}/edit")
    page.fill("#f-sources", "/srv\n/opt/draft")
    page.fill("#f-excludes", "*.tmp")
    page.get_by_label("Size on a host").select_option(controller.made.host)
    page.get_by_role("button", name="Measure").click()
    expect(page.locator("#measured")).to_contain_text(f"Measuring on {controller.made.host}")
    job = newest_job(controller)
    assert (job.operation, job.trigger) == ("measure", "dashboard")
    assert job.parameters == {"sources": ["/srv", "/opt/draft"], "excludes": ["*.tmp"]}
    sources = [{"path": "/srv", "files": 3, "bytes": 4096}, {"path": "/opt/draft", "files": 1, "bytes": "odd"}]
    measured(
        controller, job.id, {"sources": sources, "files": 4, "bytes": 4096, "excluded": 2, "unreadable": 0}
    )
    rows = page.locator("#measured tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text("4 KiB")
    expect(page.locator("#measured")).to_contain_text("2 entries excluded")
    expect(page.locator("#f-sources")).to_have_value("/srv\n/opt/draft")
    page.fill("#f-sources", "not-absolute")
    page.get_by_role("button", name="Measure").click()
    expect(page.locator("#measured [role=alert]")).to_contain_text("absolute")
    with controller.session() as session:
        session.delete(session.get_one(Job, job.id))


def test_a_policy_is_measured_as_a_job(controller: Controller, page: Page, policy: Policy) -> None:
    page.goto(f"{controller.url}/policies/{policy.id}")
    page.get_by_label("Host", exact=True).select_option(controller.made.host)
    page.get_by_role("button", name="Measure").click()
    page.wait_for_url("**/jobs/*")
    job = newest_job(controller)
    assert job.parameters["sources"] == ["/srv"]
    told = {"sources": [{"path": "/srv", "files": 12, "bytes": 2048}], "files": 12, "bytes": 2048}
    measured(controller, job.id, told)
    page.reload()
    expect(page.locator("#results table.measured tfoot")).to_contain_text("2 KiB")
    page.goto(f"{controller.url}/policies")
    with controller.session() as session:
        session.delete(session.get_one(Job, job.id))
