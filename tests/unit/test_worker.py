"""The worker with real plays on local connections, on both databases."""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from saveos.jobs import queue
from saveos.jobs.dispatch import Bell
from saveos.jobs.models import Lease
from saveos.runner import attempts
from saveos.worker import Worker
from sqlalchemy import select

SLEEP = "name: wait\nansible.builtin.command: sleep {}"
UNTIL_THERE = "ansible.builtin.shell: until test -e {}; do sleep 0.1; done"


def running(token: str) -> list[int]:
    """Return processes whose command line is `sleep token`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes() == f"sleep\0{token}\0".encode():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def eventually(condition: Any, timeout: float = 60) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"not within {timeout} s"
        time.sleep(0.05)


@pytest.fixture
def token() -> str:
    """An odd number of seconds, by which the test's sleeping processes are known."""
    return f"9{uuid.uuid4().int % 10**7}"


def no_leases(database: Any) -> bool:
    with database.session() as session:
        return session.scalars(select(Lease)).first() is None


def test_job_runs_to_success(
    start_worker: Any, use_play: Any, add_host: Any, enqueue: Any, jobs: Any, database: Any, settings: Any
) -> None:
    use_play("health", "name: look\nansible.builtin.command: 'true'")
    start_worker()
    job_id = enqueue([add_host("web1"), add_host("web2")])
    job = jobs.wait(job_id)
    assert (job.state, job.error, job.attempt) == ("succeeded", "", 1)
    assert (job.hosts_total, job.hosts_done, job.hosts_failed) == (2, 2, 0)
    assert [(host.state, host.tasks) for host in jobs.hosts(job_id)] == [("changed", [["look", "changed"]])] * 2
    assert "TASK look" in jobs.log(job_id)
    assert no_leases(database)
    assert list((settings.home / "run").glob("*.*.main.*")) == []


def test_a_duty_that_stumbles_holds_up_no_job(
    start_worker: Any, use_play: Any, add_host: Any, enqueue: Any, jobs: Any, monkeypatch: Any
) -> None:
    def stumble(*_: Any) -> None:
        raise KeyError("a row that nobody foresaw")

    monkeypatch.setattr("saveos.worker.fire_due", stumble)
    monkeypatch.setattr("saveos.worker.rebuilds.any_to_advance", stumble)
    use_play("health", "ansible.builtin.command: 'true'")
    start_worker()
    assert jobs.wait(enqueue([add_host("web1")])).state == "succeeded"


def test_a_spool_that_makes_no_sense_leaves_no_job_unjudged(
    database: Any, settings: Any, enqueue: Any, add_host: Any, jobs: Any
) -> None:
    job_id = enqueue([add_host("web1")])
    with database.session() as session:
        assert queue.claim(session, "killed", -1, 1)
    spool = attempts.spool_path(settings.home, f"{job_id.hex}.1.main")
    spool.parent.mkdir(exist_ok=True)
    spool.write_text('{"n": 1}\n')
    Worker(settings, database, Bell())._reap()
    assert jobs.get(job_id).state == "queued"
    assert not spool.exists()


def test_one_failed_host_makes_a_partial_job_and_retry_takes_only_it(
    start_worker: Any, use_play: Any, add_host: Any, enqueue: Any, jobs: Any, database: Any, tenant_id: Any
) -> None:
    from saveos.jobs import service

    use_play(
        "health",
        "name: break\nansible.builtin.fail: {msg: the disk is full}\nwhen: inventory_hostname == 'web2'",
    )
    start_worker()
    job_id = enqueue([add_host("web1"), add_host("web2"), add_host("web3")])
    job = jobs.wait(job_id)
    states = {host.name: (host.state, host.error) for host in jobs.hosts(job_id)}
    assert states["web2"] == ("failed", "the disk is full")
    assert states["web1"][0] == "skipped"
    assert job.state == "failed"
    assert job.error == "web2: the disk is full"
    use_play("health", "name: look\nansible.builtin.command: 'true'")
    with database.session() as session:
        again = service.retry(session, tenant_id, job_id, who="ann", trigger="api")
        assert again.retry_of == job_id
    assert jobs.wait(again.id).state == "succeeded"
    assert [host.name for host in jobs.hosts(again.id)] == ["web2"]


def test_partial(start_worker: Any, use_play: Any, add_host: Any, enqueue: Any, jobs: Any) -> None:
    use_play(
        "health",
        "ansible.builtin.command: 'true'",
        "ansible.builtin.fail: {msg: broken}\nwhen: inventory_hostname == 'web2'",
    )
    start_worker()
    job = jobs.wait(enqueue([add_host("web1"), add_host("web2")]))
    assert (job.state, job.hosts_done, job.hosts_failed, job.error) == ("partial", 2, 1, "web2: broken")


