"""Records, the lock and requests survive crashes, full disks and rivals."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

RUN, OTHER = str(uuid.uuid4()), str(uuid.uuid4())  # processes are found by id, on the whole machine

HOLDER = """
import fcntl, os, sys, time
handle = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(handle, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def dead_run(agent, host, **more):
    """An active.json whose process is gone."""
    data = {"run_id": RUN, "kind": "backup", "trigger": "job", "job_id": "j1", "started_at": agent.utc()}
    agent.store(host.settings, "active.json", {**data, "pid": 2**22 - 1, "pid_started": "1", **more})


def test_the_kernel_frees_the_lock_of_a_killed_process(agent, host):
    lock = agent.Lock(host.settings)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(lock.path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    assert lock.held()
    assert not lock.acquire(0.2)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not lock.held()
    with lock:
        assert lock.acquire(0)


def test_testing_the_lock_never_keeps_a_run_from_getting_it(agent, host):
    lock, tester = agent.Lock(host.settings), agent.Lock(host.settings)
    with lock:
        assert lock.acquire(1)
        assert tester.held()
    assert not tester.held()


def test_a_second_request_joins_the_pending_one(agent, host):
    assert agent.put_request(host.settings, RUN, "j1", "job") == RUN
    assert agent.put_request(host.settings, OTHER, "j2", "job") == RUN
    assert agent.pending_request(host.settings) == {"run_id": RUN, "job_id": "j1", "trigger": "job"}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"run_id": "../../etc"}'])
def test_a_broken_request_is_replaced(agent, host, content):
    host.settings.run.mkdir(parents=True)
    (host.settings.run / "request.json").write_text(content)
    assert agent.put_request(host.settings, RUN, "", "host") == RUN


def test_a_request_nobody_cares_for_expires(agent, host):
    agent.put_request(host.settings, RUN, "", "job")
    old = time.time() - agent.REQUEST_SECONDS - 1
    os.utime(host.settings.run / "request.json", (old, old))
    assert agent.pending_request(host.settings) is None
    assert agent.next_run(host.settings, "timer").run_id != RUN


def test_a_run_takes_its_request_once(agent, host):
    agent.put_request(host.settings, RUN, "j1", "job")
    run = agent.next_run(host.settings, "timer")
    assert (run.run_id, run.trigger, run.job_id) == (RUN, "job", "j1")
    assert agent.pending_request(host.settings) is None
    assert agent.load(host.settings, "active.json")["run_id"] == RUN


def test_a_request_that_comes_while_a_timers_run_begins_is_not_lost(agent, host, monkeypatch):
    announce = agent.Run.announce

    def slowly(run):
        agent.put_request(host.settings, RUN, "j1", "job")
        announce(run)

    monkeypatch.setattr(agent.Run, "announce", slowly)
    assert agent.next_run(host.settings, "timer").run_id != RUN
    assert agent.pending_request(host.settings)["run_id"] == RUN
    assert agent.next_run(host.settings, "timer").run_id == RUN
    assert agent.pending_request(host.settings) is None


def test_a_restore_onto_a_mount_point_goes_entry_by_entry(agent, host, monkeypatch):
    mount, partial = host.base / "mounted", host.base / ".partial"
    mount.mkdir()
    (partial / "sub").mkdir(parents=True)
    (partial / "sub" / "file").write_text("back")
    rename = os.rename

    def busy(source, target, **where):  # to mount takes root: the kernel's answer to a whole directory
        if target == mount.name:
            raise OSError(errno.EBUSY, "Device or resource busy")
        rename(source, target, **where)

    monkeypatch.setattr(os, "rename", busy)
    before = mount.stat().st_ino
    mover = agent.Mover("refuse", agent.Failures(agent.Redactor([])), agent.Cancel())
    agent.put_into(mover, partial, mount)
    assert (mount / "sub" / "file").read_text() == "back"
    assert mount.stat().st_ino == before


def test_a_request_with_a_record_is_not_run_again(agent, host):
    dead_run(agent, host)
    agent.heal(host.settings)
    agent.put_request(host.settings, RUN, "j1", "job")
    assert agent.pending_request(host.settings) is None


def test_healing_records_a_dead_run_and_removes_its_leftovers(agent, host):
    partial = host.base / ".x.saveos-partial"
    (partial / "sub").mkdir(parents=True)
    dead_run(agent, host, partial=str(partial))
    agent.heal(host.settings)
    record = agent.find_record(host.settings, RUN)
    assert (record["state"], record["job_id"], record["trigger"]) == ("failed", "j1", "job")
    assert record["results"][0]["error"]["code"] == "unknown"
    assert not partial.exists()
    assert agent.load(host.settings, "active.json") is None


def test_healing_never_removes_what_is_no_partial_directory(agent, host):
    precious = host.base / "precious"
    precious.mkdir()
    dead_run(agent, host, partial=str(precious))
    agent.heal(host.settings)
    assert precious.is_dir()


def test_healing_ends_processes_of_the_dead_run(agent, host):
    orphan = subprocess.Popen(["sleep", "60"], env={agent.MARKER: RUN, "PATH": os.environ["PATH"]})
    try:
        assert agent.processes_of(RUN) == [orphan.pid]
        dead_run(agent, host)
        # The test is its parent, so it must reap it or it stays a zombie; a zombie has no environment.
        agent.heal(host.settings)
        assert orphan.wait(60) == -signal.SIGTERM
    finally:
        orphan.kill()


def test_a_process_is_found_from_its_first_moment(agent, monkeypatch):
    """/proc shows no environment while exec is under way: made longer here, a third of looks meet it else."""
    begun = subprocess.Popen(["sleep", "60"], env={agent.MARKER: RUN, "PATH": os.environ["PATH"]})
    read, looks = Path.read_bytes, []

    def late(path):
        if path.parent == Path(f"/proc/{begun.pid}"):
            looks.append(path)
            if len(looks) < 5:
                return b""
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", late)
    try:
        assert agent.processes_of(RUN) == [begun.pid]
    finally:
        begun.kill()
        begun.wait()


def test_what_goes_on_without_words_is_waited_for_once(agent, monkeypatch):
    """A program may be started without any; it is no program in exec."""
    silent = subprocess.Popen(["sleep", "60"], env={})
    read, looks = Path.read_bytes, []

    def wordless(path):
        if path.parent == Path(f"/proc/{silent.pid}"):
            looks.append(path)
            return b""
        return read(path)

    monkeypatch.setattr(agent, "EXEC_SECONDS", 0.2)
    monkeypatch.setattr(Path, "read_bytes", wordless)
    try:
        assert agent.processes_of(RUN) == []
        assert len(looks) > 2
        looks.clear()
        assert agent.processes_of(RUN) == []
        assert len(looks) == 2
    finally:
        silent.kill()
        silent.wait()


def test_a_restore_whose_process_never_gets_far_is_given_up(agent, host, monkeypatch):
    started = []
    monkeypatch.setattr(agent, "start_restore", lambda _settings, _run_id, again=0: started.append(again))
    agent.store(host.settings, f"restoring/{RUN}.json", {"request": {}, "tries": 0})
    assert [agent.go_on(host.settings, RUN) for _ in range(7)] == [True] * 6 + [False]
    assert started == [1, 2, 3, 4, 5, 6], "each has a unit of its own"


def test_a_record_that_exists_is_not_overwritten_by_healing(agent, host):
    agent.store(host.settings, f"runs/{RUN}.json", {"run_id": RUN, "state": "succeeded"})
    dead_run(agent, host)
    agent.heal(host.settings)
    assert agent.find_record(host.settings, RUN)["state"] == "succeeded"


def test_a_torn_record_counts_as_none(agent, host):
    agent.store(host.settings, f"runs/{RUN}.json", {})
    (host.settings.state / f"runs/{RUN}.json").write_text('{"run_id"')
    assert agent.find_record(host.settings, RUN) is None


def test_a_failed_write_leaves_the_old_file_and_no_temporary(agent, host, monkeypatch):
    path = host.base / "file.json"
    agent.write_json(path, {"a": 1})
    monkeypatch.setattr(
        agent.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(OSError, match="No space"):
        agent.write_json(path, {"a": 2})
    assert agent.read_json(path) == {"a": 1}
    assert list(host.base.glob(".*.tmp")) == []


def test_a_full_state_directory_falls_back_to_run(agent, host, monkeypatch):
    write = agent.write_json

    def full(path, data):
        if host.settings.state in path.parents:
            raise OSError(28, "No space left on device")
        write(path, data)

    monkeypatch.setattr(agent, "write_json", full)
    dead_run(agent, host)
    agent.heal(host.settings)
    assert agent.find_record(host.settings, RUN)["state"] == "failed"
    assert (host.settings.run / f"runs/{RUN}.json").is_file()


def test_spool_and_history_are_bounded(agent, tmp_path, monkeypatch):
    monkeypatch.setattr(agent, "SPOOL_KEEP", 3)
    monkeypatch.setattr(agent, "HISTORY_KEEP", 5)
    settings = _with_controller(agent, tmp_path)
    ids = [agent.new_run_id() for _ in range(8)]
    for number, run_id in enumerate(ids):
        agent.save_record(settings, {"run_id": run_id})
        for folder in ("spool", "runs"):
            path = settings.state / folder / f"{run_id}.json"
            if path.exists():
                os.utime(path, (1000 + number, 1000 + number))
    assert [path.stem for path in agent.stored(settings, "spool")] == ids[-3:]
    assert [path.stem for path in agent.stored(settings, "runs")] == ids[-5:]


def test_the_spool_is_bounded_in_bytes(agent, tmp_path, monkeypatch):
    monkeypatch.setattr(agent, "SPOOL_BYTES", 1000)
    settings = _with_controller(agent, tmp_path)
    for _ in range(5):
        agent.save_record(settings, {"run_id": agent.new_run_id(), "log_tail": "x" * 400})
    assert len(agent.stored(settings, "spool")) == 2


def _with_controller(agent, tmp_path):
    return agent.Settings(
        tmp_path,
        tmp_path / "state",
        tmp_path / "run",
        "one",
        "",
        False,
        "u.service",
        "",
        "",
        0,
        "http://x",
        "",
        (),
    )


def test_run_ids_are_uuids_and_sort_by_time(agent):
    first = agent.new_run_id()
    time.sleep(0.002)
    assert agent.check_run_id(first) == first
    assert first < agent.new_run_id()
    with pytest.raises(agent.AgentError):
        agent.check_run_id("../../etc/passwd")


def test_stopping_a_pending_request_leaves_a_canceled_record(agent, host):
    agent.put_request(host.settings, RUN, "j1", "job")
    result = agent.stop_run(host.settings, RUN)
    assert result["stopped"]
    assert result["run"]["state"] == "canceled"
    assert agent.pending_request(host.settings) is None


def test_stopping_nothing_says_so(agent, host):
    assert agent.stop_run(host.settings, RUN) == {"stopped": False, "run": None}


@pytest.mark.parametrize(
    ("last", "synchronised", "plausible"),
    [
        (None, True, True),
        (-3600, False, True),
        (-50 * 86400, False, False),
        (-50 * 86400, True, False),
        (86400, True, False),
    ],
)
def test_retention_needs_a_plausible_clock(agent, host, monkeypatch, last, synchronised, plausible):
    monkeypatch.setattr(agent, "clock_synchronised", lambda: synchronised)
    if last is not None:
        agent.store(host.settings, "clock.json", {"last": time.time() + last})
    assert agent.clock_state(host.settings)["plausible"] is plausible


def test_a_long_gap_is_accepted_only_once_the_clock_is_synchronised(agent, host, monkeypatch):
    agent.store(host.settings, "clock.json", {"last": time.time() - 400 * 86400})
    for synchronised, after in ((False, False), (True, True)):
        monkeypatch.setattr(agent, "clock_synchronised", lambda value=synchronised: value)
        assert not agent.clock_state(host.settings)["plausible"]
        assert agent.clock_state(host.settings)["plausible"] is after


def test_jitter_is_the_same_every_time_and_within_bounds(agent, host):
    delays = {agent.jitter(host.settings, 1800) for _ in range(3)}
    assert len(delays) == 1
    assert 0 <= delays.pop() < 1800
