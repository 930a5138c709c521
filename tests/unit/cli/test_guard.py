"""The commands about guards, against a scripted controller."""

import json

import pytest
from saveos.cli.main import main

ID = "0199a7c4-0000-7000-8000-000000000001"
HELD = {
    "repository_id": ID,
    "host": "web1",
    "server": "vault",
    "state": "held",
    "reasons": [
        {
            "code": "vanished",
            "message": "2 archives are gone\x1b[31m",
            "holds": True,
            "would_destroy": [{"id": "1", "name": "web1-2026"}],
        }
    ],
    "digest": "ab" * 32,
    "size": 5 * 10**9,
    "held_bytes": 10**6,
    "copies": 2,
    "reported_at": "2026-01-02T00:00:00Z",
    **{f"{kind}_{what}": "" for kind in ("keyless", "archives", "data") for what in ("at", "state")},
}
JOB = {"id": "j1", "operation": "undo", "state": "queued"}


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    return int(caught.value.code or 0)


def test_a_hold_ends_with_3_and_says_why_and_how_to_go_on(controller, capsys):
    controller.json(200, {"items": [HELD], "next": None})
    assert run("repositories", "guard", "web1") == 3
    said = capsys.readouterr().out
    assert "vanished: 2 archives are gone" in said
    assert "\x1b" not in said
    assert "would destroy web1-2026" in said
    assert f"saveos repositories undo {ID}" in said
    controller.json(200, {"items": [HELD | {"state": "ok", "reasons": []}], "next": None})
    assert run("repositories", "guard") == 0


def test_a_broken_check_is_shown_before_when_the_last_was(controller, capsys):
    broken = HELD | {
        "state": "ok",
        "reasons": [],
        "data_state": "damaged",
        "keyless_at": "2026-01-02T00:00:00Z",
    }
    controller.json(200, {"items": [broken], "next": None})
    assert run("repositories", "guard") == 0
    assert "data failed" in capsys.readouterr().out


def test_an_approval_hands_back_the_digest_that_was_shown(controller, capsys):
    controller.json(200, {"items": [HELD], "next": None})
    controller.json(201, {"until": "2026-01-03T00:00:00Z"})
    assert run("repositories", "approve", "web1", "--reason", "vanished", "--yes") == 0
    method, path, _, body = controller.asked[1]
    assert (method, path.endswith(f"/repositories/{ID}/approvals")) == ("POST", True)
    assert (body["digest"], body["reason"], body["days"]) == (HELD["digest"], "vanished", 1)
    assert "saveos maintenance guard vault" in capsys.readouterr().out


def test_nothing_is_approved_or_undone_without_a_yes(controller, capsys):
    for words in (("approve", "web1", "--reason", "vanished"), ("undo", "web1"), ("undo", "web1", "--json")):
        controller.json(200, {"items": [HELD], "next": None})
        assert run("repositories", *words) == 2
        assert "add --yes" in capsys.readouterr().err
    assert [asked[0] for asked in controller.asked] == ["GET"] * 3


def test_an_undo_is_a_job_of_the_host(controller):
    controller.json(200, HELD)
    controller.json(202, JOB)
    assert run("repositories", "undo", ID, "--to", "2026-01-01T00:00:00Z", "--check") == 0
    assert controller.asked[1][3] == {
        "targets": {"hosts": ["web1"]},
        "mode": "check",
        "parameters": {"repository_id": ID, "to": "2026-01-01T00:00:00Z"},
    }


def test_a_host_with_several_repositories_is_asked_which(controller, capsys):
    controller.json(200, {"items": [HELD, HELD | {"repository_id": "other"}], "next": None})
    assert run("repositories", "copies", "web1") == 2
    assert "several repositories" in capsys.readouterr().err


def test_checks_and_guards_are_jobs(controller):
    controller.json(202, JOB)
    assert run("maintenance", "check", "web1", "--kind", "data") == 0
    assert controller.asked[0][3]["parameters"] == {"kind": "data"}
    controller.json(202, JOB)
    assert run("maintenance", "guard", "--all", "--no-compact") == 0
    assert controller.asked[1][3]["parameters"] == {"mode": "run", "compact": False}


def test_a_retention_that_prunes_more_ends_with_3(controller, capsys):
    fate = {
        "id": "1",
        "name": "a1",
        "started_at": "2026-01-01T00:00:00Z",
        "size": 10,
        "kept_by": "",
        "kept_before": "daily 3",
        "expires_at": None,
    }
    page = {
        "items": [{"host": "web1", "archives": [fate]}],
        "totals": {"archives": 1, "kept": 0, "pruned": 1, "newly_pruned": 1, "bytes": 10},
        "next": "c",
    }
    for _ in range(2):
        controller.json(200, {"retention": {"keep_within": "7d", "keep_daily": 7}})
        controller.json(200, page)
        controller.json(200, page | {"next": None})
    assert run("policies", "simulate", "web", "--keep-daily", "3") == 3
    assert controller.asked[1][3]["retention"] == {"keep_within": "7d", "keep_daily": 3}
    assert "PRUNED, kept until now" in capsys.readouterr().out
    assert run("--json", "policies", "simulate", "web", "--keep-daily", "3") == 3
    assert json.loads(capsys.readouterr().out)["totals"]["pruned"] == 2
