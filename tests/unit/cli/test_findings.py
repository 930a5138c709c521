"""Commands about results and findings, and those of cleanup, against a scripted controller."""

import json
from pathlib import Path
from typing import Any

import pytest
from saveos.cli.main import main

WHEN = "2026-01-01T00:00:00Z"
JOB: dict[str, Any] = {"id": "j1", "operation": "cleanup", "mode": "run", "state": "succeeded", "error": ""}
JOB |= {"hosts_done": 1, "hosts_total": 1, "created_at": WHEN, "started_at": None, "finished_at": None}
RESULT: dict[str, Any] = {
    "id": "r1",
    "operation": "cleanup",
    "host": "web1",
    "mode": "run",
    "at": WHEN,
    "state": "ok",
}
RESULT |= {"critical": 0, "warning": 0, "info": 0, "fixed": 1, "summary": {"freed_bytes": 2048}}
FINDING: dict[str, Any] = {
    "id": "apt-archives",
    "severity": "info",
    "subject": "",
    "title": "Package files \x1b[31m of apt.",
}
FINDING |= {"evidence": "", "fix": "Free them.", "fixable": True, "fixed": False}
OPEN: dict[str, Any] = {
    "id": "f1",
    "operation": "cleanup",
    "host": "web1",
    "kind": "dead",
    "severity": "warning",
}
OPEN |= {"title": "Dead.", "fix": "Bury it.", "fixable": False, "first_seen": WHEN, "resolved_at": None}


def run(*words: str) -> int:
    """Run the command and return its exit code."""
    with pytest.raises(SystemExit) as caught:
        main(["maintenance", *words])
    return int(caught.value.code or 0)


def followed(controller: Any, *jobs: dict[str, Any]) -> None:
    """Script what --wait asks: each job's events."""
    for job in jobs:
        stream = f"event: state\ndata: {json.dumps(job)}\n\nevent: end\ndata: {{}}\n\n"
        controller.raw(200, stream.encode(), "text/event-stream")


@pytest.mark.parametrize(
    ("words", "mode", "parameters"),
    [
        ("cleanup run web1", "run", {}),
        ("cleanup run web1 --check --rule tmp --older-than 2", "check",
         {"older_than": 2, "rules": ["tmp"]}),
        ("cleanup cache web1", "run", {"rule_kinds": ["cache"]}),
        ("cleanup containers web1 --check", "check", {"rule_kinds": ["containers"]}),
    ],
)  # fmt: skip
def test_cleanup_asks_for_the_operation(controller: Any, words: str, mode: str, parameters: Any) -> None:
    controller.json(202, JOB)
    assert run(*words.split()) == 0
    method, path, _, body = controller.asked[0]
    assert (method, path) == ("POST", "/api/v1/maintenance/cleanup")
    assert body == {
        "targets": {"hosts": ["web1"], "groups": [], "all": False},
        "mode": mode,
        "parameters": parameters,
    }


def test_rules_come_from_a_file(controller: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = [{"name": "app", "root": "/var/cache/app", "patterns": ["*"]}]
    file = tmp_path / "rules.json"
    file.write_text(json.dumps(rules))
    controller.json(202, JOB)
    assert run("cleanup", "run", "web1", "--rules-file", str(file)) == 0
    assert controller.asked[0][3]["parameters"]["custom"] == rules
    file.write_text("{}")
    assert run("cleanup", "run", "web1", "--rules-file", str(file)) == 2
    assert "must hold a JSON list" in capsys.readouterr().err


@pytest.mark.parametrize(("state", "code"), [("ok", 0), ("warning", 3), ("critical", 3)])
def test_waiting_shows_findings_and_ends_with_what_is_open(
    controller: Any, capsys: pytest.CaptureFixture[str], state: str, code: int
) -> None:
    controller.json(202, JOB)
    followed(controller, JOB)
    controller.json(200, {"items": [RESULT | {"state": state}], "next": None})
    controller.json(200, {"items": [], "next": None})
    controller.json(200, RESULT | {"findings": [FINDING, FINDING | {"fixed": True}]})
    assert run("cleanup", "run", "web1", "--wait") == code
    said = capsys.readouterr().out
    assert f"web1: {state} (freed bytes 2.0 kB)" in said
    assert "info: Package files" in said and "fixed: Package files" in said
    assert "\x1b" not in said


def test_failed_job_is_a_failure(controller: Any) -> None:
    controller.json(202, JOB)
    followed(controller, JOB | {"state": "failed"})
    controller.json(200, {"items": [], "next": None})
    controller.json(200, {"items": [], "next": None})
    assert run("cleanup", "run", "web1", "--wait") == 1


def test_open_findings_end_with_three(controller: Any, capsys: pytest.CaptureFixture[str]) -> None:
    controller.json(200, {"items": [OPEN], "next": None})
    assert run("findings", "--severity", "warning") == 3
    assert "severity=warning" in controller.asked[0][1]
    assert "Dead." in capsys.readouterr().out
    controller.json(200, {"items": [OPEN | {"severity": "info"}], "next": None})
    assert run("findings") == 0


def test_fix_asks_with_ids(controller: Any) -> None:
    controller.json(202, {"jobs": [JOB]})
    assert run("fix", "f1", "f2", "--check") == 0
    assert controller.asked[0][1] == "/api/v1/maintenance/findings/fix"
    assert controller.asked[0][3] == {"findings": ["f1", "f2"], "mode": "check"}


def test_result_tells_what_is_new_and_gone(controller: Any, capsys: pytest.CaptureFixture[str]) -> None:
    detail = RESULT | {
        "findings": [],
        "before": "r0",
        "new": [FINDING],
        "gone": [FINDING | {"title": "Old."}],
        "same": [],
    }
    controller.json(200, detail)
    assert run("results", "show", "r1") == 0
    assert "gone since the result before: Old." in capsys.readouterr().out


def test_fix_all_tells_how_many_and_asks(controller: Any, capsys: pytest.CaptureFixture[str]) -> None:
    listed = {"items": [OPEN | {"fixable": True}, OPEN | {"fixable": False}], "next": None}
    controller.json(200, listed)
    assert run("fix", "--all", "--kind", "dead") == 2  # nobody is there to confirm
    controller.json(200, listed)
    controller.json(202, {"jobs": [JOB]})
    assert run("fix", "--all", "--kind", "dead", "--yes") == 0
    matching = {"operation": "", "severity": "", "kind": "dead", "host": "", "group": ""}
    assert controller.asked[-1][3] == {"matching": matching, "mode": "run"}
    assert run("fix", "f1", "--all") == run("fix") == run("fix", "f1", "--kind", "dead") == 2
