"""Commands about secrets against a scripted controller: the controller's own SSH key."""

from typing import Any

import pytest
from saveos.cli.main import main

JOB = {"id": "0199a7c4-0000-7000-8000-000000000001", "operation": "rekey", "state": "queued", "mode": "run"}
KEY = {
    "kind": "controller-ssh-key",
    "fingerprint": "SHA256:abc",
    "used_by": "jobs",
    "made_at": "2026-01-01T00:00:00Z",
    "rotate": "saveos maintenance secrets rotate --all --kind controller-ssh-key",
    "waiting": 0,
    "waiting_hosts": [],
}


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["maintenance", "secrets", *words])
    return int(caught.value.code or 0)


@pytest.mark.parametrize(
    ("words", "targets", "mode", "days"),
    [
        (["--all", "--older-than", "365"], {"hosts": [], "groups": [], "all": True}, "run", 365),
        (["web1", "--check"], {"hosts": ["web1"], "groups": [], "all": False}, "check", 0),
    ],
)
def test_the_controllers_key_is_an_operation_of_its_own(
    controller: Any, words: list[str], targets: dict[str, Any], mode: str, days: int
) -> None:
    controller.json(202, JOB)
    assert run("rotate", "--kind", "controller-ssh-key", *words) == 0
    method, path, _, body = controller.asked[0]
    assert (method, path) == ("POST", "/api/v1/maintenance/rekey")
    assert body == {"targets": targets, "mode": mode, "parameters": {"older_than_days": days}}


def test_hosts_that_still_need_the_former_key_are_named(
    controller: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    former = {"kind": "controller-ssh-key-former", "made_at": None, "waiting": 3, "waiting_hosts": ["a", "b"]}
    controller.json(200, {"items": [], "next": None})
    controller.json(200, [KEY, KEY | former])
    assert run("list") == 0
    said = capsys.readouterr().out
    assert "waits for: a, b and 1 more" in said and said.count("waits for") == 1
