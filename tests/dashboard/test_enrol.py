"""Enrolment: a token, its command, the live list of hosts that ask, approval, tokens and their end."""

import base64
import json
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, expect
from saveos.core import security
from saveos.enrolment.models import EnrolmentToken, Registration
from saveos.hosts.models import Host
from saveos.repositories.models import Repository
from sqlalchemy import delete, select

from tests.dashboard.conftest import Controller

NAME = "fresh-1.par1.example.net"


def secret_of(command: str) -> str:
    """Return the secret in the line that is pasted on a host."""
    token = command.split("SAVEOS_ENROLMENT_TOKEN=saveos1.")[1].split(maxsplit=1)[0].strip("'")
    return str(json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))["s"])


def ask(page: Page, controller: Controller, secret: str, name: str = NAME) -> Any:
    """Register as a host does; return the answer."""
    key = base64.b64encode(
        b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20" + name.encode().ljust(32)[:32]
    ).decode()
    return page.context.request.post(
        f"{controller.url}/api/v1/agents/register",
        data={
            "name": name,
            "address": "198.51.100.77",
            "ssh_host_keys": [f"ssh-ed25519 {key}"],
            "agent_public_key": f"ssh-ed25519 {key}",
            "agent_token_sha256": security.token_hash(name),
            "os": "Debian 13",
        },
        headers={"Authorization": f"Bearer {secret}"},
    )


def make_token(page: Page, controller: Controller, name: str) -> str:
    """Go from the list of hosts to the command; return its secret."""
    page.goto(f"{controller.url}/hosts")
    page.get_by_role("link", name="Enrol hosts").click()
    page.get_by_role("link", name="Make a token").click()
    page.fill("#f-name", name)
    page.select_option("#f-minutes", "480")
    page.fill("#f-max_uses", "3")
    page.select_option("#f-group", "web")
    page.fill("#f-tags", "rack7")
    page.get_by_role("button", name="Make the token").click()
    return secret_of(page.locator("#command").inner_text())


def test_a_host_asks_is_seen_live_and_approved(
    controller: Controller, page: Page, axe: Callable[..., Any]
) -> None:
    """From the command on the page to a host of the inventory, with group and tags of the token."""
    secret = make_token(page, controller, "rack 8")
    expect(page.locator(".stepper [aria-current]")).to_contain_text("Command")
    expect(page.locator("#waiting")).to_contain_text("No host has asked yet")
    assert axe(page) == []
    page.wait_for_selector("#live[data-state=on]")
    assert ask(page, controller, secret).status == 202
    row = page.locator("#waiting tbody tr", has_text=NAME)
    expect(row).to_contain_text("Waiting")
    expect(row).to_contain_text("SHA256:")
    row.get_by_role("button", name="Approve").click()
    expect(page.locator(".toast-box")).to_contain_text("Approved")
    expect(page.locator("#waiting tbody tr", has_text=NAME)).to_contain_text("waits until the host")
    with controller.session() as session:
        host = session.scalars(select(Host).where(Host.name == NAME)).one()
        assert (host.state, host.tags, len(host.ssh_host_keys)) == ("pending", ["rack7"], 1)
        session.execute(delete(Registration).where(Registration.name == NAME))
        session.execute(delete(Repository).where(Repository.host_id == host.id))
        host.state = "decommissioned"


def test_a_refused_host_is_told_and_its_token_revoked(controller: Controller, page: Page) -> None:
    name = "stranger.example.net"
    secret = make_token(page, controller, "rack 9")
    registration = ask(page, controller, secret, name).json()["registration_id"]
    page.goto(f"{controller.url}/hosts/enrol/waiting?state=waiting")
    page.locator("tbody tr", has_text=name).get_by_role("button", name="Refuse").click()
    expect(page.locator(".toast-box")).to_contain_text("Refused")
    answer = page.context.request.get(
        f"{controller.url}/api/v1/agents/register/{registration}", headers={"Authorization": f"Bearer {name}"}
    )
    assert answer.json()["state"] == "refused"
    page.get_by_role("link", name="Tokens", exact=True).click()
    row = page.locator("tbody tr", has_text="rack 9")
    expect(row).to_contain_text("1 / 3")
    row.get_by_role("button", name="Revoke").click()
    row = page.locator("tbody tr", has_text="rack 9")
    expect(row).to_contain_text("Revoked")
    assert row.get_by_role("button").count() == 0
    refused = ask(page, controller, secret, "late.example.net")
    assert (refused.status, refused.json()["type"]) == (403, "urn:saveos:problem:enrolment-token-revoked")


def test_what_a_token_needs_is_said_at_its_field(controller: Controller, page: Page) -> None:
    page.goto(f"{controller.url}/hosts/enrol/token")
    page.fill("#f-name", "too many")
    page.fill("#f-max_uses", "1000000")
    with page.expect_response(lambda answer: answer.status == 422):
        page.get_by_role("button", name="Make the token").click()
    expect(page.locator("#h-max_uses .problem")).to_be_visible()
    expect(page.locator("#f-name")).to_have_value("too many")
    with controller.session() as session:
        assert session.scalar(select(EnrolmentToken.id).where(EnrolmentToken.name == "too many")) is None


def test_a_viewer_sees_who_asked_and_decides_nothing(controller: Controller, visit: Callable[..., Any]) -> None:
    page = visit("vera").page()
    page.goto(f"{controller.url}/hosts/enrol/waiting")
    expect(page.locator("#waiting tbody tr").first).to_be_visible()
    for name in ("Approve", "Refuse", "Try again"):
        assert page.get_by_role("button", name=name).count() == 0
    page.goto(f"{controller.url}/hosts/enrol/tokens")
    assert page.get_by_role("button", name="Revoke").count() == 0


def test_the_command_is_copied(controller: Controller, visit: Callable[..., Any]) -> None:
    visitor = visit()
    visitor.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = visitor.page()
    page.goto(f"{controller.url}/hosts/enrol")
    page.locator("[data-copy='#import']").click()
    copied = page.evaluate("navigator.clipboard.readText()")
    for _ in range(100):
        if copied:
            break
        page.wait_for_timeout(100)
        copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("saveos hosts import ")
