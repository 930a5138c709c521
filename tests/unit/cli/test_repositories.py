"""The commands about repositories, against a scripted controller."""

import pytest
from saveos.cli.main import main

REPOSITORY = {
    "id": "0199a7c4-0000-7000-8000-000000000001",
    "host_id": "1",
    "host": "web1",
    "kind": "ssh",
    "server_id": "2",
    "server": "vault",
    "path": "",
    "quota": "100G",
    "quota_bytes": 10**11,
    "initialised_at": "2026-01-01T00:00:00Z",
    "key_exported_at": None,
    "size": 5 * 10**9,
    "created_at": "2026-01-01T00:00:00Z",
    "last_commit_at": "2026-01-02T00:00:00Z",
    "checked_at": "2026-01-02T01:00:00Z",
    "missing_since": None,
    "fault": "",
}


def run(*words: str) -> int:
    """Run the command and return its exit code."""
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    return int(caught.value.code or 0)


@pytest.mark.parametrize(
    ("changes", "standing"),
    [
        ({}, " ok"),
        ({"checked_at": None}, " -"),
        ({"missing_since": "2026-01-02T01:00:00Z"}, "lacks what the host claims"),
        ({"fault": "its directory is gone", "missing_since": "2026-01-02T01:00:00Z"}, "its directory is gone"),
    ],
)
def test_list_says_what_the_server_sees(controller, capsys, changes, standing):
    controller.json(200, {"items": [REPOSITORY | changes], "next": None})
    assert run("repositories", "list", "--host", "web1") == 0
    assert controller.asked[0][1].endswith("/repositories?limit=50&host=web1")
    row = capsys.readouterr().out.splitlines()[-1]
    assert row.endswith(standing)
    assert "5 GB" in row or "5.0 GB" in row


def test_show_and_set_quota(controller, capsys):
    controller.json(200, REPOSITORY)
    assert run("repositories", "show", REPOSITORY["id"]) == 0
    assert "vault" in capsys.readouterr().out
    controller.json(200, REPOSITORY | {"quota": "500G"})
    assert run("repositories", "set", REPOSITORY["id"], "--quota", "500G") == 0
    assert controller.asked[1][0] == "PATCH"
    assert controller.asked[1][3] == {"quota": "500G"}
    assert "saveos maintenance provision web1" in capsys.readouterr().out
