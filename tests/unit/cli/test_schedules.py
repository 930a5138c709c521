"""The commands about schedules and bulk changes, against a scripted controller."""

import pytest
from saveos.cli.main import main

SCHEDULE = {
    "id": "0199a7c4-0000-7000-8000-000000000001",
    "name": "nightly",
    "operation": "backup",
    "targets": {"hosts": ["web1"], "groups": ["db"]},
    "parameters": {},
    "mode": "run",
    "cron": "0 2 * * *",
    "zone": "Europe/Paris",
    "jitter_seconds": 600,
    "enabled": True,
    "catch_up": True,
    "built_in": False,
    "next_at": "2026-01-02T01:00:00Z",
    "last_at": None,
    "last_job_id": None,
    "last_job_state": "",
    "last_outcome": "skipped",
    "last_reason": "The controller was stopped.",
    "created_by": "ann",
    "created_at": "2026-01-01T00:00:00Z",
    "updated_at": "2026-01-01T00:00:00Z",
}


def run(*words: str) -> int:
    """Run the command and return its exit code."""
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    return int(caught.value.code or 0)


def body(controller) -> dict:
    return controller.asked[-1][3]


def test_add_says_everything_and_tells_the_next_time(controller, capsys):
    controller.json(201, SCHEDULE)
    words = ["nightly", "backup", "--cron", "0 2 * * *", "--zone", "Europe/Paris", "--host", "web1", "-g", "db"]
    assert (
        run("schedules", "add", *words, "--jitter", "10m", "--catch-up", "-p", "size=3", "-p", "path=/etc") == 0
    )
    assert body(controller) == {
        "name": "nightly",
        "operation": "backup",
        "cron": "0 2 * * *",
        "zone": "Europe/Paris",
        "targets": {"hosts": ["web1"], "groups": ["db"], "all": False},
        "parameters": {"size": 3, "path": "/etc"},
        "jitter_seconds": 600,
        "catch_up": True,
        "mode": "run",
        "enabled": True,
    }
    assert "nightly runs backup next at 2026-01-0" in capsys.readouterr().out


def test_set_sends_only_what_is_named(controller, capsys):
    controller.json(200, SCHEDULE)
    assert run("schedules", "set", "nightly", "--off", "--cron", "0 3 * * *") == 0
    assert body(controller) == {"enabled": False, "cron": "0 3 * * *"}
    assert "skipped The controller was stopped." in capsys.readouterr().out
    assert run("schedules", "set", "nightly") == 2
    assert run("schedules", "set", "nightly", "--jitter", "soon") == 2


def test_lists_history_and_preview(controller, capsys):
    controller.json(200, {"items": [SCHEDULE], "next": None})
    assert run("schedules", "list") == 0
    assert "web1, @db" in capsys.readouterr().out
    row = {"due_at": "2026-01-01T01:00:00Z", "fired_at": "2026-01-01T09:00:00Z", "job_id": None}
    row |= {"outcome": "skipped", "reason": "The controller was stopped.", "count": 7, "id": "1"}
    controller.json(200, {"items": [row], "next": None})
    assert run("schedules", "history", "nightly", "--outcome", "skipped") == 0
    assert controller.asked[-1][1].endswith("/schedules/nightly/history?limit=20&outcome=skipped")
    assert "skipped ×7" in capsys.readouterr().out
    found = {
        "cron": "0 2 * * *",
        "zone": "UTC",
        "runs": ["2026-01-02T02:00:00Z"],
        "local": ["2026-01-02T02:00+00:00"],
    }
    controller.json(200, found)
    assert run("schedules", "preview", "0 2 * * *") == 0
    assert "2026-01-02T02:00+00:00" in capsys.readouterr().out


OUT = {
    "action": "pause",
    "dry_run": False,
    "matched": 3,
    "changed": 2,
    "unchanged": 0,
    "refused": [{"reason": "is not provisioned yet: provision it first", "count": 1, "hosts": ["web3"]}],
    "hosts": ["web1", "web2"],
    "job": None,
}


def test_bulk_tells_what_was_refused_and_ends_with_3(controller, capsys):
    controller.json(200, OUT)
    assert run("hosts", "bulk", "pause", "--tag", "rack-7") == 3
    assert body(controller) == {"action": "pause", "dry_run": False, "filter": {"tag": "rack-7"}}
    out = capsys.readouterr().out
    assert "Of 3 hosts 2 changed, 0 were so already." in out
    assert "1 refused: is not provisioned yet: provision it first (web3)" in out


def test_bulk_refuses_what_is_not_clear(controller):
    assert run("hosts", "bulk", "pause") == 2
    assert run("hosts", "bulk", "pause", "web1", "--all") == 2
    assert run("hosts", "bulk", "explode", "--all") == 2
    assert run("hosts", "bulk", "add-tags", "--all") == 2
    assert run("hosts", "bulk", "policy", "-v", "a", "-v", "b", "--all") == 2
    assert controller.asked == []


def test_bulk_starts_an_operation(controller, capsys):
    controller.json(
        200,
        OUT
        | {
            "action": "operation",
            "refused": [],
            "job": {"id": "7", "operation": "provision", "state": "queued"},
        },
    )
    words = ["-v", "provision", "--check", "web1", "web2"]
    assert run("hosts", "bulk", "operation", *words) == 0
    sent = {"action": "operation", "dry_run": False, "operation": "provision", "hosts": ["web1", "web2"]}
    assert body(controller) == sent | {"parameters": {}, "mode": "check"}
    assert "Job 7 (provision) is queued." in capsys.readouterr().out


def test_bulk_asks_before_it_takes_hosts_out(controller):
    controller.json(200, OUT | {"action": "decommission", "dry_run": True})
    assert run("hosts", "bulk", "decommission", "--all") == 2  # nobody is there to confirm
    assert body(controller)["dry_run"] is True
    controller.json(200, OUT | {"action": "decommission", "refused": []})
    assert run("hosts", "bulk", "decommission", "--all", "--yes") == 0
    assert body(controller) == {"action": "decommission", "dry_run": False, "filter": {}}


def test_a_listed_file_is_what_apply_takes(controller, capsys, tmp_path):
    controller.json(200, {"items": [SCHEDULE, SCHEDULE | {"name": "health", "built_in": True}], "next": None})
    assert run("schedules", "list", "--yaml") == 0
    file = tmp_path / "schedules.yaml"
    file.write_text(capsys.readouterr().out)
    controller.json(200, [{"name": "nightly", "outcome": "updated", "changed": ["cron"]}])
    assert run("schedules", "apply", str(file), "--dry-run", "--prune") == 3
    sent = body(controller)
    names = ("name", "operation", "targets", "parameters", "mode", "cron", "zone", "jitter_seconds", "enabled")
    assert sent["schedules"] == [{name: SCHEDULE[name] for name in (*names, "catch_up")}]
    assert (sent["prune"], sent["dry_run"]) == (True, True)
    assert capsys.readouterr().out == "would be updated  nightly: cron\n"
    controller.json(200, [{"name": "nightly", "outcome": "unchanged", "changed": []}])
    assert run("schedules", "apply", str(file)) == 0
    assert body(controller)["prune"] is False
    for text in ("name: x", "a: [", None):
        if text is not None:
            file.write_text(text)
        else:
            file.unlink()
        assert run("schedules", "apply", str(file)) == 2
