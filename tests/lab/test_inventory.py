"""The controller as inventory of a playbook by hand, on hosts that the controller provisioned."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from lab import recap
from serving import ROOT
from support import Play, on


@pytest.fixture
def source(tmp_path):
    """An inventory source with nothing but the plugin's name."""
    path = tmp_path / "fleet.controller.yml"
    path.write_text("plugin: saveos.fleet.controller\n")
    return path


def run(fleet, source: Path, playbook: str, *words: str, code: int = 0) -> Play:
    """Run a playbook from the controller's inventory, with only a token and an SSH key of one's own."""
    controller = fleet.controller
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("SAVEOS_", "ANSIBLE_"))}
    here = {"SAVEOS_URL": controller.url, "SAVEOS_TOKEN": controller.token}
    here["SAVEOS_CA"] = str(controller.home / "tls" / "ca.pem")
    here["ANSIBLE_SSH_ARGS"] = "-o ControlMaster=no"  # a connection that is kept open asks for no key again
    command = [Path(sys.executable).with_name("ansible-playbook"), "-i", source]
    ran = subprocess.run(
        [*command, "--private-key", fleet.lab.key, ROOT / "playbooks" / f"{playbook}.yml", *words],
        env=bare | here | {"ANSIBLE_NOCOLOR": "1"},
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == code, f"{ran.stdout[-6000:]}\n{ran.stderr[-2000:]}"
    return Play(ran.stdout + ran.stderr, recap(ran.stdout))


def test_a_playbook_finds_nothing_to_change_after_the_controller(fleet, source):
    """What the plugin gives is what the controller gave; hosts are known by the controller's keys alone."""
    done = run(fleet, source, "site", "--check", "--diff", "-v", "--limit", "web,vault")
    assert set(done.recap) == {"web", "vault"}
    assert done.total("changed") == 0, done.output[-6000:]
    assert done.total("failed") == done.total("unreachable") == 0


def test_a_host_with_another_key_is_refused(fleet, source):
    """The user's known_hosts is not asked: a host that shows another key is unreachable."""
    controller = fleet.controller
    right = controller.http("GET", "/hosts/web").json()["ssh_host_keys"]
    other = controller.http("GET", "/hosts/vault").json()["ssh_host_keys"]
    assert controller.http("PATCH", "/hosts/web", {"ssh_host_keys": other}).is_success
    try:
        refused = run(fleet, source, "health", "--limit", "web", code=4)
        assert refused.recap["web"]["unreachable"] == 1
    finally:
        assert controller.http("PATCH", "/hosts/web", {"ssh_host_keys": right}).is_success
    assert run(fleet, source, "health", "--limit", "web").total("failed") == 0
    assert on(fleet.web, "true") == ""
