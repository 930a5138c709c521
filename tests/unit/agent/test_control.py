"""Waiting for a backup: a worker that begins slowly is no dead one, and one that never comes is told."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

RUN = "0193bbbb-0000-7000-8000-000000000001"


@pytest.fixture
def unit(host, agent, monkeypatch):
    """A host with systemd whose unit is in `state`; `starts` counts how often it was started."""
    found = SimpleNamespace(state="activating", starts=0)

    def systemctl(verb, *_words, **_):
        found.starts += verb == "start"
        return SimpleNamespace(returncode=0, stdout=f"{found.state}\n", stderr="")

    monkeypatch.setattr(agent, "systemctl", systemctl)
    monkeypatch.setattr(agent, "START_EVERY", 0)
    found.settings = replace(host.settings, systemd=True)
    return found


def wait(agent, unit, seconds=3):
    return agent.wait_for_backup(unit.settings, RUN, "", "job", seconds)


def test_a_unit_that_begins_slowly_is_waited_for(unit, agent):
    with pytest.raises(agent.AgentError, match="has not ended"):
        wait(agent, unit)
    assert unit.starts == 1
    assert agent.pending_request(unit.settings)["run_id"] == RUN
    assert agent.find_record(unit.settings, RUN) is None


def test_a_unit_that_never_begins_is_told(unit, agent):
    unit.state = "failed"
    record = wait(agent, unit, 30)
    assert record["state"] == "failed" and unit.starts == agent.START_TRIES
    assert agent.pending_request(unit.settings) is None


def test_a_worker_that_takes_over_between_two_looks_is_seen(unit, agent, monkeypatch):
    lock, look = agent.Lock(unit.settings), agent.pending_request

    def taken(settings):
        if not lock.held():
            lock.acquire(1)
            agent.withdraw_request(settings, RUN)
        return look(settings)

    monkeypatch.setattr(agent, "pending_request", taken)
    with lock, pytest.raises(agent.AgentError, match="has not ended"):
        wait(agent, unit)
    assert agent.find_record(unit.settings, RUN) is None
