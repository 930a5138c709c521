"""What of Ansible's events is kept."""

from typing import Any

from saveos.runner import events
from saveos.runner.events import Mapper, clip


def lines(*given: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    mapper = Mapper(0, **options)
    return [line for event in given for line in mapper.lines({"created": "2026-01-01T00:00:00+00:00"} | event)]


def result(event: str, res: Any, **data: Any) -> dict[str, Any]:
    return {"event": event, "event_data": {"host": "a", "task": "t", "res": res} | data}


def test_hidden_results_say_nothing() -> None:
    (line,) = lines(result("runner_on_failed", {"censored": "x", "msg": "secret", "saveos": {"secret": 1}}))
    assert "secret" not in str(line).replace("handles a secret", "")
    assert "r" not in line


def test_module_arguments_stay_out() -> None:
    (line,) = lines(result("runner_on_ok", {"msg": "m", "invocation": {"module_args": {"p": "secret"}}}))
    assert line["text"] == "m"


def test_failure_shows_message_items_and_output() -> None:
    res = {"msg": "m", "stderr": "bad\n", "results": [{"failed": True, "msg": "one"}, {"msg": "fine"}]}
    (line,) = lines(result("runner_on_failed", res))
    assert (line["k"], line["text"]) == ("failed", "m\none\nbad")
    (ignored,) = lines(result("runner_on_failed", res, ignore_errors=True))
    assert ignored["k"] == "ignored"


def test_long_texts_are_cut_and_a_full_log_keeps_only_what_failed(monkeypatch: Any) -> None:
    (line,) = lines(result("runner_on_ok", {"msg": "x" * 10**6}))
    assert len(line["text"]) < events.MAX_TEXT + 100
    monkeypatch.setattr(events, "MAX_LOG", 100)
    first, second, third = lines(
        *(result(name, {"msg": "y" * 200}) for name in ("runner_on_ok", "runner_on_ok", "runner_on_failed"))
    )
    assert (bool(first["text"]), bool(second["text"]), bool(third["text"])) == (True, False, True)
    assert [line["n"] for line in (first, second, third)] == [1, 2, 3]


def test_result_travels_unless_too_large() -> None:
    (line,) = lines(result("runner_on_ok", {"saveos": {"run": {"x": 1}}}))
    assert line["r"] == {"run": {"x": 1}}
    (line,) = lines(result("runner_on_ok", {"saveos": {"x": "y" * events.MAX_RESULT}}))
    assert "r" not in line
    assert "too large" in line["text"]


def test_verbose_lines_only_before_the_play_and_only_when_quiet() -> None:
    said = {"event": "verbose", "stdout": "\x1b[0;31mERROR! no such play\x1b[0m\r\n"}
    assert [line["text"] for line in lines(said)] == ["ERROR! no such play"]
    assert lines({"event": "playbook_on_start"}, said) == []
    assert lines(said, verbose=True) == []


def test_each_host_starts_once() -> None:
    begin = {"event": "runner_on_start", "event_data": {"host": "a"}}
    assert lines(begin, begin) == [{"start": "a"}]


def test_odd_events_are_survived() -> None:
    odd: list[dict[str, Any]] = [
        {},
        {"event": "new"},
        {"event": "runner_on_ok"},
        {"event": "playbook_on_stats"},
    ]
    assert [line["k"] for line in lines(*odd, result("runner_on_ok", "text"))] == ["ok", "recap", "ok"]


def test_clip() -> None:
    assert clip("abc", 3) == "abc"
    assert clip("a" * 50 + "b" * 50, 10).startswith("aaaaa\n… 90 characters left out …\nbbbbb")
