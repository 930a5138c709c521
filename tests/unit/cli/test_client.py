import json
import stat
from pathlib import Path
from typing import Any

import pytest
from saveos.cli import client as client_module
from saveos.cli.client import Client, Login, read_login, segment, write_login
from saveos.cli.errors import FAILED, REFUSED, UNREACHABLE, USAGE, CommandError
from saveos.cli.main import main


def problem(status: int, detail: str, field: str | None = None) -> dict[str, Any]:
    body = {"type": "urn:saveos:problem:x", "title": "X", "status": status, "detail": detail}
    return body | ({"field": field} if field else {})


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, REFUSED), (403, REFUSED), (404, USAGE), (409, REFUSED), (422, USAGE), (500, FAILED)],
)
def test_a_problem_is_one_sentence_and_an_exit_code(controller, status, code):
    controller.json(status, problem(status, "there is no host web9: see saveos hosts list", "host"))
    with pytest.raises(CommandError) as caught:
        Client().get("/hosts/web9")
    assert caught.value.code == code
    assert str(caught.value).startswith("host: there is no host web9: see saveos hosts list")
    assert "saveos_secret" not in str(caught.value)


def test_what_is_not_there_ends_with_one_code_wherever_it_is_named(controller, capsys):
    lines = (
        ["hosts", "show", "web9"],
        ["maintenance", "backup", "create", "web9"],
        ["users", "set", "ana", "--off"],
    )
    for words, answer in zip(lines, (404, 422, 200), strict=True):
        controller.json(answer, problem(answer, "there is no such thing") | {"items": []})
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert (ended.value.code, "here is no" in capsys.readouterr().err) == (USAGE, True), words


@pytest.mark.parametrize(
    ("listed", "command"),
    [("hosts", "hosts list"), ("enrolment/tokens", "enrol tokens list")],
)
def test_a_sentence_of_the_api_names_the_command_that_lists(controller, listed, command):
    controller.json(404, problem(404, f"there is no such thing: see GET /api/v1/{listed}"))
    with pytest.raises(CommandError, match=rf"thing: see saveos {command}$"):
        Client().get("/hosts/web9")


def test_a_sentence_of_the_api_names_the_command_that_mends(controller):
    controller.json(422, problem(422, "web is paused: resume it with PATCH /api/v1/hosts"))
    with pytest.raises(CommandError, match=r"resume it with saveos hosts bulk resume HOST$"):
        Client().post("/maintenance/backup")


def test_an_answer_that_is_no_problem_document_asks_whether_it_is_the_controller(controller):
    for status in (502, 404):
        controller.raw(status, b"<html>Bad gateway</html>", "text/html")
        with pytest.raises(CommandError, match=rf"{status}.*is this the controller") as caught:
            Client().get("/hosts")
        assert caught.value.code == FAILED


def test_a_web_page_instead_of_json_is_no_traceback(controller):
    controller.raw(200, b"<html>Welcome</html>", "text/html")
    with pytest.raises(CommandError, match="did not answer with JSON"):
        Client().get("/hosts")


def test_unreachable_prints_the_playbook_line():
    login = Login("http://127.0.0.1:9", "x", "test")
    with pytest.raises(CommandError) as caught:
        Client(login, instead="ansible-playbook playbooks/backup.yml --limit web1").get("/jobs")
    assert caught.value.code == UNREACHABLE
    assert "ansible-playbook playbooks/backup.yml --limit web1" in str(caught.value)


@pytest.mark.parametrize("url", ["not a url", "http://[::1", "ftp://host", "http://host:99999"])
def test_a_bad_address_is_a_sentence(url):
    with pytest.raises(CommandError):
        Client(Login(url, "x", "SAVEOS_URL")).get("/jobs")


def test_an_address_without_a_scheme_is_wrong_usage():
    with pytest.raises(CommandError, match="begin it with https://") as caught:
        Client(Login("10.0.0.5:8000", "x", "SAVEOS_URL")).get("/jobs")
    assert caught.value.code == USAGE


def test_page_follows_cursors_and_keeps_the_next(controller):
    controller.json(200, {"items": [1, 2], "next": "c2"})
    controller.json(200, {"items": [3], "next": "c3"})
    assert Client().page("/hosts", 3, q="", state="enrolled") == {"items": [1, 2, 3], "next": "c3"}
    assert [path for _, path, _, _ in controller.asked] == [
        "/api/v1/hosts?limit=3&state=enrolled",
        "/api/v1/hosts?limit=1&cursor=c2&state=enrolled",
    ]


