"""Heartbeats and progress: what a host says of itself, and that saying it never holds a run up."""

from __future__ import annotations

import json
import threading
import time

import pytest

from tests.receivers import http


@pytest.fixture
def controller():
    with http() as got:
        yield got


@pytest.fixture
def settings(agent, host, controller):
    data = json.loads((host.etc / "agent.json").read_text())
    data["controller"]["url"] = controller.url
    (host.etc / "agent.json").write_text(json.dumps(data))
    return agent.load_settings(host.etc)


def until(look, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_heartbeat_delivers_the_spool_and_then_says_how_the_host_is(agent, settings, controller):
    agent.save_record(settings, {"run_id": agent.new_run_id()})
    agent.heartbeat(settings)
    assert [path for path, _, _ in controller.posts] == ["/api/v1/agents/checkins", "/api/v1/agents/heartbeat"]
    _, authorization, told = controller.posts[1]
    assert authorization == "Bearer canary-token-11aa22bb"
    assert abs(agent.parse_utc(told["at"]) - time.time()) < 60
    assert agent.parse_utc(told["boot_time"]) < time.time()
    assert (told["spool"], told["running"], told["init"], told["next_run_at"]) == (0, None, "cron", None)
    assert told["versions"]["agent"] == agent.VERSION
    assert told["memory"]["total"] > told["memory"]["available"] > 0 and len(told["load"]) == 3
    disk = told["disks"][0]
    assert disk["path"] == "/" and 0 < disk["free"] <= disk["total"]
    assert len({each["path"] for each in told["disks"]}) == len(told["disks"])


def test_the_controller_takes_what_an_agent_says(agent, settings, controller):
    from saveos.checkins.service import read_heartbeat

    agent.heartbeat(settings)
    told = read_heartbeat(json.dumps(controller.posts[0][2]).encode())
    assert told.disks[0].total == controller.posts[0][2]["disks"][0]["total"]
    assert told.versions["agent"] == agent.VERSION and told.cpus


def test_a_refused_record_does_not_keep_the_heartbeat_back(agent, settings, controller):
    agent.save_record(settings, {"run_id": agent.new_run_id()})
    controller.answer = lambda body: 500 if "runs" in body else 200
    with pytest.raises(agent.AgentError, match="500"):
        agent.heartbeat(settings)
    assert controller.posts[-1][0] == "/api/v1/agents/heartbeat" and controller.posts[-1][2]["spool"] == 1


def test_a_refused_heartbeat_is_an_error_that_says_so(agent, settings, controller):
    controller.answer = lambda body: 401
    with pytest.raises(agent.AgentError, match="401 to the heartbeat"):
        agent.heartbeat(settings)


def test_a_controller_that_lost_backups_is_told_of_them_again_once(agent, settings, controller, monkeypatch):
    """Restored from an older copy of itself, it knows less than it was told."""
    ours, real, known = settings.repositories[0].id, agent.ask_controller, {}

    def answering(settings, method, path, *rest):
        status, told = real(settings, method, path, *rest)
        return status, {"at": agent.utc(), **known} if path.endswith("heartbeat") else told

    monkeypatch.setattr(agent, "ask_controller", answering)
    for hours, kind, repository in (
        (4, "backup", ours),
        (3, "backup", ours),
        (2, "restore", ours),
        (1, "backup", "x"),
    ):
        ended = agent.utc(time.time() - hours * 3600)
        record = {"run_id": agent.new_run_id(), "kind": kind, "finished_at": ended, "results": []}
        agent.save_record(settings, {**record, "results": [{"repository_id": repository}]})
        time.sleep(0.01)
    agent.heartbeat(settings)
    assert len(controller.posts[0][2]["runs"]) == 4
    runs = [record["run_id"] for record in controller.posts[0][2]["runs"]]

    def told():
        controller.requests.clear()
        agent.heartbeat(settings)
        return [record["run_id"] for _, _, body in controller.posts for record in body.get("runs", ())]

    assert told() == [], "an older controller says nothing"
    known["last_run_at"] = agent.utc()
    assert told() == []
    known["last_run_at"] = agent.utc(time.time() - 3.5 * 3600)
    assert told() == [runs[1]]
    assert told() == [], "what it refused it would refuse again"
    known["last_run_at"] = None
    assert told() == runs[:2]


def test_without_a_controller_nobody_is_told(agent, host):
    assert agent.heartbeat(host.settings)["spool"] == 0


def test_progress_comes_at_the_start_and_then_the_newest_only(agent, settings, controller):
    run = agent.Run(settings, "backup", agent.new_run_id(), "timer", "")
    run.tell("start", "r1")
    until(lambda: controller.posts)
    for count in range(200):
        run.tell("create", "r1", {"nfiles": count, "original_size": count * 10, "path": "etc/canary"})
    until(lambda: controller.posts[-1][2]["files"] == 199)
    run.finish()
    told = len(controller.posts)
    first, last = controller.posts[0][2], controller.posts[-1][2]
    assert told < 10, "two, where nothing holds this thread up"
    assert controller.posts[0][0] == "/api/v1/agents/progress"
    assert (first["phase"], first["run_id"], first["job_id"], first["files"]) == (
        "start",
        run.run_id,
        None,
        None,
    )
    assert (last["phase"], last["files"], last["original_size"]) == ("create", 199, 1990)
    assert "canary" not in json.dumps(last)
    time.sleep(1.3)
    assert len(controller.posts) == told  # it has ended


def test_progress_of_the_real_words_of_borgmatic_is_taken(agent):
    output, seen = agent.Output(agent.Redactor([])), []
    output.on_progress = seen.append
    inner = {"type": "archive_progress", "nfiles": 3, "original_size": 9, "path": "etc/x", "finished": False}
    line = {"type": "log_message", "message": json.dumps(inner), "levelname": "ERROR", "name": None}
    output.line("err", json.dumps(line))
    assert seen == [inner]
    assert not output.errors and not output.log


@pytest.mark.parametrize("status", [404, 503])
def test_a_controller_that_does_not_want_progress_is_asked_seldom(agent, settings, controller, status):
    controller.answer = lambda body: status
    run = agent.Run(settings, "backup", agent.new_run_id(), "timer", None)
    run.tell("start", "r1")
    until(lambda: controller.posts)
    run.tell("create", "r1")
    time.sleep(1.5)
    assert len(controller.posts) == 1
    run.finish()


def test_a_controller_that_hangs_holds_nothing_up(agent, settings, controller, monkeypatch):
    monkeypatch.setattr(agent, "PROGRESS_POST_SECONDS", 60)
    hold = threading.Event()
    controller.answer = lambda body: (hold.wait(60) and 200) or 200
    run = agent.Run(settings, "backup", agent.new_run_id(), "timer", None)
    run.tell("start", "r1")
    until(lambda: controller.posts)
    began = time.monotonic()
    for count in range(1000):
        run.tell("create", "r1", {"nfiles": count})
    record = run.finish()
    assert time.monotonic() - began < 30 and record["run_id"] == run.run_id
    hold.set()
