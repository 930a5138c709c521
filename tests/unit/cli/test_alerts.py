"""The commands about alerts and channels, against a scripted controller."""

import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from saveos.cli.main import main

ALERT = {
    "id": "0199a7c4-0000-7000-8000-000000000001",
    "rule": "overdue",
    "title": "backup overdue",
    "severity": "warning",
    "state": "open",
    "summary": "web1 has no backup since yesterday.\x1b]0;owned\x07",
    "object": "host:1",
    "host_id": "1",
    "host": "web1",
    "count": 1,
    "since": "2026-01-01T00:00:00Z",
    "first_seen": "2026-01-01T00:00:00Z",
    "last_seen": "2026-01-01T00:00:00Z",
    "muted_until": None,
    "acknowledged_at": None,
    "acknowledged_by": "",
    "resolved_at": None,
}
CHANNEL = {
    "id": "2",
    "name": "ops",
    "kind": "jsons",
    "address": "jsons://hooks.example.net",
    "enabled": True,
    "rules": [],
    "severities": ["critical"],
    "groups": [],
    "tell_resolved": True,
    "last_state": "",
    "last_at": None,
    "last_error": "",
}


def run(*words: str) -> int:
    """Run the command and return its exit code."""
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    return int(caught.value.code or 0)


def test_list_and_show(controller, capsys):
    controller.json(200, {"items": [ALERT], "next": None})
    assert run("alerts", "list", "--rule", "overdue", "--host", "web1") == 0
    assert controller.asked[0][1].endswith("/alerts?limit=50&rule=overdue&host=web1")
    table = capsys.readouterr().out
    assert "web1" in table
    assert "backup overdue" in table
    controller.json(200, ALERT)
    assert run("alerts", "show", ALERT["id"]) == 0
    shown = capsys.readouterr().out
    assert "no backup since yesterday" in shown
    assert "\x1b" not in shown
    controller.json(200, {"items": [], "next": None})
    assert run("alerts", "list") == 0
    assert capsys.readouterr().out == "All quiet.\n"


def test_acknowledge_and_mute(controller, capsys):
    controller.json(200, ALERT | {"state": "acknowledged"})
    assert run("alerts", "ack", "A/B") == 0
    assert controller.asked[0][:2] == ("POST", "/api/v1/alerts/A%2FB/acknowledge")
    controller.json(200, ALERT | {"state": "muted"})
    assert run("alerts", "mute", "A", "--for", "8h") == 0
    until = datetime.fromisoformat(controller.asked[1][3]["until"])
    assert timedelta(hours=7, minutes=59) < until - datetime.now(UTC) <= timedelta(hours=8)
    controller.json(200, ALERT)
    assert run("alerts", "mute", "A", "--off") == 0
    assert controller.asked[2][1] == "/api/v1/alerts/A/unmute"
    assert run("alerts", "mute", "A", "--for", "soon") == 2
    assert "30m, 8h" in capsys.readouterr().err


def test_a_channel_is_added_from_standard_input_and_its_url_is_not_printed(controller, capsys, monkeypatch):
    url = "https://hooks.example.net/s3cr3t-canary"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{url}\n".encode())))
    controller.json(201, CHANNEL)
    assert run("channels", "add", "ops", "-", "-s", "critical", "-g", "web", "--no-resolved") == 0
    assert controller.asked[0][3] == {
        "name": "ops",
        "url": url,
        "rules": [],
        "severities": ["critical"],
        "groups": ["web"],
        "tell_resolved": False,
    }
    said = capsys.readouterr()
    assert "jsons://hooks.example.net" in said.out
    assert "canary" not in said.out + said.err


def test_channels_are_listed_tested_and_removed(controller, capsys):
    controller.json(200, {"items": [CHANNEL], "next": None})
    assert run("channels", "list", "--json") == 0
    assert json.loads(capsys.readouterr().out)["items"] == [CHANNEL]
    controller.json(200, {"state": "delivered", "error": ""})
    assert run("channels", "test", "ops") == 0
    controller.json(200, {"state": "failed", "error": "503 from there"})
    assert run("channels", "test", "ops") == 1
    assert "503 from there" in capsys.readouterr().err
    controller.raw(204, b"", "application/json")
    assert run("channels", "remove", "ops") == 0
    assert controller.asked[-1][:2] == ("DELETE", "/api/v1/channels/ops")
