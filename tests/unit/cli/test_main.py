import json
import subprocess
import sys

import pytest
from saveos.cli.main import main, split_json

JOB = {
    "id": "0199a7c4-0000-7000-8000-000000000001",
    "operation": "backup",
    "mode": "run",
    "state": "queued",
    "hosts_total": 1,
    "hosts_done": 0,
    "started_at": None,
    "finished_at": None,
    "error": "",
}
EVENT = {
    "n": 1,
    "t": 1.0,
    "k": "changed",
    "h": "web1",
    "task": "Back up",
    "text": "archive \x1b]0;owned\x07made",
}


def run(*words: str) -> int:
    """Run the command and return its exit code."""
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    return int(caught.value.code or 0)


def stream(*events: tuple[str, object]) -> bytes:
    return "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events).encode()


@pytest.mark.parametrize(
    ("words", "kept", "found"),
    [
        (["hosts", "list", "--json"], ["hosts", "list"], True),
        (["--json", "hosts", "list"], ["hosts", "list"], True),
        (["hosts", "list"], ["hosts", "list"], False),
        (["hosts", "show", "--", "--json"], ["hosts", "show", "--", "--json"], False),
    ],
)
def test_json_works_anywhere_before_the_double_dash(words, kept, found):
    assert split_json(words) == (kept, found)


def test_help_names_every_command_and_teaches_by_example(capsys):
    assert run("--help") == 0
    text = capsys.readouterr().out
    commands = (
        "up down purge serve worker migrate doctor login logout hosts groups policies jobs archives restores"
    )
    for command in (*commands.split(), "tokens", "maintenance"):
        assert f"  {command} " in text
    assert "saveos maintenance backup create web1 --wait" in text
    assert "4  the controller does not answer" in text


def test_wrong_usage_ends_with_2(capsys):
    assert run("hosts", "frobnicate") == 2
    assert run("maintenance", "backup", "create") == 2
    assert "--all" in capsys.readouterr().err


