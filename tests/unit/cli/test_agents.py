"""The commands about agents, against a scripted controller."""

import json

import pytest
from saveos.cli.main import main

RUNNING = {
    "host_id": "1",
    "host": "web1",
    "run_id": "0199a7c4-0000-7000-8000-000000000001",
    "kind": "backup",
    "trigger": "timer",
    "job_id": None,
    "repository_id": None,
    "phase": "create",
    "started_at": "2026-01-01T00:00:00Z",
    "files": 12,
    "original_size": 5 * 1024**3,
    "compressed_size": 1,
    "deduplicated_size": 1,
    "expected_size": 10 * 1024**3,
    "updated_at": "2026-01-01T00:00:01Z",
}
STATS = {
    "hosts": 3,
    "seen": {"10m": 2, "1h": 2, "24h": 3, "ever": 3},
    "heartbeats": {"10m": 2, "1h": 2, "24h": 2, "ever": 2},
    "versions": {"agent": {"0.1.0": 2, "unknown": 1}, "borg": {"1.4.5": 3}, "borgmatic": {}},
    "running": 1,
    "skewed": 1,
    "spooled": 0,
}


def run(*words: str) -> int:
    """Run the command and return its exit code."""
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    return int(caught.value.code or 0)


def test_running_lists_all_or_one_host(controller, capsys):
    controller.json(200, {"items": [RUNNING], "next": None})
    assert run("agents", "running") == 0
    table = capsys.readouterr().out
    assert "web1" in table and "timer" in table and "5.4 GB" in table and "10.7 GB" in table
    controller.json(200, None)
    assert run("agents", "running", "--host", "a/b") == 0
    assert controller.asked[1][1] == "/api/v1/hosts/a%2Fb/running"
    assert capsys.readouterr().out == "Nothing runs now.\n"


def test_stats_name_versions_and_troubles(controller, capsys):
    controller.json(200, STATS)
    assert run("agents", "stats") == 0
    shown = capsys.readouterr().out
    assert "0.1.0 (2), unknown (1)" in shown
    controller.json(200, STATS)
    assert run("--json", "agents", "stats") == 0
    assert json.loads(capsys.readouterr().out) == STATS


VERSIONS = {
    "host_id": "1",
    "host": "web1",
    "agent": "0.1.0",
    "borg": "1.4.3",
    "borgmatic": "2.1.10",
    "offered": {"agent": "0.1.0", "borg": "1.4.5", "borgmatic": "2.1.10"},
    "outdated": ["borg"],
}


def test_versions_name_what_is_outdated_and_how_to_update_it(controller, capsys):
    controller.json(200, {"items": [VERSIONS, VERSIONS | {"host": "web2", "outdated": []}], "next": None})
    assert run("agents", "versions") == 3
    shown = capsys.readouterr().out
    assert "1.4.3 (offered: 1.4.5)" in shown and "saveos agents update web1" in shown
    assert "saveos agents update web2" not in shown
    controller.json(200, {"items": [], "next": None})
    assert run("agents", "versions", "--outdated") == 0
    assert "outdated=true" in controller.asked[1][1]


def test_update_provisions_what_is_outdated(controller, capsys):
    controller.json(200, {"items": [VERSIONS], "next": None})
    controller.json(202, {"id": "j1", "operation": "provision", "state": "queued"})
    assert run("agents", "update", "--outdated") == 0
    method, path, _headers, body = controller.asked[1]
    assert (method, path) == ("POST", "/api/v1/maintenance/provision")
    assert body["targets"]["hosts"] == ["web1"] and body["mode"] == "run"
    controller.json(200, {"items": [], "next": None})
    assert run("agents", "update", "--outdated") == 0
    assert "No agent is outdated." in capsys.readouterr().out
    assert run("agents", "update", "--outdated", "web1") == 2
