"""Runs with the real borg and borgmatic: once per id, never two at a time, healed after kill -9."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import time
import uuid
from pathlib import Path

import pytest

RUN, OTHER = str(uuid.uuid4()), str(uuid.uuid4())  # processes are found by id, on the whole machine


def hold(backed):
    """Let backups wait before they begin, until the file that is returned is there (a minute at the most)."""
    go = backed.base / "go"
    wait = f"for n in $(seq 600); do test -e {go} && break; sleep 0.1; done"
    backed.configure(f'commands:\n- before: action\n  when: [create]\n  run: ["{wait}"]\n')
    return go


def sleeps(process):
    """Whether a process waits for something by looking again and again; False where the kernel does not say."""
    try:
        return "nanosleep" in Path(f"/proc/{process.pid}/wchan").read_text()
    except OSError:
        return False


def active(backed):
    """active.json once a run is under way and its borgmatic is there."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = None
        path = backed.base / "state/active.json"
        if path.exists():
            found = json.loads(path.read_text())
        if found and children(found["run_id"]):
            return found
        time.sleep(0.05)
    raise AssertionError("no run began")


def children(run_id):
    """Pids and command lines of the processes of a run."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"SAVEOS_RUN_ID={run_id}".encode() in (
                entry / "environ"
            ).read_bytes().split(b"\0"):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found


def finish(process):
    output, _ = process.communicate(timeout=120)
    return process.returncode, json.loads(output)


def test_a_backup_is_recorded_and_restores_to_the_same(backed):
    code, record = backed.run("backup", "--wait", "--run-id", RUN, "--job-id", "j1", "--trigger", "job")
    assert code == 0
    assert (record["state"], record["run_id"], record["job_id"], record["trigger"]) == (
        "succeeded",
        RUN,
        "j1",
        "job",
    )
    archive = record["results"][0]["archive"]
    assert archive["nfiles"] == 2
    assert backed.archives() == [archive["name"]]

    target = backed.base / "restored"
    code, record = backed.run("restore", "--wait", "--archive", archive["id"], f"--destination={target}")
    assert code == 0, record
    assert record["restore"]["files"] == 4
    copy = target / str(backed.sources).lstrip("/")
    assert sorted(path.name for path in copy.rglob("*")) == sorted(
        path.name for path in backed.sources.rglob("*")
    )
    assert (
        subprocess.run(
            ["diff", "-r", "--no-dereference", "-x", "fifo", backed.sources, copy], check=False
        ).returncode
        == 0
    )
    assert (copy / "plain").stat().st_mtime_ns == (backed.sources / "plain").stat().st_mtime_ns


def test_the_same_run_id_makes_one_archive(backed):
    waiters = [backed.start("backup", "--wait", "--run-id", RUN) for _ in range(3)]
    records = [finish(waiter)[1] for waiter in waiters]
    again = backed.run("backup", "--wait", "--run-id", RUN)[1]
    assert [record["run_id"] for record in (*records, again)] == [RUN] * 4
    assert len(backed.archives()) == 1


def test_another_request_joins_the_running_backup(backed):
    go = hold(backed)
    first = backed.start("backup", "--wait", "--run-id", RUN)
    active(backed)
    joining = backed.start("backup", "--wait", "--run-id", OTHER)
    deadline = time.monotonic() + 10
    while not sleeps(joining) and time.monotonic() < deadline:
        time.sleep(0.05)
    go.touch()
    code, second = finish(joining)
    assert (code, second["run_id"], second["joined"]) == (0, RUN, True)
    assert finish(first)[1]["joined"] is False
    assert len(backed.archives()) == 1


def test_who_was_started_for_a_request_that_is_served_does_nothing(backed):
    """Without systemd a worker that is slow to begin is started again; both begin then."""
    assert backed.run("backup", "--requested")[1] is None
    assert backed.archives() == []


def test_a_second_foreground_run_is_refused_and_a_second_timer_run_skipped(backed):
    go = hold(backed)
    first = backed.start("backup")
    active(backed)
    code, answer = backed.run("backup")
    assert (code, answer["error"]["code"]) == (5, "refused")
    assert backed.run("backup", "--trigger", "timer")[0] == 0
    go.touch()
    assert finish(first)[0] == 0
    assert len(backed.archives()) == 1


def test_stop_ends_every_process_and_leaves_a_canceled_record(backed):
    hold(backed)
    waiter = backed.start("backup", "--wait", "--run-id", RUN)
    active(backed)
    code, answer = backed.run("stop", "--run-id", RUN)
    assert (code, answer["stopped"], answer["run"]["state"]) == (0, True, "canceled")
    assert children(RUN) == {}
    assert finish(waiter)[1]["state"] == "canceled"
    assert backed.run("stop", "--run-id", RUN)[1]["stopped"] is False


@pytest.mark.parametrize("victim", ["agent", "borgmatic", "everything"])
def test_a_killed_run_is_recorded_and_the_next_one_heals(backed, victim):
    hold(backed)
    waiter = backed.start("backup", "--wait", "--run-id", RUN)
    found = active(backed)
    pids = children(RUN)
    if victim == "borgmatic":
        os.kill(min(pids), signal.SIGKILL)
    else:
        for pid in [found["pid"], *(pids if victim == "everything" else ())]:
            os.kill(pid, signal.SIGKILL)
    code, record = finish(waiter)
    assert (code, record["state"]) == (1, "failed")
    assert record["results"][0]["error"]["message"]
    assert children(RUN) == {}
    backed.configure()
    assert backed.run("backup", "--wait")[1]["state"] == "succeeded"
    assert len(backed.archives()) == 1


def test_a_killed_borg_leaves_a_lock_that_heals(backed):
    for number in range(3000):
        (backed.sources / f"{number}").write_bytes(os.urandom(2000))
    for _ in range(5):  # this process may be slower than Borg
        run_id = str(uuid.uuid4())
        waiter = backed.start("backup", "--wait", "--run-id", run_id)
        while waiter.poll() is None and not (backed.base / "repository/lock.exclusive").exists():
            time.sleep(0.01)
        for pid, line in children(run_id).items():
            if "borg create" in line:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        state = finish(waiter)[1]["state"]
        if state == "failed":
            break
    assert state == "failed"
    assert backed.run("backup", "--wait")[1]["state"] == "succeeded"


def test_a_run_nobody_waited_for_is_recorded_by_the_next(backed):
    hold(backed)
    run_id = backed.run("backup", "--detach")[1]["run_id"]
    os.kill(active(backed)["pid"], signal.SIGKILL)
    backed.configure()
    assert backed.run("backup", "--wait")[1]["state"] == "succeeded"
    states = {item["run_id"]: item["state"] for item in backed.run("status")[1]["last_runs"]}
    assert states[run_id] == "failed"


def test_a_gone_repository_and_a_wrong_passphrase_have_their_codes(backed):
    (backed.base / "repository").rename(backed.base / "away")
    record = backed.run("backup", "--wait")[1]
    assert record["results"][0]["error"]["code"] == "repository_gone"
    (backed.base / "away").rename(backed.base / "repository")
    (backed.etc / "repositories" / backed.settings.repositories[0].id / "passphrase").write_text("wrong\n")
    record = backed.run("backup", "--wait")[1]
    assert record["results"][0]["error"]["code"] == "passphrase_wrong"


def test_a_failing_hook_fails_the_run_and_its_secret_is_nowhere(backed):
    backed.configure(
        'commands:\n- before: action\n  when: [create]\n  run: ["echo CANARY-1234; TOKEN=CANARY-5678 false"]\n'
    )
    code, record = backed.run("backup", "--wait")
    assert (code, record["results"][0]["error"]["code"]) == (1, "hook_failed")
    state = [path for path in (backed.base / "state").rglob("*.json") if path.is_file()]
    assert state
    assert not any("CANARY" in path.read_text() for path in state)


def test_a_hook_after_the_archive_fails_the_run_but_not_the_truth(backed):
    backed.configure('commands:\n- after: action\n  when: [create]\n  states: [finish]\n  run: ["exit 3"]\n')
    record = backed.run("backup", "--wait")[1]
    assert (record["state"], record["results"][0]["error"]["code"]) == ("failed", "hook_failed")
    assert record["results"][0]["archive"]["name"] in backed.archives()


def test_a_hook_that_skips_the_backup_is_no_success(backed):
    backed.configure('commands:\n- before: action\n  when: [create]\n  run: ["exit 75"]\n')
    record = backed.run("backup", "--wait")[1]
    assert (record["state"], record["results"][0]["archive"]) == ("failed", None)


def test_browse_lists_one_directory_and_implied_parents(backed, saved):
    found = backed.run("browse", "--archive", "latest", f"--path={backed.sources}")[1]
    assert {item["name"]: item["type"] for item in found["entries"]} == {
        "plain": "-",
        "sub": "d",
        "fifo": "p",
        "link": "l",
    }
    assert (
        backed.run("browse", "--archive", "latest", f"--path={backed.sources}/sub")[1]["entries"][0]["name"]
        == "new\nline"
    )
    top = backed.run("browse", "--archive", "latest", "--path", "/")[1]["entries"]
    assert [item["name"] for item in top] == [backed.sources.parts[1]]
    assert top[0]["type"] == "d"
    code, answer = backed.run("browse", "--archive", "latest", "--path", "/no-such")
    assert (code, answer["error"]["code"]) == (1, "source_missing")


def test_restore_refuses_what_is_there_and_names_what_is_missing(backed, saved):
    (backed.base / "full").mkdir()
    (backed.base / "full" / "x").touch()
    code, answer = backed.run(
        "restore", "--wait", "--archive", "latest", f"--destination={backed.base / 'full'}"
    )
    assert (code, answer["error"]["code"]) == (5, "refused")
    assert backed.run("restore", "--wait", "--archive", "latest", "--destination", "relative")[0] == 2

    target, plain = backed.base / "part", backed.sources / "plain"
    code, record = backed.run(
        *("restore", "--wait", "--archive", "latest", f"--destination={target}"),
        f"--path={plain}",
        "--path=/no/such",
    )
    assert (code, record["state"]) == (0, "warning")
    assert record["restore"]["failed_files"] == [{"path": "/no/such", "message": "is not in the archive"}]
    code, record = backed.run(
        "restore", "--wait", "--archive", "latest", f"--destination={backed.base / 'none'}", "--path=/no/such"
    )
    assert (code, record["results"][0]["error"]["code"]) == (1, "source_missing")
    assert not (backed.base / "none").exists()
    assert not list(backed.base.glob(".*saveos-partial"))


def test_restore_with_the_same_id_runs_once_and_an_unknown_archive_is_named(backed, saved):
    arguments = ("restore", "--wait", "--run-id", RUN, "--archive", "latest")
    first, second = finish(backed.start(*arguments))[1], backed.run(*arguments)[1]
    assert first == second
    assert Path(first["restore"]["destination"]) == backed.base / "state/restores" / RUN
    code, record = backed.run("restore", "--wait", "--archive", "f" * 64)
    assert (code, record["results"][0]["error"]["code"]) == (1, "archive_missing")


def test_check_says_what_would_be_done_and_does_nothing(backed):
    code, answer = backed.run("backup", "--wait", "--check")
    assert (code, answer["plan"]["repositories"][0]["sources"]) == (0, [str(backed.sources)])
    assert backed.archives() == []
    backed.run("backup", "--wait")
    target = backed.base / "planned"
    code, answer = backed.run("restore", "--check", "--archive", "latest", f"--destination={target}")
    assert (code, answer["plan"]["destination"]) == (0, str(target))
    assert not target.exists()


def test_health_tells_the_last_archive_and_versions(backed):
    assert backed.run("health")[1]["findings"][0]["code"] == "never_backed_up"
    record = backed.run("backup", "--wait")[1]
    health = backed.run("health")[1]
    assert health["repositories"][0]["last_archive"] == record["results"][0]["archive"]["name"]
    assert health["versions"]["borg"].startswith("1.")
    assert not [item for item in health["findings"] if item["severity"] == "critical"]


def test_health_says_that_systemd_does_not_answer(agent, backed, monkeypatch):
    mute = backed.base / "mute"
    mute.mkdir()
    (mute / "systemctl").write_text("#!/bin/sh\nexit 1\n")
    (mute / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{mute}:{os.environ['PATH']}")
    told = agent.health(dataclasses.replace(backed.settings, systemd=True))
    assert "units-unknown" in {each["id"] for each in told["findings"]}
    assert not {"unit-missing", "timer-off"} & {each["id"] for each in told["findings"]}


def test_retention_runs_after_the_record(backed):
    backed.configure("keep_daily: 1\n")
    names = [backed.run("backup")[1]["results"][0]["archive"]["name"] for _ in range(2)]
    assert backed.archives() == names[-1:]
    assert backed.run("health")[1]["repositories"][0]["prune"]["state"] == "succeeded"