def test_the_client_commands_load_nothing_heavy():
    code = (
        "import sys, saveos.cli.main; "
        "print([m for m in ('httpx', 'pydantic', 'sqlalchemy', 'rich', 'saveos.app') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert answer.stdout.strip() == "[]"


def test_a_list_is_items_and_next(controller, capsys):
    controller.json(200, {"items": [{"name": "web1"}], "next": "abc"})
    assert run("hosts", "list", "--json", "--limit", "1") == 0
    assert json.loads(capsys.readouterr().out) == {"items": [{"name": "web1"}], "next": "abc"}


def test_an_accepted_job_tells_how_to_follow_it(controller, capsys):
    controller.json(202, JOB)
    assert run("maintenance", "backup", "create", "web1") == 0
    assert f"saveos jobs follow {JOB['id']}" in capsys.readouterr().out
    assert controller.asked[0][3] == {
        "targets": {"hosts": ["web1"], "groups": [], "all": False},
        "mode": "run",
        "parameters": {},
    }


def test_wait_shows_the_log_without_control_characters_and_ends_with_success(controller, capsys):
    done = JOB | {"state": "succeeded", "hosts_done": 1}
    controller.json(202, JOB)
    events = stream(("state", JOB), ("log", {"start": 1, "events": [EVENT]}), ("state", done), ("end", {}))
    controller.raw(200, events, "text/event-stream")
    archive = {"name": "web1-2026", "nfiles": 7, "original_size": 3_200_000, "deduplicated_size": 1000}
    host = {"name": "web1", "error": "", "result": {"run": {"results": [{"archive": archive, "warnings": []}]}}}
    controller.json(200, {"items": [host], "next": None})
    assert run("maintenance", "backup", "create", "web1", "--wait") == 0
    shown = capsys.readouterr().out
    assert "changed: [web1] archive \\x1b]0;owned\\x07made" in shown
    assert "\x1b" not in shown
    assert "backup succeeded" in shown
    assert "web1: web1-2026 (7 files, 3.2 MB, 1.0 kB added)" in shown


def test_wait_ends_with_the_jobs_failure_and_says_where(controller, capsys):
    failed = JOB | {"state": "failed", "hosts_done": 1, "error": "1 of 1 hosts failed"}
    controller.json(202, JOB)
    controller.raw(200, stream(("state", failed), ("end", {})), "text/event-stream")
    host = {"name": "web1", "state": "failed", "error": "no space left: free some on /srv"}
    controller.json(200, {"items": [host], "next": None})
    assert run("maintenance", "backup", "create", "web1", "--wait") == 1
    assert "web1: no space left: free some on /srv" in capsys.readouterr().out


def test_a_check_that_finds_drift_ends_with_3(controller, capsys):
    done = JOB | {"operation": "provision", "mode": "check", "state": "succeeded", "hosts_done": 1}
    controller.json(202, JOB)
    controller.raw(200, stream(("state", done), ("end", {})), "text/event-stream")
    for _ in range(2):
        controller.json(200, {"items": [{"name": "web1", "counts": {"ok": 9, "changed": 2}}], "next": None})
    assert run("maintenance", "provision", "web1", "--check", "--wait") == 3
    assert controller.asked[0][3]["mode"] == "check"


def test_follow_with_json_prints_the_final_job_only(controller, capsys):
    done = JOB | {"state": "succeeded", "hosts_done": 1}
    events = stream(("log", {"start": 1, "events": [EVENT]}), ("state", done), ("end", {}))
    controller.json(200, JOB)
    controller.raw(200, events, "text/event-stream")
    assert run("--json", "jobs", "follow", JOB["id"]) == 0
    assert json.loads(capsys.readouterr().out) == done


def test_health_findings_end_with_3(controller, capsys):
    done = JOB | {"operation": "health", "state": "succeeded", "hosts_done": 1}
    finding = {"severity": "warning", "message": "the timer is off: systemctl enable --now saveos-backup.timer"}
    host = {"name": "web1", "state": "ok", "result": {"health": {"findings": [finding]}}}
    controller.json(202, JOB)
    controller.raw(200, stream(("state", done), ("end", {})), "text/event-stream")
    for _ in range(2):
        controller.json(200, {"items": [host], "next": None})
    assert run("maintenance", "health", "check", "--all") == 3
    assert "web1: the timer is off" in capsys.readouterr().out


def test_a_host_is_not_added_without_its_host_key(controller, capsys):
    assert run("hosts", "add", "web1", "--address", "10.0.0.5") == 2
    assert "--scan" in capsys.readouterr().err
    assert controller.asked == []


def test_scanned_keys_need_a_person_or_yes(controller, capsys, monkeypatch):
    key = {"type": "ssh-ed25519", "key": "AAAA", "fingerprint": "SHA256:abc"}
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    nobody = {"items": [], "next": None}
    controller.json(200, nobody)
    controller.json(200, {"keys": [key]})
    assert run("hosts", "add", "web1", "--address", "10.0.0.5", "--scan") == 2
    assert "add --yes" in capsys.readouterr().err
    controller.json(200, nobody)
    controller.json(200, {"keys": [key]})
    controller.json(201, {"name": "web1"})
    assert run("hosts", "add", "web1", "--address", "10.0.0.5", "--scan", "--yes") == 0
    assert controller.asked[-1][3]["ssh_host_keys"] == ["ssh-ed25519 AAAA"]


def test_a_refused_token_ends_with_5(controller, capsys):
    controller.json(401, {"detail": "the token is unknown or revoked", "status": 401})
    assert run("jobs", "list") == 5
    assert "saveos login" in capsys.readouterr().err


def test_an_unreachable_controller_ends_with_4_and_the_playbook(monkeypatch, capsys):
    monkeypatch.setenv("SAVEOS_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("SAVEOS_TOKEN", "x")
    assert run("maintenance", "provision", "web1", "--check") == 4
    assert "ansible-playbook playbooks/site.yml --limit web1 --check --diff" in capsys.readouterr().err


def test_a_drill_tells_what_it_proved(controller, capsys):
    done = JOB | {"operation": "drill", "state": "succeeded", "hosts_done": 1}
    dumps = [
        {"kind": "sqlite", "name": "app", "state": "proven"},
        {"kind": "mongodb", "name": "x", "state": "skipped"},
    ]
    drilled = {"state": "partial", "sampled": 20, "compared": 18, "repositories": [{"databases": dumps}]}
    host = {"name": "web1", "state": "ok", "result": {"drill": drilled}, "counts": {}}
    controller.json(202, JOB)
    controller.raw(200, stream(("state", done), ("end", {})), "text/event-stream")
    controller.json(200, {"items": [host], "next": None})
    assert run("drills", "run", "web1", "--wait") == 0
    said = "web1: partial: 20 files restored, 18 of them compared with the live file, 1 of 2 dumps loaded"
    assert said in capsys.readouterr().out


def test_following_says_at_once_that_the_controller_is_away(monkeypatch, capsys):
    monkeypatch.setenv("SAVEOS_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("SAVEOS_TOKEN", "x")
    monkeypatch.setattr("time.sleep", lambda _seconds: pytest.fail("it waits"))
    assert run("jobs", "follow", JOB["id"]) == 4


def test_a_restore_that_no_controller_takes_is_told_as_a_playbook_with_all_that_was_asked(monkeypatch, capsys):
    monkeypatch.setenv("SAVEOS_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("SAVEOS_TOKEN", "x")
    asked = ("restores", "create", "--host", "web1", "--path", "/etc/x", "--no-owners")
    assert run(*asked, "--in-place", "--conflict", "newer", "--preview") == 4
    told = capsys.readouterr().err
    assert "playbooks/restore.yml --limit web1 --check" in told
    variables = {"paths": ["/etc/x"], "in_place": True, "conflict": "newer", "owners": False}
    spoken = told.rpartition(" -e ")[2].strip().strip("'")
    assert json.loads(spoken) == {f"maintenance_{name}": value for name, value in variables.items()}
    assert run(*asked, "--target-host", "web2") == 4 and "playbooks" not in capsys.readouterr().err
    assert run(*asked, "--conflict", "newest") == 2 and "refuse, skip" in capsys.readouterr().err
