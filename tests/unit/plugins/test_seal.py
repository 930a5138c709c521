"""Sealing on a host: what is sealed, when anew, and what is said where it cannot be."""

import base64
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.saveos.fleet.plugins.modules import agent_seal
from saveos.core import sealing

ROOT = Path(__file__).resolve().parents[3]


class Failed(Exception):
    pass


class Done(Exception):
    pass


@pytest.fixture
def sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A host with one repository; `run` runs the module and returns its result."""
    tool = tmp_path / "saveos-seal"
    tool.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT}/roles/agent/files/saveos_seal.py "$@"\n')
    tool.chmod(0o755)
    etc = tmp_path / "etc"
    own = etc / "repositories" / "r1"
    own.mkdir(parents=True)
    (etc / "ssh").mkdir()
    (etc / "ssh" / "known_hosts").write_text("[10.0.0.1]:2222 ssh-ed25519 AAAA\n10.0.0.2 ssh-ed25519 BBBB\n")
    (own / "passphrase").write_text('c4n4ry "quoted" \\ ü\n')
    (own / "key-export").write_text("BORG_KEY r1\nline two\n")
    repository = {
        "id": "r1",
        "kind": "ssh",
        "address": "10.0.0.1",
        "port": 2222,
        "url": "ssh://borg@10.0.0.1:2222/srv/r1",
    }
    public, private = sealing.new_pair()
    here = SimpleNamespace(etc=etc, own=own, tool=tool, public=public, private=private, repository=repository)

    def run(check_mode: bool = False, **changed: Any) -> dict[str, Any]:
        def module(**_: Any) -> Any:
            params = {
                "etc": str(etc),
                "host": "web1",
                "public_key": here.public,
                "seal": str(here.tool),
                "repositories": [repository],
            }

            def fail(msg: str, **_: Any) -> None:
                raise Failed(msg)

            def end(**result: Any) -> None:
                raise Done(result)

            return SimpleNamespace(
                params=params | changed, check_mode=check_mode, _diff=True, fail_json=fail, exit_json=end
            )

        monkeypatch.setattr(agent_seal, "AnsibleModule", module)
        with pytest.raises(Done) as ended:
            agent_seal.main()
        result: dict[str, Any] = ended.value.args[0]
        return result

    here.run = run
    return here


def test_the_recovery_key_opens_all_that_restoring_needs(sealed: Any) -> None:
    result = sealed.run()
    assert result["changed"]
    (told,) = result["saveos"]["escrow"]
    assert told["url"] == sealed.repository["url"]
    assert told["host_keys"] == ["ssh-ed25519 AAAA"]
    assert told["recovery_key"] == sealing.fingerprint(sealed.public)
    plain = json.loads(sealing.open_sealed(base64.b64decode(told["sealed"]), sealed.private))
    assert plain == {
        "schema": 1,
        "host": "web1",
        "repository_id": "r1",
        "url": sealed.repository["url"],
        "passphrase": 'c4n4ry "quoted" \\ ü',
        "key_export": "BORG_KEY r1\nline two\n",
        "host_keys": ["ssh-ed25519 AAAA"],
    }


def test_nothing_readable_leaves_the_module(sealed: Any) -> None:
    result = sealed.run()
    kept = (sealed.own / "sealed").read_text()
    assert "c4n4ry" not in json.dumps(result) + kept
    assert (sealed.own / "sealed").stat().st_mode & 0o777 == 0o600


def test_a_second_run_changes_nothing_and_tells_the_same(sealed: Any) -> None:
    first = sealed.run()
    second = sealed.run()
    assert not second["changed"]
    assert second["saveos"] == first["saveos"]


@pytest.mark.parametrize("what", ["passphrase", "key-export", "key", "damage"])
def test_sealed_anew_when_something_changed(sealed: Any, what: str) -> None:
    first = sealed.run()
    if what == "key":
        sealed.public, sealed.private = sealing.new_pair()
    elif what == "damage":
        (sealed.own / "sealed").write_text("{")
    else:
        (sealed.own / what).write_text("another\n")
    second = sealed.run()
    assert second["changed"]
    (before,), (after,) = first["saveos"]["escrow"], second["saveos"]["escrow"]
    assert before["sealed"] != after["sealed"]
    assert sealing.open_sealed(base64.b64decode(after["sealed"]), sealed.private)
    assert not sealed.run()["changed"]


def test_check_mode_seals_nothing(sealed: Any) -> None:
    result = sealed.run(check_mode=True)
    assert result["changed"]
    assert not (sealed.own / "sealed").exists()


@pytest.mark.parametrize(
    ("changed", "says"),
    [({"seal": "/nowhere/saveos-seal"}, "agent_seal_path"), ({"public_key": "AAAA"}, "is no key")],
)
def test_what_is_missing_is_said(sealed: Any, changed: dict[str, str], says: str) -> None:
    with pytest.raises(Failed, match=says):
        sealed.run(**changed)


def test_a_repository_without_export_is_refused(sealed: Any) -> None:
    (sealed.own / "key-export").unlink()
    with pytest.raises(Failed, match="key export"):
        sealed.run()