def test_all_pages_are_fetched_without_a_limit(controller):
    controller.json(200, {"items": [1], "next": "c2"})
    controller.json(200, {"items": [2], "next": None})
    assert Client().page("/hosts", None) == {"items": [1, 2], "next": None}


def test_the_token_and_an_idempotency_key_go_along(controller):
    controller.json(202, {"id": "j"})
    Client().post("/maintenance/backup", {"targets": {}}, once=True)
    _, _, headers, body = controller.asked[0]
    assert headers["Authorization"] == "Bearer saveos_secret"
    assert len(headers["Idempotency-Key"]) == 36
    assert body == {"targets": {}}


def test_a_broken_event_stream_resumes_after_the_last_event(controller, monkeypatch):
    monkeypatch.setattr(client_module.time, "sleep", lambda _seconds: None)
    first = b'id: 7\nevent: log\ndata: {"start": 7, "events": []}\n\nevent: log\ndata: {"half'
    second = b': keepalive\n\nid: 8\nevent: state\ndata: {"state": "succeeded"}\n\nevent: end\ndata:\n\n'
    controller.raw(200, first, "text/event-stream")
    controller.raw(200, second, "text/event-stream")
    seen = list(Client().events("/jobs/1/events"))
    assert seen == [("log", {"start": 7, "events": []}), ("state", {"state": "succeeded"}), ("end", None)]
    assert "Last-Event-ID" not in controller.asked[0][2]
    assert controller.asked[1][2]["Last-Event-ID"] == "7"


def test_an_event_stream_gives_up_when_the_controller_stays_away(monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr(client_module.time, "sleep", pauses.append)
    with pytest.raises(CommandError) as caught:
        list(Client(Login("http://127.0.0.1:9", "x", "test")).events("/jobs/1/events"))
    assert caught.value.code == UNREACHABLE
    assert 30 < sum(pauses) < 120


@pytest.fixture
def homes(tmp_path, monkeypatch) -> tuple[Path, Path]:
    monkeypatch.delenv("SAVEOS_URL", raising=False)
    monkeypatch.delenv("SAVEOS_TOKEN", raising=False)
    monkeypatch.setenv("SAVEOS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "home" / "cli.json", tmp_path / "config" / "saveos" / "cli.json"


def test_without_a_login_the_command_says_how_to_get_one(homes):
    with pytest.raises(CommandError, match="saveos login") as caught:
        read_login()
    assert caught.value.code == REFUSED


def test_the_home_of_the_installation_comes_first(homes):
    write_login(homes[1], "http://two", "t2")
    assert read_login().url == "http://two"
    write_login(homes[0], "http://one/", "t1")
    assert read_login() == Login("http://one", "t1", str(homes[0]))


def test_the_environment_wins(homes, monkeypatch):
    write_login(homes[0], "http://one", "t1")
    monkeypatch.setenv("SAVEOS_URL", "http://env")
    assert read_login() == Login("http://env", "t1", str(homes[0]))
    monkeypatch.setenv("SAVEOS_TOKEN", "t0")
    assert read_login() == Login("http://env", "t0", "SAVEOS_URL and SAVEOS_TOKEN")


def test_a_login_file_is_private_even_when_it_replaces_one_that_is_not(homes):
    homes[0].parent.mkdir()
    homes[0].write_text("{}")
    homes[0].chmod(0o644)
    write_login(homes[0], "http://one", "t1")
    assert stat.S_IMODE(homes[0].stat().st_mode) == 0o600
    assert json.loads(homes[0].read_text()) == {"url": "http://one", "token": "t1"}
    assert list(homes[0].parent.iterdir()) == [homes[0]]


@pytest.mark.parametrize("text", ["", "[]", "null", '{"url": 3}', '{"url": "http://one"}'])
def test_a_damaged_login_file_is_named(homes, text):
    homes[0].parent.mkdir()
    homes[0].write_text(text)
    with pytest.raises(CommandError, match=r"cli\.json is damaged"):
        read_login()


def test_a_segment_cannot_leave_its_place():
    assert segment("../tokens?x=1") == "..%2Ftokens%3Fx%3D1"
