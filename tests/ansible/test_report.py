"""The callback saveos.fleet.report: one report per run by hand; it never fails or delays a play much."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.receivers import http

CHECKOUT = Path(__file__).parents[2]
TOKEN = "canary-token-91c2"
PLAY = """
- name: Report
  hosts: all
  gather_facts: false
  tasks:
    - name: Give a result
      saveos_result: {saveos: {run: {state: succeeded}, versions: {a: 1}}}
    - name: Give more of it
      saveos_result: {saveos: {versions: {b: 2}}}
    - name: Keep a secret
      saveos_result: {saveos: {secret: canary-result}}
      no_log: true
    - name: Fail on one host
      ansible.builtin.fail: {msg: "it broke\\0"}
      when: inventory_hostname == 'two'
    - name: Fail without consequence
      ansible.builtin.fail: {msg: ignored}
      ignore_errors: true
"""
MODULE = """
from ansible.module_utils.basic import AnsibleModule
module = AnsibleModule(argument_spec={"saveos": {"type": "dict"}}, supports_check_mode=True)
module.exit_json(changed=True, saveos=module.params["saveos"])
"""


@pytest.fixture
def receiver():
    with http() as got:
        yield got


@pytest.fixture
def play(tmp_path):
    """Run the play of this test with ansible-playbook on localhost; returns the finished process."""
    (tmp_path / "library").mkdir()
    (tmp_path / "library/saveos_result.py").write_text(MODULE)
    (tmp_path / "nightly.yml").write_text(PLAY)
    inventory = "".join(f"{name} ansible_connection=local\n" for name in ("one", "two"))
    (tmp_path / "hosts").write_text(inventory)
    subprocess.run(["sh", CHECKOUT / "scripts/link-collection.sh"], check=True, capture_output=True)

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        variables = {
            name: value for name, value in os.environ.items() if not name.startswith(("SAVEOS_", "ANSIBLE_"))
        }
        variables.update(
            ANSIBLE_CONFIG=str(CHECKOUT / "ansible.cfg"), ANSIBLE_LIBRARY=str(tmp_path / "library")
        )
        variables.update(environment)
        command = [
            str(Path(sys.executable).parent / "ansible-playbook"),
            "-i",
            "hosts",
            "nightly.yml",
            *arguments,
        ]
        return subprocess.run(
            command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=60, check=False
        )

    return run


def test_a_run_by_hand_is_reported_once_with_its_results(play, receiver):
    assert play(SAVEOS_URL=receiver.url, SAVEOS_TOKEN=TOKEN).returncode == 2
    assert len(receiver.posts) == 1
    path, authorization, report = receiver.posts[0]
    assert (path, authorization) == ("/api/v1/jobs/reports", f"Bearer {TOKEN}")
    assert (report["operation"], report["mode"], report["state"]) == ("nightly", "run", "partial")
    assert report["started_at"] < report["finished_at"]
    assert report["user"]
    one, two = report["hosts"]
    assert (one["name"], one["state"], one["error"]) == ("one", "changed", None)
    assert one["counts"] == {"ok": 4, "changed": 3, "failed": 0, "unreachable": 0, "skipped": 1}
    assert one["result"] == {"run": {"state": "succeeded"}, "versions": {"a": 1, "b": 2}}
    assert (two["state"], two["error"]) == ("failed", "it broke\N{REPLACEMENT CHARACTER}")


def test_results_under_no_log_are_dropped(play, receiver):
    play(SAVEOS_URL=receiver.url, SAVEOS_TOKEN=TOKEN)
    assert "canary-result" not in json.dumps(receiver.posts)


def test_check_mode_is_named(play, receiver):
    play("--check", "--limit", "one", SAVEOS_URL=receiver.url, SAVEOS_TOKEN=TOKEN)
    assert [report["mode"] for _, _, report in receiver.posts] == ["check"]
    assert receiver.posts[0][2]["state"] == "succeeded"


def test_nothing_is_reported_without_a_controller_or_by_its_own_jobs(play, receiver):
    assert play("--limit", "one").returncode == 0
    assert play("--limit", "one", SAVEOS_URL=receiver.url).returncode == 0
    own = {"SAVEOS_URL": receiver.url, "SAVEOS_TOKEN": TOKEN, "SAVEOS_JOB_ID": "j1"}
    assert play("--limit", "one", **own).returncode == 0
    assert receiver.posts == []


def test_a_hanging_controller_is_given_up_and_fails_no_play(play, receiver):
    receiver.delay = 90
    began = time.monotonic()
    done = play("--limit", "one", SAVEOS_URL=receiver.url, SAVEOS_TOKEN=TOKEN)
    assert done.returncode == 0
    assert time.monotonic() - began < 60
    assert "was not reported" in done.stderr
    assert TOKEN not in done.stdout + done.stderr


@pytest.mark.parametrize("status", [302, 401, 500])
def test_a_refusing_controller_fails_no_play_and_gets_no_second_try(play, receiver, status):
    receiver.status = status
    done = play("--limit", "one", SAVEOS_URL=receiver.url, SAVEOS_TOKEN=TOKEN)
    assert done.returncode == 0
    assert done.stderr.count("was not reported") == 1
    assert [path for path, _, _ in receiver.posts] == ["/api/v1/jobs/reports"]


def test_a_controller_that_is_down_fails_no_play(play, receiver):
    url = receiver.url
    receiver.close()
    assert play("--limit", "one", SAVEOS_URL=url, SAVEOS_TOKEN=TOKEN).returncode == 0
