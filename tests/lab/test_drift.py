"""Drift of a lab host: seen without changing it, told as Markdown with exit 3, gone after provisioning."""

import pytest
from fleet import at_rest
from support import on

pytestmark = pytest.mark.lab
SUMS = "find /etc/saveos /etc/systemd/system /opt/saveos -type f -exec sha256sum {} + | sort | sha256sum"


def test_a_changed_host_is_seen_and_converged(fleet, tmp_path):
    controller, host = fleet.controller, fleet.bare
    controller.done("provision", "bare")
    controller.command("maintenance", "drift", "bare", "--wait")
    assert controller.get("/hosts/bare/drift")["state"] == "clean"
    on(host, 'sed -i \'s/"jitter_seconds": [0-9]*/"jitter_seconds": 7/\' /etc/saveos/agent.json')
    on(host, "chmod 644 /etc/saveos/token")
    at_rest(host)
    before = on(host, SUMS)
    target = tmp_path / "drift.md"
    told = controller.command("maintenance", "drift", "bare", "--markdown", str(target), code=3)
    assert on(host, SUMS) == before
    text = target.read_text()
    assert "## bare" in text and "jitter_seconds" in text and "/etc/saveos/token" in text
    secrets = on(host, "cat /etc/saveos/token /etc/saveos/repositories/*/passphrase").split()
    assert not any(secret in text or secret in str(told) for secret in secrets)
    seen = controller.get("/hosts/bare/drift")
    assert seen["state"] == "drifted" and seen["changes"] == 2 and seen["since"]
    assert [each["host"] for each in controller.items("/drift")] == ["bare"]
    assert controller.get("/hosts/bare")["drift"] is True
    findings = controller.items("/maintenance/findings?operation=drift&host=bare")
    assert {each["subject"] for each in findings} >= {"/etc/saveos/agent.json", "/etc/saveos/token"}
    controller.done("provision", "bare")
    assert controller.get("/hosts/bare/drift")["state"] == "clean"
    controller.command("maintenance", "drift", "bare", "--wait")
