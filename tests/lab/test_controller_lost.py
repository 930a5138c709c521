"""The controller is lost: a new one, made of its export, looks after the hosts; old tokens do not count."""

import ipaddress
import json

import pytest
from fleet import at_rest, end_leftovers
from serving import Controller, until
from support import on

pytestmark = pytest.mark.lab


@pytest.fixture
def successor(fleet, tmp_path):
    """A controller restored from the fleet's export into another home; afterwards the first has web."""
    first = fleet.controller
    told = first.command("controller", "export", "--output", str(tmp_path / "export"))
    assert told["files"] > 3
    gateway = str(ipaddress.ip_interface(f"{fleet.vault.ip}/24").network[1])
    second = Controller(fleet.lab.dir / "successor", gateway, SAVEOS_OUTGOING_ALLOW="127.0.0.1")
    try:
        yield second, tmp_path / "export"
    finally:
        second.stop()
        end_leftovers(second)
        first.done("provision", "web")


def test_a_restored_controller_looks_after_the_hosts(fleet, successor):
    first, (second, export) = fleet.controller, successor
    second.command("controller", "restore", str(export))
    second.command("controller", "restore", str(export), code=1)
    second.token, second.password = first.token, first.password
    second.start()
    assert second.http("GET", "/hosts").status_code == 401, "a token of before the export"
    second.command("login", "--url", second.url, stdin=f"{first.password}\n")
    second.token = json.loads((second.home / "cli.json").read_text())["token"]
    assert {each["name"] for each in second.items("/hosts")} == {each["name"] for each in first.items("/hosts")}
    second.done("provision", "web")
    on(fleet.web, "saveos-agent heartbeat")
    until(lambda: second.get("/hosts/web")["heartbeat_at"], 30, "a heartbeat at the new controller")
    at_rest(fleet.web)
    second.done("backup", "web")
