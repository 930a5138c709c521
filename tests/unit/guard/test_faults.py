"""Guard and undo are killed, or find the disk full, at each step: no repository is harmed, and they go on."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.guarded import CHECKOUT, REPOSITORY, Storage, load

guard = load()
PAGE = 4096

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


def save(storage: Storage, place: Path) -> str:
    """Save everything, to try many faults from one state."""
    saved = str(place / "saved")
    Path(saved).mkdir()
    subprocess.run(
        ["cp", "-a", *(str(storage.base / part) for part in ("root", "state", "client")), saved], check=True
    )
    return saved


def tried(every: Sequence[int], few: int) -> Iterator[int]:
    """Which faults are tried: all by SAVEOS_TEST_ALL, else a few over all of them."""
    if not os.environ.get("SAVEOS_TEST_ALL"):
        every = [every[round(part * (len(every) - 1) / (few - 1))] for part in range(few)]
    for number, each in enumerate(every, 1):
        print(f"{number} of {len(every)}: {each}", flush=True)
        yield each


def check_run(storage: Storage, count: int) -> None:
    """After a run that met a fault: the repository is whole, and the next run does it all."""
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


def check_undo(storage: Storage, count: int) -> None:
    """After an undo that met a fault: nothing was begun, or the next run ends it."""
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


@pytest.mark.parametrize("fault", ["kill", "full"])
def test_a_run_with_a_fault_at_each_step_harms_nothing(storage, fault, tmp_path):
    prepare_run(storage)
    saved = save(storage, tmp_path)
    code, steps, said = act(storage, "run", "none", 0)
    assert code == 0 and "compacted" in said and steps > 40, said
    for count in tried(range(1, steps + 1), 4):
        reset(storage, saved)
        act(storage, "run", fault, count)
        check_run(storage, count)


@pytest.mark.parametrize("fault", ["kill", "full"])
def test_an_undo_with_a_fault_at_each_step_harms_nothing(storage, fault, tmp_path):
    prepare_undo(storage)
    saved = save(storage, tmp_path)
    code, steps, said = act(storage, "undo", "none", 0)
    assert code == 0 and "done" in said and steps > 20, said
    for count in tried(range(1, steps + 1), 4):
        reset(storage, saved)
        act(storage, "undo", fault, count)
        check_undo(storage, count)


@pytest.mark.parametrize("verb", ["run", "undo"])
def test_a_file_system_that_is_really_full_harms_nothing(small, verb, tmp_path):
    """Everything lies on a small file system, of which so many pages are left."""
    prepare, check = (prepare_run, check_run) if verb == "run" else (prepare_undo, check_undo)
    prepare(small)
    saved, full = save(small, tmp_path), 0
    for pages in tried([*range(20), *range(20, 200, 15)], 2):
        reset(small, saved)
        fill = small.base / "fill"
        with fill.open("wb", buffering=0) as file:
            os.posix_fallocate(file.fileno(), 0, (os.statvfs(small.base).f_bavail - 500) * PAGE)
            file.seek(0, os.SEEK_END)
            with pytest.raises(OSError, match="No space left"):
                while file.write(bytes(PAGE)):
                    pass
            file.truncate(file.tell() - pages * PAGE)
            os.fsync(file.fileno())
        _, _, said = act(small, verb, "none", 0)
        full += "space" in said or "No space left" in said
        fill.unlink()
        check(small, pages)
    assert full


@pytest.fixture(params=["tmpfs", *(["ext4"] if os.environ.get("SAVEOS_TEST_ALL") else [])])
def small(request: pytest.FixtureRequest, tmp_path: Path, three_archives: Storage) -> Iterator[Storage]:
    """A storage server on a file system of its own, small enough to be filled.

    It is larger than the 545 MB that Borg must see free before it compacts.
    """
    place, disk = tmp_path / "small", tmp_path / "disk"
    place.mkdir()
    words = ["-t", "tmpfs", "-o", "size=640m", "tmpfs"]
    if request.param == "ext4":
        with disk.open("wb") as file:
            file.truncate(700 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", disk], check=True)
        words = ["-o", "loop", str(disk)]
    if subprocess.run(["mount", *words, place], check=False).returncode:
        pytest.skip("a file system can be mounted only by root")
    try:
        yield Storage(place, three_archives.borg_path, like=three_archives)
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def prepare_run(storage: Storage) -> None:
    """Make a repository of which a run takes a copy and compacts."""
    for name in ("a0", "a1"):
        storage.client("delete", f"{storage.url}::{name}")
    for archive in storage.archives[:2]:
        archive["requested"] = True
    storage.wait()
    storage.tell()
    storage.settings["compact_share"] = 0


def prepare_undo(storage: Storage) -> None:
    """Make a repository in which everything was deleted, and held."""
    for name in sorted(storage.names()):
        storage.client("delete", f"{storage.url}::{name}")
    storage.wait()
    assert storage.told_and_run()["state"] == "held"


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


def test_a_repository_that_cannot_be_looked_at_does_not_end_the_run(storage, monkeypatch):
    """A new one on a full disk has no place for its copies; in another's a file cannot be read."""
    (storage.base / "root/repositories/r0").mkdir()
    makedirs, lstat = os.makedirs, os.lstat

    def full(path, *arguments, **options):
        if path.endswith("/.guard/r0"):
            raise OSError(errno.ENOSPC, "No space left on device", path)
        return makedirs(path, *arguments, **options)

    def broken(path, *arguments, **options):
        if "/.guard/r1/" in str(path):
            raise OSError(errno.EIO, "Input/output error", path)
        return lstat(path, *arguments, **options)

    storage.told_and_run()
    monkeypatch.setattr(guard.os, "makedirs", full)
    monkeypatch.setattr(guard.os, "lstat", broken)
    found = {each["id"]: each for each in guard.run(storage.settings, [], time.time())["repositories"]}
    assert {name: each["state"] for name, each in found.items()} == {"r0": "held", "r1": "held"}
    assert [each["reasons"][0]["code"] for each in found.values()] == ["space", "copy"]
    assert len(found["r1"]["copies"]) == 1, "what was known of it"


def test_an_undo_on_a_full_disk_leaves_a_repository_in_its_place(storage, monkeypatch):
    """What needs space comes before the old state is moved away: hosts are never without a repository."""
    prepare_undo(storage)
    nonce = storage.path / "nonce"
    raised = f"{int(nonce.read_text(), 16) + 5:016x}"
    nonce.write_text(raised)

    def full(path: str, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", path)

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["saveos_guard.undo"], "write", full)
        with pytest.raises(OSError, match="No space left"):
            storage.undo()
    assert (storage.path / "config").exists()
    assert storage.told_and_run()["state"] == "ok"
    assert nonce.read_text() == raised
    storage.mend()
    assert storage.names() == {"a0", "a1", "a2"}


@pytest.mark.parametrize("moment", ["0.15", "0.35"])
def test_a_compact_that_is_killed_is_ended_by_the_next_run(storage, moment):
    """Borg itself dies at some moment of a compact, with its lock held."""
    prepare_run(storage)
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
