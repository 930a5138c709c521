"""Records reach the controller once, in order, and are kept as long as they do not."""

from __future__ import annotations

import json
import socket
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
    data["controller"]["url"] = controller.url + "/"
    (host.etc / "agent.json").write_text(json.dumps(data))
    return agent.load_settings(host.etc)


def spool(agent, settings, count):
    ids = [agent.new_run_id() for _ in range(count)]
    for run_id in ids:
        agent.save_record(settings, {"run_id": run_id})
        time.sleep(0.002)
    return ids


def test_records_go_in_one_post_oldest_first_and_leave_the_spool(agent, settings, controller):
    ids = spool(agent, settings, 3)
    assert agent.deliver(settings) == {"delivered": 3, "rejected": 0, "waiting": 0}
    path, authorization, body = controller.posts[0]
    assert path == "/api/v1/agents/checkins"
    assert authorization == "Bearer canary-token-11aa22bb"
    assert [run["run_id"] for run in body["runs"]] == ids
    assert agent.deliver(settings)["delivered"] == 0
    assert len(controller.posts) == 1
    assert agent.find_record(settings, ids[0])


def test_large_spools_go_in_batches(agent, settings, controller, monkeypatch):
    monkeypatch.setattr(agent, "POST_BATCH", 2)
    spool(agent, settings, 5)
    assert agent.deliver(settings)["delivered"] == 5
    assert [len(body["runs"]) for _, _, body in controller.posts] == [2, 2, 1]


@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_records_wait_while_the_controller_refuses(agent, settings, controller, status):
    spool(agent, settings, 2)
    controller.answer = lambda body: status
    with pytest.raises(agent.AgentError, match=str(status)):
        agent.deliver(settings)
    controller.answer = lambda body: 200
    assert agent.deliver(settings)["delivered"] == 2


def test_a_refusal_that_breaks_off_is_no_answer(agent, settings):
    """As a proxy's on a bad line: the backup that delivers goes on to prune."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        data = json.loads((settings.etc / "agent.json").read_text())
        data["controller"]["url"] = f"http://127.0.0.1:{listening.getsockname()[1]}"
        (settings.etc / "agent.json").write_text(json.dumps(data))
        settings = agent.load_settings(settings.etc)
        spool(agent, settings, 1)

        def answer():
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\nabc")

        proxy = threading.Thread(target=answer)
        proxy.start()
        with pytest.raises(agent.AgentError, match="cannot be reached"):
            agent.deliver(settings)
        proxy.join()
    assert len(agent.stored(settings, "spool")) == 1


def test_one_bad_record_does_not_hold_back_the_others(agent, settings, controller):
    ids = spool(agent, settings, 3)
    controller.answer = lambda body: 422 if any(run["run_id"] == ids[1] for run in body["runs"]) else 200
    assert agent.deliver(settings) == {"delivered": 2, "rejected": 1, "waiting": 0}
    assert (settings.state / f"spool/{ids[1]}.rejected").is_file()


@pytest.mark.parametrize("status", [302, 307])
def test_the_token_never_follows_a_redirect(agent, settings, controller, status):
    spool(agent, settings, 1)
    controller.answer = lambda body: status
    with pytest.raises(agent.AgentError):
        agent.deliver(settings)
    assert [path for path, _, _ in controller.posts] == ["/api/v1/agents/checkins"]


def test_an_unreachable_controller_is_named_and_nothing_is_lost(agent, settings, controller):
    spool(agent, settings, 1)
    controller.close()
    with pytest.raises(agent.AgentError, match="cannot be reached"):
        agent.deliver(settings)
    assert len(agent.stored(settings, "spool")) == 1


def test_a_hanging_controller_is_given_up(agent, settings, controller, monkeypatch):
    monkeypatch.setattr(agent, "POST_SECONDS", 0.3)
    spool(agent, settings, 1)
    controller.answer = lambda body: time.sleep(60) or 200
    began = time.monotonic()
    with pytest.raises(agent.AgentError):
        agent.deliver(settings)
    assert time.monotonic() - began < 30


def test_without_a_controller_nothing_is_spooled(agent, host):
    agent.save_record(host.settings, {"run_id": agent.new_run_id()})
    assert agent.stored(host.settings, "spool") == []
    assert agent.deliver(host.settings)["waiting"] == 0
