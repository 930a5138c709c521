"""People are found by name, and only what is named of them changes."""

import pytest
from saveos.cli.main import main

ANA = {"id": "0199a7c4-0000-7000-8000-000000000001", "name": "ana", "role": "viewer", "active": True}
ANA |= {"must_change_password": True, "created_at": "2026-11-23T10:00:00Z"}


def run(*words):
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    return int(caught.value.code or 0)


def test_a_user_is_found_by_name_and_the_password_is_shown_once(controller, capsys):
    controller.json(200, {"items": [ANA], "next": None})
    controller.json(200, ANA | {"one_time_password": "only-now"})
    assert run("users", "reset-password", "ana") == 0
    assert controller.asked[1][:2] == ("PATCH", f"/api/v1/users/{ANA['id']}")
    assert controller.asked[1][3] == {"reset_password": True}
    assert "only-now" in capsys.readouterr().out


def test_only_what_is_named_is_changed(controller, capsys):
    controller.json(200, {"items": [ANA], "next": None})
    controller.json(200, ANA | {"active": False})
    assert run("users", "set", "ana", "--off") == 0
    assert controller.asked[1][3] == {"active": False}
    assert "switched off" in capsys.readouterr().out
    assert run("users", "set", "ana") == 2
    controller.json(200, {"items": [ANA], "next": None})
    assert run("users", "set", "omar", "--on") == 2
    assert "users list" in capsys.readouterr().err
