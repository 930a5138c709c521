"""Restores by the real borg: what comes back, where to, what is in its way, and what a kill does."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from .conftest import CHECKOUT, PASSPHRASE, REPOSITORY

RUN = "0193bbbb-0000-7000-8000-000000000001"
FROM = ("restore", "--wait", "--archive", "latest")


def odd_tree():
    """The lab's maker and judge of odd trees."""
    spec = importlib.util.spec_from_file_location("odd_tree", CHECKOUT / "tests/lab/odd_tree.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def restored(backed, *arguments, state="succeeded"):
    record = backed.run(*FROM, *arguments)[1]
    assert record.get("state") == state, record
    assert not list(backed.base.rglob("*.saveos-partial"))
    assert not list((backed.base / "state").glob("restoring/*"))
    return record["restore"]


def test_an_odd_tree_comes_back_equal_in_place_and_elsewhere(backed):
    judge, tree = odd_tree(), backed.sources / "odd"
    judge.make(os.fsencode(tree))
    before = judge.describe(os.fsencode(tree))
    assert backed.run("backup", "--wait")[0] == 0
    told = restored(backed, f"--destination={backed.base / 'else'}")
    assert (told["verified"], told["failed_total"]) == (True, 0)
    assert judge.describe(os.fsencode(backed.base / "else") + os.fsencode(tree)) == before

    shutil.rmtree(tree / "names")
    (tree / "kinds" / "big").write_text("spoiled")
    (tree / "kinds" / "big").chmod(0o600)
    os.utime(tree / "kinds", (1, 1))
    os.removexattr(tree / "kinds", "user.directory")
    told = restored(backed, "--in-place", "--conflict=overwrite", f"--path={tree}")
    assert (told["verified"], told["in_place"], told["failed_total"]) == (True, True, 0)
    after = judge.describe(os.fsencode(tree))
    assert {path for path in before if before[path] != after.get(path)} == set()
    assert after == before


@pytest.mark.parametrize(
    ("rule", "plain", "others", "counts"),
    [
        ("skip", "mine", [], (1, 0, 1, 0)),
        ("rename", "mine", ["plain.restored"], (1, 0, 0, 1)),
        ("overwrite", "plain\n", [], (1, 1, 0, 0)),
        ("newer", "plain\n", [], (1, 1, 0, 0)),
    ],
)
def test_conflict_rules_in_place_and_their_preview(saved, rule, plain, others, counts):
    here = saved.sources
    (here / "plain").write_text("mine")
    os.utime(here / "plain", (10, 10))
    (here / "link").unlink()
    arguments = ("--in-place", f"--conflict={rule}", f"--path={here}", f"--exclude={here / 'sub'}")
    arguments += (f"--exclude={here / 'fifo'}",)
    names = ("created", "overwritten", "skipped", "renamed")
    plan = saved.run("restore", "--check", "--archive", "latest", *arguments)[1]["plan"]
    assert tuple(plan[name] for name in names) == counts
    assert {entry["path"]: entry["action"] for entry in plan["entries"]}[str(here / "link")] == "create"
    assert (plan["fits"], plan["files"]) == (True, 2)
    assert (here / "plain").read_text() == "mine"
    told = restored(saved, *arguments)
    assert tuple(told[name] for name in names) == counts
    assert (here / "plain").read_text() == plain
    assert sorted(path.name for path in here.iterdir()) == sorted(["fifo", "link", "plain", "sub", *others])


def test_a_preview_looks_at_the_file_system_to_which_it_goes(agent, backed):
    """Not at that of / where what goes back in place is on another one."""

    def near(**asked):
        return agent.RestoreRequest(RUN, "", "host", "", "latest", **asked).near(backed.settings)

    paths = ("/srv/a/x/deep", "/srv/a/x", "/srv/a/y")
    assert near(paths=paths, destination="", in_place=True, conflict="skip") == Path("/srv/a")
    assert near(paths=(), destination="", in_place=True, conflict="skip") == Path("/")
    assert near(paths=paths, destination="/mnt/else") == Path("/mnt/else")


def test_how_far_an_extraction_is_is_told_without_borg_counting_first(agent, saved, monkeypatch):
    """Borg's --progress reads the whole list of files once more before the first file."""
    told, words = [], []
    settings = agent.Settings(**{**vars(saved.settings), "controller_url": "http://127.0.0.1:9"})
    run = agent.Run(settings, "restore", RUN, "host", None)
    monkeypatch.setattr(agent.Run, "tell", lambda _self, *each: told.append(each))
    (saved.base / "staged/deep").mkdir(parents=True)
    with agent.watched(run, REPOSITORY, saved.base / "staged", pause=0.01):
        (saved.base / "staged/deep/file").write_bytes(bytes(5000))
        deadline = time.monotonic() + 60
        while not told or told[-1][2]["nfiles"] != 1:
            assert time.monotonic() < deadline, told
            time.sleep(0.01)
    assert told[-1] == ("extract", REPOSITORY, {"nfiles": 1, "original_size": 5000})

    def keep(_settings, _repository, _run_id, _output, *arguments, **_named):
        words.extend(arguments)
        return 0

    monkeypatch.setattr(agent, "run_borg", keep)
    request = agent.RestoreRequest(RUN, "", "host", "", "latest", (), "")
    run.restore = {}
    agent.extract(
        agent.Restoring(settings, request, run, settings.repositories[0], agent.Cancel(), {}), saved.base
    )
    assert words[0] == "extract" and "--progress" not in words


def test_only_newer_leaves_what_is_newer(saved):
    (saved.sources / "plain").write_text("mine, later")
    os.utime(saved.sources / "plain", (time.time() + 100, time.time() + 100))
    told = restored(saved, "--in-place", "--conflict=newer", f"--path={saved.sources / 'plain'}")
    assert (told["skipped"], (saved.sources / "plain").read_text()) == (1, "mine, later")


def test_an_archive_that_is_not_there_is_said_so(saved):
    code, record = saved.run("restore", "--wait", "--archive", "web1-1999", f"--destination={saved.base / 'x'}")
    (result,) = record["results"]
    assert (code, result["error"]["code"]) == (1, "archive_missing")
    assert "saveos-agent snapshots" in result["error"]["fix"]


def test_names_of_any_bytes_by_reference(backed):
    odd = os.fsencode(backed.sources) + b"/latin-\xe9"
    Path(os.fsdecode(odd)).write_text("odd")
    backed.run("backup", "--wait")
    ref = base64.urlsafe_b64encode(odd).decode().rstrip("=")
    told = restored(backed, f"--ref={ref}", f"--destination={backed.base / 'back'}")
    assert (told["files"], told["verified_files"]) == (1, 1)
    assert Path(os.fsdecode(os.fsencode(backed.base / "back") + odd)).read_text() == "odd"


@pytest.mark.skipif(os.geteuid() != 0, reason="files of another user need root")
def test_owners_acls_and_attributes_can_be_left_behind(backed):
    """In place: what is restored has none of them, and a directory that is there keeps its own."""
    acl, tree = odd_tree().ACL, backed.sources / "theirs"
    tree.mkdir()
    for name in ("tool", "gone"):
        (tree / name).write_text(name)
        os.setxattr(tree / name, "user.note", b"archived")
        os.setxattr(tree / name, "system.posix_acl_access", acl)
        os.chown(tree / name, 1234, 1234)
        (tree / name).chmod(0o6755)
    os.chown(tree, 1234, 1234)
    assert backed.run("backup", "--wait")[0] == 0
    (tree / "gone").unlink()
    os.chown(tree, 4321, 4321)
    os.setxattr(tree, "user.note", b"own")
    os.setxattr(tree, "system.posix_acl_access", acl)
    left = ("--no-owners", "--no-acls", "--no-xattrs")
    told = restored(backed, "--in-place", "--conflict=overwrite", f"--path={tree}", *left)
    assert (told["verified"], told["failed_total"], told["overwritten"]) == (True, 0, 1)
    for name in ("tool", "gone"):
        status = (tree / name).stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (0, 0, 0o755)
        assert os.listxattr(tree / name) == []
    assert tree.stat().st_uid == 4321
    assert os.getxattr(tree, "user.note") == b"own" and "system.posix_acl_access" in os.listxattr(tree)
    restored(backed, "--in-place", "--conflict=overwrite", f"--path={tree}", "--no-xattrs")
    status = (tree / "tool").stat()
    assert (status.st_uid, status.st_mode & 0o6000, tree.stat().st_uid) == (1234, 0o6000, 1234)
    assert os.listxattr(tree / "tool") == ["system.posix_acl_access"]


def test_a_destination_with_something_in_it_wants_a_rule(saved):
    target = saved.base / "full"
    (target / str(saved.sources).lstrip("/")).mkdir(parents=True)
    (target / "mine").write_text("mine")
    code, answer = saved.run(*FROM, f"--destination={target}")
    assert (code, "--conflict" in answer["error"]["fix"]) == (5, True)
    told = restored(saved, f"--destination={target}", "--conflict=skip")
    assert told["files"] == 4
    assert (target / "mine").read_text() == "mine"
    assert (target / str(saved.sources).lstrip("/") / "plain").read_text() == "plain\n"


def test_links_below_the_destination_are_never_followed(saved):
    outside, target = saved.base / "outside", saved.base / "target"
    outside.mkdir()
    above = target / str(saved.sources.parent).lstrip("/")
    above.mkdir(parents=True)
    (above / saved.sources.name).symlink_to(outside)
    told = restored(saved, f"--destination={target}", "--conflict=overwrite", state="warning")
    assert told["failed_files"][0]["message"] == "a file or link of that name is in its way"
    assert list(outside.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="a link of another user needs root")
def test_a_link_that_a_user_made_leads_no_restore_away(saved):
    outside, own = saved.base / "outside", saved.base / "own"
    outside.mkdir()
    own.mkdir()
    (own / "way").symlink_to(outside)
    os.chown(own, 12345, 12345)
    os.lchown(own / "way", 12345, 12345)
    code, answer = saved.run(*FROM, f"--destination={own / 'way' / 'x'}")
    text = json.dumps(answer)
    assert code != 0
    assert "symbolic link" in text
    assert list(outside.iterdir()) == []


def hostile(backed, programs):
    """Import a hostile archive into the repository: what no `borg create` makes."""
    buffer = io.BytesIO()
    outside = backed.base / "outside"
    outside.mkdir()
    with tarfile.open(fileobj=buffer, mode="w") as tar:

        def add(name, data=b"", **fields):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            for key, value in fields.items():
                setattr(entry, key, value)
            tar.addfile(entry, io.BytesIO(data))

        add("good", b"good")
        add("out", type=tarfile.SYMTYPE, linkname=str(outside))
        add("out/owned", b"evil")
        add("up", type=tarfile.SYMTYPE, linkname="../../..")
        add("up/owned", b"evil")
        add("../../above", b"evil")
        add("/absolute", b"evil")
        add("hard", type=tarfile.LNKTYPE, linkname="../../../../../../etc/hostname")
        add("device", type=tarfile.CHRTYPE, devmajor=1, devminor=3)
        add("sub", type=tarfile.SYMTYPE, linkname=str(outside))
    borg = {**os.environ, "BORG_PASSPHRASE": PASSPHRASE, "BORG_BASE_DIR": str(backed.base / "state/borg")}
    argv = [programs[0], "import-tar", f"{backed.base / 'repository'}::hostile", "-"]
    subprocess.run(argv, input=buffer.getvalue(), env=borg, check=True, capture_output=True)
    return outside


@pytest.mark.parametrize("rule", ["refuse", "overwrite", "rename"])
def test_nothing_of_a_hostile_archive_leaves_its_destination(backed, programs, rule):
    outside, box = hostile(backed, programs), backed.base / "box"
    target = box / "target"
    box.mkdir()
    if rule != "refuse":
        (target / "sub").mkdir(parents=True)
        (target / "out").symlink_to(outside)
    told = restored(backed, f"--destination={target}", f"--conflict={rule}", state="warning")
    assert list(outside.iterdir()) == []
    assert [path.name for path in box.iterdir()] == ["target"]
    assert (target / "good").read_text() == "good"
    assert not (target / "hard").exists()
    assert {"/out/owned", "/up/owned", "/hard"} <= {item["path"] for item in told["failed_files"]}
    if os.geteuid() == 0:
        assert (target / "device").is_char_device()


def test_a_file_that_was_spoiled_on_the_way_is_named_and_not_moved(saved, agent, monkeypatch):
    real = agent.extract

    def spoil(work, partial):
        result = real(work, partial)
        (partial / str(saved.sources).lstrip("/") / "plain").write_text("spoilt")
        return result

    monkeypatch.setattr(agent, "extract", spoil)
    request = agent.RestoreRequest(RUN, "", "host", "", "latest", (), str(saved.base / "back"))
    agent.restore(agent.load_settings(saved.etc), request, lambda _: None)
    record = agent.find_record(saved.settings, RUN)
    assert (record["state"], record["restore"]["verified"], record["restore"]["verified_files"]) == (
        "warning",
        False,
        1,
    )
    path = str(saved.sources / "plain")
    assert record["restore"]["failed_files"] == [
        {"path": path, "message": "was not restored as the archive holds it"}
    ]
    assert not (saved.base / "back" / path.lstrip("/")).exists()


def die_in_the_middle(agent, etc, request, moment):
    """Run a restore's worker in a process that kills itself after extracting, or between two moves."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    settings, real, moved = agent.load_settings(etc), agent.Mover.entry, []

    def entry(self, *arguments):
        if len(moved) == 100:
            os.kill(os.getpid(), signal.SIGKILL)
        moved.append(arguments)
        real(self, *arguments)

    def compare(self, partial):
        os.kill(os.getpid(), signal.SIGKILL)

    if moment == "moving":
        agent.Mover.entry = entry
    else:
        agent.Hashes.compare = compare
    agent.store(settings, request.state_file, {"request": vars(request), "tries": 0})
    agent.restore(settings, request, lambda _: None)
    os._exit(0)


@pytest.mark.parametrize("moment", ["extracting", "moving"])
def test_a_killed_restore_goes_on_and_does_nothing_twice(saved, agent, moment):
    """Its process is killed; who asks next lets the same run go on to its end, with the right figures."""
    sub = saved.sources / "sub"
    for number in range(300):
        (sub / f"n{number:03}").write_bytes(os.urandom(200))
    saved.run("backup", "--wait")
    moment_of_sub = sub.stat().st_mtime_ns
    shutil.rmtree(sub)
    sub.mkdir()
    for number in range(50):
        (sub / f"n{number:03}").write_text("mine")
    request = agent.RestoreRequest(
        RUN, "", "host", "", "latest", (str(sub),), "", conflict="rename", in_place=True
    )
    assert os.WTERMSIG(die_in_the_middle(agent, saved.etc, request, moment)) == signal.SIGKILL
    assert len(list(sub.iterdir())) == (149 if moment == "moving" else 50)
    code, record = saved.run(*FROM, "--run-id", RUN)
    assert (code, record["state"]) == (0, "succeeded"), record
    assert (record["restore"]["tries"], record["restore"]["verified"]) == (2, True)
    fresh = [f"n{number:03}" for number in range(300)] + [f"n{number:03}.restored" for number in range(50)]
    assert sorted(path.name for path in sub.iterdir()) == sorted([*fresh, "new\nline"])
    assert (record["restore"]["created"], record["restore"]["renamed"]) == (251, 50)
    assert sub.stat().st_mtime_ns != moment_of_sub  # with rename, a directory that is there stays as it is
    assert not list(saved.base.rglob("*.saveos-partial"))
    assert saved.run(*FROM, "--run-id", RUN)[1] == record


def test_a_stopped_restore_stays_stopped(saved):
    slow, known = saved.base / "slow-borg", saved.etc / "agent.json"
    waits = 'case " $* " in *" extract "*) sleep 60 ;; esac'
    slow.write_text(f'#!/bin/sh\n{waits}\nexec {saved.settings.borg} "$@"\n')
    slow.chmod(0o755)
    known.write_text(json.dumps(json.loads(known.read_text()) | {"borg": str(slow)}))
    process = saved.start(*FROM, "--run-id", RUN, f"--destination={saved.base / 'back'}")
    deadline = time.monotonic() + 50
    active = saved.base / "state/active.json"
    while not (active.exists() and RUN in active.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    saved.run("stop", "--run-id", RUN)
    record = json.loads(process.communicate(timeout=240)[0])
    assert (record["state"], (saved.base / "back").exists()) == ("canceled", False)
    assert record["results"][0]["repository_id"] == REPOSITORY


def test_refusals_before_anything_starts(saved):
    assert saved.run(*FROM, "--in-place")[0] == 2
    assert saved.run(*FROM, "--in-place", "--conflict=skip", "--destination=/x")[0] == 2
    assert saved.run(*FROM, "--destination=/a/../b")[0] == 2
    assert saved.run(*FROM, "--exclude=/")[0] == 2


def test_another_file_system_gets_a_copy_with_all_that_belongs_to_it(agent, tmp_path, monkeypatch):
    """Between file systems a rename fails: the same entries are copied, hard links and holes too."""
    judge, tree, goal = odd_tree(), tmp_path / "tree", tmp_path / "goal"
    judge.make(os.fsencode(tree))
    before = judge.describe(os.fsencode(tree))
    goal.mkdir()
    real = agent.rename_entry

    def far(source, name, target, new, replace):
        if not name.startswith(".saveos-"):
            raise OSError(agent.errno.EXDEV, "Invalid cross-device link")
        real(source, name, target, new, replace)

    monkeypatch.setattr(agent, "rename_entry", far)
    failures = agent.Failures(agent.Redactor([]))
    mover = agent.Mover("overwrite", failures, agent.Cancel())
    with agent._both(agent.open_directory("/"), str(tree), agent.open_directory("/"), str(goal)) as (
        source,
        target,
    ):
        times = agent._times(source)
        mover.merge(source, target, "")
        agent.copy_metadata(str(tree), str(goal), times)
    assert failures.known == {}
    assert judge.describe(os.fsencode(goal)) == before
    assert list(tree.iterdir()) == []


@pytest.mark.parametrize("path", ["/out/kept", "/out"])
def test_a_link_of_the_archive_leads_no_restore_in_place_to_what_is_behind_it(backed, programs, agent, path):
    """Chosen through a hostile link: what is behind it is neither read, moved nor removed."""
    outside, box = hostile(backed, programs), backed.base / "box"
    (outside / "kept").write_text("kept")
    (outside / "owned").write_text("mine")
    partial = box / "staged"
    partial.mkdir(parents=True)
    (partial / "out").symlink_to(outside)
    mover = agent.Mover("rename", agent.Failures(agent.Redactor([])), agent.Cancel())
    if path == "/out/kept":
        agent.put_back(mover, partial, [path.lstrip("/")])
    told = restored(backed, f"--destination={box / 'target'}", state="warning")
    assert sorted(entry.name for entry in outside.iterdir()) == ["kept", "owned"]
    assert (outside / "owned").read_text() == "mine"
    assert told["verified"] is False
