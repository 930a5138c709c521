"""The audit trail on the command line: times that people write become moments, an export is a file."""

import json
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from saveos.cli.common import moment
from saveos.cli.errors import CommandError
from saveos.cli.main import main

ACT = {"id": "0199a7c4-0000-7000-8000-000000000001", "at": "2026-11-23T10:00:00Z", "actor": "ana (token ci)"}
ACT |= {"action": "add host", "object": "host:web1", "address": "192.0.2.7", "detail": {"port": 22}}


def run(*words):
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    return int(caught.value.code or 0)


def test_what_is_named_is_asked_for_and_pages_that_are_empty_are_passed(controller, capsys):
    controller.json(200, {"items": [], "next": "further"})
    controller.json(200, {"items": [ACT], "next": None})
    assert run("audit", "list", "--actor", "ana", "--object", "host:", "--since", "2026-11-01T00:00:00Z") == 0
    asked = parse_qs(urlsplit(controller.asked[0][1]).query)
    assert asked["actor"] == ["ana"] and asked["since"] == ["2026-11-01T00:00:00+00:00"]
    assert "action" not in asked and "cursor=further" in controller.asked[1][1]
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("ana (token ci)", "192.0.2.7", "add host", "host:web1", "port=22"))


def test_an_export_is_a_file(controller, capsys, tmp_path):
    line = json.dumps(ACT).encode() + b"\n"
    controller.raw(200, line, "application/jsonl")
    to = tmp_path / "audit.jsonl"
    assert run("audit", "export", "--format", "jsonl", "--action", "add host", "--to", str(to)) == 0
    assert to.read_bytes() == line
    assert "format=jsonl" in controller.asked[0][1] and "action=add+host" in controller.asked[0][1]
    assert run("audit", "export", "--format", "xls") == 2
    assert run("audit", "list", "--since", "yesterday") == 2
    assert "7d" in capsys.readouterr().err


def test_times_are_of_this_machines_zone_and_a_day_counts_to_its_end():
    ago = datetime.now(UTC) - datetime.fromisoformat(moment("7d", "--since"))
    assert abs(ago - timedelta(days=7)) < timedelta(seconds=5)
    begin = datetime.fromisoformat(moment("2026-11-01", "--since"))
    end = datetime.fromisoformat(moment("2026-11-01", "--until", end=True))
    assert begin == datetime(2026, 11, 1).astimezone()
    assert timedelta(hours=22) < end - begin < timedelta(hours=26)
    with pytest.raises(CommandError):
        moment("2026-13-01", "--since")
