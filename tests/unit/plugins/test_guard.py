"""The module guard speaks with the program of the guard: what it hands in, and what it returns."""

import base64
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.saveos.fleet.plugins.modules import guard, server_guard

from tests.guarded import load

SAYS = """#!/usr/bin/python3
import json, sys
if sys.argv[1:3] != ["--config", {config!r}]:
    sys.exit("saveos-guard: these are not its settings")
del sys.argv[1:3]
log = open({log!r}, "a")
print(json.dumps([sys.argv[1:], sys.stdin.read()]), file=log)
if sys.argv[1] == "undo" and "never" in sys.argv:
    sys.exit("saveos-guard: there is no copy never")
states = [{{"id": "r1", "state": "compacted"}}]
print(json.dumps({{"repositories": states, "verb": sys.argv[1]}}))
sys.exit(3)
"""


class Ended(Exception):
    """The module ended: `failed` or with results."""


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the module with parameters; its results, and what the guard was asked."""
    program, log = tmp_path / "saveos-guard", tmp_path / "log"
    config = str(tmp_path / "guard.json")
    program.write_text(SAYS.format(log=str(log), config=config))
    program.chmod(0o755)
    monkeypatch.setattr(guard, "PROGRAM", str(program))
    monkeypatch.setattr(guard.os.path, "isdir", lambda path: path.endswith("r1"))

    def run(check_mode: bool = False, **params: Any) -> SimpleNamespace:
        defaults = {"verb": "run", "told": "", "repositories": [], "compact": True, "to": "latest-good"}
        given = {"config": config, **defaults, **params}

        def end(**results: Any) -> None:
            raise Ended(results)

        def fail(**results: Any) -> None:
            raise Ended({**results, "failed": True})

        fake = SimpleNamespace(params=given, check_mode=check_mode, exit_json=end, fail_json=fail)
        monkeypatch.setattr(guard, "AnsibleModule", lambda **_: fake)
        log.unlink(missing_ok=True)
        with pytest.raises(Ended) as ended:
            guard.main()
        asked = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return SimpleNamespace(asked=asked, **{"failed": False, **ended.value.args[0]})

    return run


def test_a_run_tells_first_and_returns_the_report(ask: Any) -> None:
    done = ask(told='{"schema": 1}', repositories=["r1"], compact=False)
    assert done.asked == [
        [["tell"], '{"schema": 1}'],
        [["run", "--json", "--no-compact", "--repository", "r1"], ""],
    ]
    assert done.changed is True and done.saveos["guard"]["verb"] == "run"


def test_check_mode_and_report_only_show(ask: Any) -> None:
    assert [words for words, _ in ask(check_mode=True, told="{}").asked] == [["report", "--json"]]
    assert [words for words, _ in ask(verb="report", told="{}").asked] == [["tell"], ["report", "--json"]]


def test_an_undo_is_for_one_repository_that_is_here(ask: Any) -> None:
    assert ask(verb="undo").failed and ask(verb="undo", repositories=["r1", "r2"]).failed
    assert ask(verb="undo", repositories=["other"]).asked == []
    done = ask(verb="undo", repositories=["r1"], check_mode=True)
    assert done.asked[0][0] == ["undo", "--json", "--repository", "r1", "--to", "latest-good", "--dry-run"]
    refused = ask(verb="undo", repositories=["r1"], to="never")
    assert refused.failed and "there is no copy never" in refused.msg


def test_a_server_without_a_guard_says_so(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "PROGRAM", "/nowhere/saveos-guard")
    assert "provision" in ask().msg


def test_the_module_installs_the_program_that_is_tested(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Once, executable, with a hash in the diff; a second time nothing changes."""
    place, config = tmp_path / "saveos-guard", tmp_path / "guard.json"
    found: dict[str, Any] = {}
    program = load().program.read_bytes()
    monkeypatch.setattr(server_guard, "PROGRAM", str(place))
    monkeypatch.setattr(server_guard.Converge, "_attributes", lambda *_: None)
    params = {
        "program": base64.b64encode(program).decode(),
        "config": str(config),
        "settings": {"state": str(tmp_path)},
        "repositories": [{"id": "r1", "quota": "1G"}],
        "borg": "/nowhere/borg",
    }
    module = SimpleNamespace(
        params=params, check_mode=False, _diff=True, exit_json=lambda **more: found.update(more)
    )
    monkeypatch.setattr(server_guard, "AnsibleModule", lambda **_: module)
    monkeypatch.setattr("os.fchown", lambda *_: None)
    server_guard.main()
    assert found["changed"] and place.read_bytes() == program and place.stat().st_mode & 0o111
    assert found["diff"][-1]["after"] == f"sha256 {hashlib.sha256(program).hexdigest()}\n"
    assert json.loads(config.read_text())["repositories"]["r1"]["quota"] == "1G"
    server_guard.main()
    assert not found["changed"], found
