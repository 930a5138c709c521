"""Guard and undo are killed, or find the disk full, at each step: no repository is harmed, and they go on."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guarded import CHECKOUT, REPOSITORY, Storage, load

guard = load()

# one function per kind of step that changes something on the disk; the k-th call of them all is the fault
CHILD = """
import errno, json, os, signal, sys
sys.path.insert(0, sys.argv[1])
sys.dont_write_bytecode = True
from tests.guarded import load
guard = load()
settings, (verb, fault) = json.loads(sys.argv[2]), sys.argv[3:5]
count, now = int(sys.argv[5]), float(sys.argv[6])
calls = 0
def step(name, real):
    def stepped(*arguments, **options):
        global calls
        flags = arguments[1] if arguments[1:] and isinstance(arguments[1], int) else 0
        if name == "open" and not flags & (os.O_WRONLY | os.O_RDWR):
            return real(*arguments, **options)
        calls += 1
        if fault == "kill" and calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "full" and calls >= count and name in FULL:
            raise OSError(errno.ENOSPC, "No space left on device", str(arguments[0]))
        return real(*arguments, **options)
    return stepped
FULL = {"open", "mkdir", "link", "rename", "fsync", "run"}
for name in ("open", "mkdir", "link", "rename", "fsync", "unlink", "fchown", "chown", "rmdir"):
    setattr(os, name, step(name, getattr(os, name)))
if fault == "kill":
    guard.subprocess.run = step("run", guard.subprocess.run)
import io, builtins
real_open = builtins.open
def opened(file, mode="r", *arguments, **options):
    if any(letter in mode for letter in "wax+"):
        global calls
        calls += 1
        if fault == "kill" and calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "full" and calls >= count:
            raise OSError(errno.ENOSPC, "No space left on device", str(file))
    return real_open(file, mode, *arguments, **options)
for module in guard.modules:
    module.open = opened
try:
    if verb == "run":
        report = guard.run(settings, [], now)["repositories"][0]
        print(report["state"], [each["code"] for each in report["reasons"]])
    else:
        keeper = guard.Guard(settings, now, 14, True)
        print(guard.undo(guard.Repository(keeper, "r1"), "latest-good")["state"])
except (OSError, guard.Trouble) as error:
    print("failed", error)
print("calls", calls)
"""


def act(storage: Storage, verb: str, fault: str, count: int) -> tuple[int, int, str]:
    """(exit code, steps, what was said) of a run or undo with a fault at one step."""
    import json

    ran = subprocess.run(
        [
            sys.executable,
            "-c",
            CHILD,
            str(CHECKOUT),
            json.dumps(storage.settings),
            verb,
            fault,
            str(count),
            str(storage.time),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode in (0, -signal.SIGKILL), ran.stderr
    steps = int(ran.stdout.rpartition("calls")[2]) if ran.returncode == 0 else 0
    return ran.returncode, steps, ran.stdout


def whole(storage: Storage) -> None:
    """Borg finds nothing wrong, with the data."""
    storage.client("check", "--repository-only", storage.url)


def reset(storage: Storage, saved: str) -> None:
    """Put everything back as it was saved, with its hard links."""
    for part in ("root", "state", "client"):
        shutil.rmtree(storage.base / part)
        subprocess.run(["cp", "-a", f"{saved}/{part}", str(storage.base)], check=True)


def save(storage: Storage) -> str:
    """Save everything, to try many faults from one state."""
    saved = str(storage.base / "saved")
    Path(saved).mkdir()
    subprocess.run(
        ["cp", "-a", *(str(storage.base / part) for part in ("root", "state", "client")), saved], check=True
    )
    return saved


def spread(steps: int) -> list[int]:
    """Which steps are tried: all by SAVEOS_TEST_ALL, else some over all of them."""
    if os.environ.get("SAVEOS_TEST_ALL"):
        return list(range(1, steps + 1))
    return sorted({1 + round(part * (steps - 1) / 4) for part in range(5)})


@pytest.mark.parametrize("fault", ["kill", "full"])
def test_a_run_with_a_fault_at_each_step_harms_nothing(ready, fault):
    storage, saved = ready
    code, steps, said = act(storage, "run", "none", 0)
    assert code == 0 and "compacted" in said and steps > 40, said
    for count in spread(steps):
        reset(storage, saved)
        act(storage, "run", fault, count)
        whole(storage)
        storage.wait()
        report = storage.told_and_run()
        assert report["state"] in ("ok", "compacted"), (count, report)
        assert not [each for each in storage.hold.iterdir() if each.name.startswith(".")], count
        for copy in report["copies"]:
            assert copy["transaction"] is not None
        assert storage.restore("a2") == {
            name: (storage.source / name).read_bytes() for name in ("file0", "file1", "file2")
        }


@pytest.mark.parametrize("fault", ["kill", "full"])
def test_an_undo_with_a_fault_at_each_step_harms_nothing(struck, fault):
    storage, saved = struck
    code, steps, said = act(storage, "undo", "none", 0)
    assert code == 0 and "done" in said and steps > 20, said
    for count in spread(steps):
        reset(storage, saved)
        act(storage, "undo", fault, count)
        storage.wait()
        report = storage.told_and_run()
        if report["state"] == "held":  # nothing was begun: the intruder's state still stands, whole
            whole(storage)
            assert storage.undo()["state"] == "done"
            report = storage.told_and_run()
        assert report["state"] == "ok", (count, report)
        assert not (storage.state / REPOSITORY / "undo.json").exists()
        assert "undo" in [each["why"] for each in report["copies"]], count
        storage.mend()
        assert storage.names() == {"a0", "a1", "a2"}, count
        whole(storage)


@pytest.fixture
def ready(storage: Storage) -> tuple[Storage, str]:
    """A repository of which a run takes a copy and compacts, saved."""
    for name in ("a0", "a1"):
        storage.client("delete", f"{storage.url}::{name}")
    for archive in storage.archives[:2]:
        archive["requested"] = True
    (storage.source / "file3").unlink(missing_ok=True)
    storage.wait()
    storage.tell()
    storage.settings["compact_share"] = 0
    return storage, save(storage)


@pytest.fixture
def struck(storage: Storage) -> tuple[Storage, str]:
    """A repository in which everything was deleted, held, and saved."""
    for name in sorted(storage.names()):
        storage.client("delete", f"{storage.url}::{name}")
    storage.wait()
    assert storage.told_and_run()["state"] == "held"
    return storage, save(storage)


def test_a_full_disk_is_told(storage, monkeypatch):
    storage.write("more", 8)
    storage.back_up("more")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "x")

    monkeypatch.setattr(guard.os, "link", full)
    report = storage.told_and_run()
    assert report["state"] == "held" and report["reasons"][0]["code"] == "space"
    monkeypatch.undo()
    assert storage.told_and_run()["state"] == "ok"


@pytest.mark.parametrize("moment", ["0.15", "0.35"])
def test_a_compact_that_is_killed_is_ended_by_the_next_run(ready, moment):
    """Borg itself dies at some moment of a compact, with its lock held."""
    storage, _ = ready
    real = storage.settings["borg"]
    killer = storage.base / "killed-borg"
    killer.write_text(f'#!/bin/sh\nexec timeout -s KILL {moment} {real} "$@"\n')
    killer.chmod(0o755)
    storage.settings["borg"] = str(killer)
    storage.run()
    storage.settings["borg"] = real
    report = storage.told_and_run()
    assert report["state"] in ("ok", "compacted"), report
    assert storage.told_and_run()["state"] in ("ok", "compacted")
    assert storage.names() == {"a2"}
    storage.client("check", "--verify-data", storage.url)