def test_play_that_cannot_begin_says_why(
    start_worker: Any, use_play: Any, add_host: Any, enqueue: Any, jobs: Any
) -> None:
    use_play("health", "no_such_module: {}")
    start_worker()
    job = jobs.wait(enqueue([add_host("web1")]))
    assert (job.state, job.error_type) == ("failed", "play-failed")
    assert "no_such_module" in job.error


def test_jobs_on_one_host_run_one_after_the_other(
    start_worker: Any, use_play: Any, add_host: Any, enqueue: Any, jobs: Any, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    use_play("health", UNTIL_THERE.format(go))
    host, other = add_host("web1"), add_host("web2")
    first, second, third = enqueue([host]), enqueue([host, other]), enqueue([other])
    start_worker()
    jobs.wait(first, "running")
    eventually(lambda: jobs.get(second).blocked_by == f"host web1: health {first}")
    assert jobs.get(third).state == "queued", "a younger job must not overtake one that waits for the same host"
    go.touch()
    done = [jobs.wait(each) for each in (first, second, third)]
    assert [job.state for job in done] == ["succeeded"] * 3
    assert done[0].finished_at <= done[1].started_at
    assert done[1].finished_at <= done[2].started_at


def test_cancel_ends_the_processes_and_then_the_run_on_the_host(
    start_worker: Any, use_play: Any, add_host: Any, enqueue: Any, jobs: Any, token: str, tmp_path: Path
) -> None:
    stop = f"ansible.builtin.copy: {{content: '{{{{ maintenance_run_id }}}}', dest: {tmp_path}/stopped}}"
    use_play("backup", SLEEP.format(token), stop=[stop])
    start_worker()
    host = add_host("web1")
    job_id = enqueue([host], "backup")
    eventually(lambda: running(token))
    started = time.monotonic()
    assert jobs.cancel(job_id).state == "canceling"
    job = jobs.wait(job_id)
    assert (job.state, job.error) == ("canceled", "Canceled by ann.")
    assert time.monotonic() - started < 40
    assert running(token) == []
    assert (tmp_path / "stopped").read_text() == str(uuid.uuid5(job_id, str(host.id)))
    assert [host.state for host in jobs.hosts(job_id)] == ["canceled"]


def test_cancel_says_when_it_could_not_end_the_run_on_the_host(
    start_worker: Any, use_play: Any, add_host: Any, enqueue: Any, jobs: Any, token: str
) -> None:
    use_play("backup", SLEEP.format(token), stop=["ansible.builtin.fail: {msg: no way}"])
    start_worker()
    job_id = enqueue([add_host("web1")], "backup")
    eventually(lambda: running(token))
    jobs.cancel(job_id)
    job = jobs.wait(job_id)
    assert job.state == "canceled"
    assert "may go on" in job.error
    assert "no way" in jobs.log(job_id)


def test_cancel_after_the_timeout_lets_the_stop_end(
    start_worker: Any, use_play: Any, add_host: Any, enqueue: Any, jobs: Any, token: str, tmp_path: Path
) -> None:
    stop = [
        f"ansible.builtin.command: touch {tmp_path}/stopping",
        UNTIL_THERE.format(tmp_path / "canceled"),
        "ansible.builtin.command: sleep 1",
        f"ansible.builtin.command: touch {tmp_path}/stopped",
    ]
    use_play("backup", SLEEP.format(token), stop=stop)
    start_worker()
    job_id = enqueue([add_host("web1")], "backup", timeout=3)
    eventually((tmp_path / "stopping").exists)
    jobs.cancel(job_id)
    (tmp_path / "canceled").touch()
    assert jobs.wait(job_id).state == "timed_out"
    assert (tmp_path / "stopped").exists()


def test_cancel_before_the_start(use_play: Any, add_host: Any, enqueue: Any, jobs: Any) -> None:
    job_id = enqueue([add_host("web1")])
    assert jobs.cancel(job_id).state == "canceled"


def test_timeout(
    start_worker: Any, use_play: Any, add_host: Any, enqueue: Any, jobs: Any, token: str, tmp_path: Path
) -> None:
    use_play(
        "backup",
        SLEEP.format(token),
        stop=[f"ansible.builtin.file: {{path: {tmp_path}/stopped, state: touch}}"],
    )
    start_worker()
    job = jobs.wait(enqueue([add_host("web1")], "backup", timeout=3))
    assert job.state == "timed_out"
    assert running(token) == []
    assert (tmp_path / "stopped").exists()


def supervisor(job_id: uuid.UUID) -> int:
    """Return the supervisor of a job; other tests' supervisors come and go meanwhile."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if b"runner/supervisor.py" in words and job_id.hex.encode() in words:
            return int(path.parent.name)
    raise AssertionError(f"no supervisor of {job_id}")


@pytest.mark.parametrize(("idempotent", "state", "attempt"), [(True, "succeeded", 2), (False, "lost", 1)])
def test_killed_supervisor(
    start_worker: Any,
    use_play: Any,
    add_host: Any,
    enqueue: Any,
    jobs: Any,
    token: str,
    tmp_path: Path,
    idempotent: bool,
    state: str,
    attempt: int,
) -> None:
    """An idempotent operation is tried again; for another one a person decides. No process stays."""
    once = (
        f"ansible.builtin.shell: test -e {tmp_path}/again || {{ touch {tmp_path}/again; exec sleep {token}; }}"
    )
    use_play("backup", once, on_result=None, done_key="", idempotent=idempotent)
    start_worker()
    job_id = enqueue([add_host("web1")], "backup")
    eventually(lambda: running(token))
    os.kill(supervisor(job_id), signal.SIGKILL)
    job = jobs.wait(job_id)
    assert (job.state, job.attempt) == (state, attempt)
    assert running(token) == []
    assert "supervisor was killed" in jobs.log(job_id)


WORKER = """
import os, sys
from dataclasses import replace
from pathlib import Path
from saveos.core.settings import Settings
from saveos.maintenance.operations import OPERATIONS
from saveos import worker
Settings.fleet_dir = property(lambda self: Path(sys.argv[1]))
own = {"playbook": "backup.yml", "stop_playbook": "", "done_key": "", "on_result": None}
OPERATIONS["backup"] = replace(OPERATIONS["backup"], **own, idempotent=sys.argv[2] == "True")
worker.run(Settings(lease_seconds=6))
"""


@pytest.mark.parametrize(("idempotent", "state"), [(True, "succeeded"), (False, "lost")])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_killed_worker(
    start_worker: Any,
    use_play: Any,
    add_host: Any,
    enqueue: Any,
    jobs: Any,
    token: str,
    tmp_path: Path,
    playbooks: Path,
    idempotent: bool,
    state: str,
    how: signal.Signals,
    settings: Any,
) -> None:
    """A worker process is ended in the middle of a job; the next one judges the job, and no process stays."""
    once = (
        f"ansible.builtin.shell: test -e {tmp_path}/again || {{ touch {tmp_path}/again; exec sleep {token}; }}"
    )
    more = {"on_result": None, "done_key": "", "idempotent": idempotent}
    use_play("backup", "ansible.builtin.debug: {msg: begun}", once, **more)
    job_id = enqueue([add_host("web1")], "backup")
    process = subprocess.Popen([sys.executable, "-c", WORKER, str(playbooks.parent), str(idempotent)])
    eventually(lambda: running(token))
    os.kill(process.pid, how)
    process.wait(60)
    eventually(lambda: running(token) == [])
    if how == signal.SIGTERM:
        assert jobs.get(job_id).state == ("queued" if idempotent else "lost")
    start_worker()
    job = jobs.wait(job_id)
    assert (job.state, job.attempt) == (state, 2 if state == "succeeded" else 1)
    assert "begun" in jobs.log(job_id)
    assert running(token) == []
    assert list(attempts.orphans(settings.home)) == []


def test_stopping_the_worker_ends_what_runs(
    start_worker: Any, use_play: Any, add_host: Any, enqueue: Any, jobs: Any, token: str
) -> None:
    use_play("backup", SLEEP.format(token))
    worker = start_worker()
    job_id = enqueue([add_host("web1")], "backup")
    eventually(lambda: running(token))
    started = time.monotonic()
    worker.stop()
    assert time.monotonic() - started < 40
    assert running(token) == []
    assert jobs.get(job_id).state == "queued"


def test_idle_worker_costs_nearly_nothing(start_worker: Any) -> None:
    start_worker()
    time.sleep(1)
    spent = [time.process_time()]
    while len(spent) < 2 or (spent[-1] - spent[-2] >= 0.25 and len(spent) < 6):
        time.sleep(5)  # its start may take longer than the first second, and other tests' threads may still end
        spent.append(time.process_time())
    assert spent[-1] - spent[-2] < 0.25


def test_an_error_that_lasts_is_tried_again_in_pauses(
    start_worker: Any, use_play: Any, add_host: Any, enqueue: Any, jobs: Any, monkeypatch: Any
) -> None:
    use_play("health", "name: look\nansible.builtin.command: 'true'")
    tries: list[float] = []

    def broken(_worker: Worker) -> None:
        tries.append(time.monotonic())
        raise ValueError

    with monkeypatch.context() as patched:
        patched.setattr(Worker, "_beat", broken)
        start_worker()
        job_id = enqueue([add_host("web1")])
        eventually(lambda: len(tries) == 2)
        assert tries[1] - tries[0] > 1
    assert jobs.wait(job_id).state == "succeeded"
