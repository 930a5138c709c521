"""The commands of the operation `dependencies`, against a scripted controller."""

import pytest
from saveos.cli.main import main

JOB = {"id": "j1", "operation": "dependencies", "state": "queued"}


def run(*words: str) -> int:
    """Run the command and return its exit code."""
    with pytest.raises(SystemExit) as caught:
        main(["maintenance", *words])
    return int(caught.value.code or 0)


@pytest.mark.parametrize(
    ("words", "mode", "parameters"),
    [
        ("dependencies audit web1", "run", {"refresh": True, "online": True}),
        (
            "deps audit web1 --root /srv/apps --offline --no-refresh",
            "run",
            {"refresh": False, "online": False, "roots": ["/srv/apps"]},
        ),
        (
            "dependencies security web1 --check",
            "check",
            {"apply": "security", "batch": 5, "health_units": [], "health_url": "", "refresh": True},
        ),
        (
            "dependencies update web1 --batch 3 --unit nginx.service --url http://127.0.0.1/",
            "run",
            {
                "apply": "all",
                "batch": 3,
                "health_units": ["nginx.service"],
                "health_url": "http://127.0.0.1/",
                "refresh": True,
            },
        ),
        ("dependencies repair web1", "run", {"apply": "repair"}),
    ],
)
def test_commands_ask_for_the_operation(controller, words, mode, parameters):
    controller.json(202, JOB)
    assert run(*words.split()) == 0
    method, path, _headers, body = controller.asked[0]
    assert (method, path) == ("POST", "/api/v1/maintenance/dependencies")
    assert body == {
        "targets": {"hosts": ["web1"], "groups": [], "all": False},
        "mode": mode,
        "parameters": parameters,
    }


def test_without_hosts_nothing_is_asked(controller, capsys):
    assert run("dependencies", "update") == 2
    assert controller.asked == [] and "Name hosts" in capsys.readouterr().err


def test_unreachable_controller_names_the_playbook(monkeypatch, capsys):
    monkeypatch.setenv("SAVEOS_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("SAVEOS_TOKEN", "saveos_x")
    assert run("dependencies", "security", "web1", "--check") == 4
    said = capsys.readouterr().err
    assert "playbooks/dependencies.yml --limit web1 --check" in said
    assert '"maintenance_apply": "security"' in said
