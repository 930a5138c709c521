"""Cleanup: the walker removes only old files below its root; rules that reach too far are refused."""

import json
import mmap
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.saveos.fleet.plugins.module_utils import cleanup_commands as commands
from ansible_collections.saveos.fleet.plugins.module_utils import cleanup_rules as rules
from ansible_collections.saveos.fleet.plugins.module_utils import cleanup_walk as walk
from ansible_collections.saveos.fleet.plugins.modules import cleanup
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

LATER = time.time() + 100 * walk.DAY  # so that what a test makes now is old


def state(root: Path) -> dict[str, tuple[Any, ...]]:
    """Everything below a directory: kind, mode, size, content and times."""
    found: dict[str, tuple[Any, ...]] = {}
    for place, folders, files in os.walk(root):
        for name in folders + files:
            path = f"{place}/{name}"
            info = os.lstat(path)
            content = Path(path).read_bytes() if stat.S_ISREG(info.st_mode) else b""
            found[path] = (
                info.st_mode,
                info.st_ino,
                info.st_nlink,
                info.st_mtime_ns,
                info.st_ctime_ns,
                content,
            )
    return found


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def run(root: Path, patterns: tuple[str, ...] = ("*",), before: float = LATER, **options: Any) -> walk.Tally:
    return walk.Walk(str(root), list(patterns), before, **options).run()


def test_trap_tree_is_untouched_but_for_what_is_old_and_plain(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "precious").write_text("precious")
    (root / "to-outside").symlink_to(outside)
    (root / "to-file").symlink_to(outside / "precious")
    (root / "two\nlines; rm -rf x").write_text("old")
    (root / "-rf").write_text("old")
    (root / b"\xff".decode("utf-8", "surrogateescape")).write_text("old")
    os.link(outside / "precious", root / "hard")
    os.mkfifo(root / "pipe")
    (root / "deep").mkdir()
    (root / "deep/inner").write_text("old")
    (root / "kept").mkdir()
    (root / "kept/secret").write_text("protected")
    held = (root / "held").open("w")
    before = state(tmp_path)
    options = {"directories": True, "protected": [str(root / "kept")], "open": walk.open_files()}
    plan = run(root, **options)
    assert state(tmp_path) == before  # a check changes nothing
    done = run(root, remove=True, **options)
    held.close()
    assert (done.files, done.bytes, done.directories) == (plan.files, plan.bytes, plan.directories) == (
        4, done.bytes, 1,
    )  # fmt: skip
    assert (done.freed_files, done.freed_bytes) == (4, plan.bytes)
    assert done.skipped == {"link": 2, "hard": 1, "odd": 1, "open": 1}
    assert names(root) == ["hard", "held", "kept", "pipe", "to-file", "to-outside"]
    assert (outside / "precious").read_text() == "precious"
    assert (root / "kept/secret").exists()
    assert run(root, remove=True, **options).freed_files == 0  # a second run has nothing to do


def test_mapped_file_counts_as_open(tmp_path: Path) -> None:
    path = tmp_path / "a\nname"
    path.write_bytes(b"x" * 5000)
    with path.open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
    assert run(tmp_path, remove=True, open=walk.open_files()).skipped == {"open": 1}
    mapped.close()
    assert run(tmp_path, remove=True, open=walk.open_files()).freed_files == 1


def test_fresh_files_stay(tmp_path: Path) -> None:
    old = tmp_path / "a"
    old.write_text("x")
    os.utime(old, (0, 0))  # an old time of its own does not make a file old: it was changed just now
    assert run(tmp_path, before=time.time() - 60, remove=True).skipped == {"fresh": 1}
    assert old.exists()


def test_root_over_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/file").write_text("x")
    (tmp_path / "link").symlink_to("real")
    for root in (tmp_path / "link", tmp_path / "link/../real"):
        with pytest.raises(walk.Refused):
            run(root, remove=True)
    assert run(tmp_path / "missing").files == 0
    assert (tmp_path / "real/file").exists()


def test_protected_root_is_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert run(tmp_path, remove=True, protected=[str(tmp_path.parent)]).files == 0


def test_whole_trees_go_only_when_all_of_them_may(tmp_path: Path) -> None:
    for name in ("used", "unused"):
        (tmp_path / name / "chunks").mkdir(parents=True)
        (tmp_path / name / "chunks/a").write_text("x" * 5000)
    os.link(tmp_path / "used/chunks/a", tmp_path / "used/other")
    (tmp_path / "file").write_text("at the top: no tree")
    plan = run(tmp_path, trees=True)
    done = run(tmp_path, trees=True, remove=True)
    assert names(tmp_path) == ["file", "used"]
    assert plan.files == done.freed_files == 1
    assert plan.bytes == done.freed_bytes > 0


def test_the_oldest_go_first_beyond_a_size(tmp_path: Path) -> None:
    for day, name in enumerate(("a@1.journal", "b@2.journal", "c@3.journal", "now.journal")):
        path = tmp_path / "machine" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * 8192)
        os.utime(path, (day, day))
    plan = run(tmp_path, ("*@*.journal",), before=0, keep_bytes=2 * 8192)
    assert (plan.files, plan.paths) == (1, [str(tmp_path / "machine/a@1.journal")])
    done = run(tmp_path, ("*@*.journal",), before=0, keep_bytes=2 * 8192, remove=True)
    assert done.freed_bytes == plan.bytes == 8192
    assert names(tmp_path / "machine") == ["b@2.journal", "c@3.journal", "now.journal"]


def test_a_tree_that_is_too_deep_is_left(tmp_path: Path) -> None:
    place = tmp_path
    for _ in range(walk.DEEPEST + 5):
        place /= "d"
    place.mkdir(parents=True)
    (place / "file").write_text("x")
    assert run(tmp_path, remove=True).skipped == {"deep": 1}
    assert (place / "file").exists()


NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=8
).filter(lambda name: name not in (".", ".."))
KINDS = st.sampled_from(["file", "link", "hard", "fifo", "directory"])


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    entries=st.lists(st.tuples(st.lists(NAMES, max_size=3), NAMES, KINDS), max_size=25),
    directories=st.booleans(),
)
def test_any_tree_frees_what_the_plan_said_and_nothing_outside(
    tmp_path_factory: pytest.TempPathFactory, entries: Any, directories: bool
) -> None:
    base = tmp_path_factory.mktemp("any")
    root, outside = base / "root", base / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "precious").write_text("precious")
    for way, name, kind in entries:
        place = root.joinpath(*way)
        try:
            if not place.resolve().is_relative_to(root):
                continue  # over a link that is there already
            place.mkdir(parents=True, exist_ok=True)
            target = place / name
            if os.path.lexists(target):
                continue
            if kind == "file":
                target.write_text("x" * 100)
            elif kind == "link":
                target.symlink_to(outside)
            elif kind == "hard":
                os.link(outside / "precious", target)
            elif kind == "fifo":
                os.mkfifo(target)
            else:
                target.mkdir()
        except OSError:
            continue  # a name that is there already, or too long
    before = state(base)
    plan = run(root, directories=directories)
    assert state(base) == before
    done = run(root, directories=directories, remove=True)
    after = state(base)
    gone = [path for path in before if path not in after]
    files = [path for path in gone if stat.S_ISREG(before[path][0])]
    assert all(path.startswith(f"{root}/") for path in gone)
    assert all(before[path][2] == 1 for path in files)  # nothing with several names
    assert len(files) == plan.files == done.freed_files
    assert plan.bytes == done.freed_bytes
    assert len(gone) - len(files) == plan.directories == done.directories
    assert (outside / "precious").read_text() == "precious"
    again = run(root, directories=directories)
    assert (again.files, again.directories) == (0, 0)


GOOD = {"name": "app-cache", "root": "/var/cache/app", "patterns": ["*.tmp"]}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"root": "/"}, "would match everything"),
        ({"root": "//"}, "plain absolute path"),
        ({"root": "/var/cache/.."}, "plain absolute path"),
        ({"root": "/var/cache/../../etc"}, "plain absolute path"),
        ({"root": "relative"}, "plain absolute path"),
        ({"root": "~"}, "plain absolute path"),
        ({"root": "/etc"}, "/etc, which is protected"),
        ({"root": "/etc/app"}, "/etc, which is protected"),
        ({"root": "/var"}, "which is protected"),
        ({"root": "/srv/app"}, "outside what may be cleaned"),
        ({"root": "/var/cachex"}, "outside what may be cleaned"),
        ({"root": "~/.ssh"}, "outside what may be cleaned"),
        ({"root": "/var/cache/a\nb"}, "plain absolute path"),
        ({"root": 7}, "plain absolute path"),
        ({"patterns": []}, "needs patterns"),
        ({"patterns": ["/etc/*"]}, "matched below the root"),
        ({"patterns": ["../*"]}, "leads out of the root"),
        ({"patterns": "*"}, "needs patterns"),
        ({"min_age_days": 0}, "min_age_days"),
        ({"min_age_days": True}, "min_age_days"),
        ({"kind": "containers"}, "kind must be"),
        ({"name": "Bad Name"}, "name must be"),
        ({"name": "tmp"}, "is there already"),
        ({"shell": "rm"}, "which no rule has"),
    ],
)
def test_rule_that_reaches_too_far_is_refused(change: Any, says: str) -> None:
    with pytest.raises(rules.RuleError, match=says):
        rules.custom(GOOD | change, rules.ALLOWED, rules.PROTECTED, ["tmp"])


def test_good_rules_are_taken() -> None:
    keep = [*rules.PROTECTED, "/var/cache/app/keep"]
    assert (
        rules.custom(GOOD, rules.ALLOWED, keep).name == "app-cache"
    )  # the walk leaves what is protected inside
    assert rules.custom(GOOD, rules.ALLOWED, rules.PROTECTED).root == "/var/cache/app"
    assert rules.custom(GOOD | {"root": "~/.cache/app"}, rules.ALLOWED, rules.PROTECTED).users
    assert rules.custom(GOOD | {"root": "/srv/app"}, [*rules.ALLOWED, "/srv/app"], rules.PROTECTED).custom


@given(root=st.text(st.sampled_from("/.~a\n"), max_size=12))
def test_no_root_gets_past_the_allow_list(root: str) -> None:
    try:
        rule = rules.custom(GOOD | {"root": root}, rules.ALLOWED, rules.PROTECTED)
    except rules.RuleError:
        return
    raise AssertionError(f"{rule.root!r} was taken")


@pytest.mark.parametrize("path", ["/", "/etc", "/etc/app", "/var", "/home", "/usr/share", "x", "/srv/../etc"])
def test_allow_list_cannot_be_widened_over_the_system(path: str) -> None:
    with pytest.raises(rules.RuleError):
        rules.check_allowed(path)


def test_builtin_rules_lie_nowhere_protected() -> None:
    found = rules.builtin("/var/lib/saveos-agent")
    assert len({rule.name for rule in found}) == len(found)
    for rule in found:
        assert rules.NAME.fullmatch(rule.name)
        assert rules.plain(rule.root)
        assert not any(rules.below(rule.root, each) for each in rules.PROTECTED), rule.name


OPTIONS = {
    "kinds": list(rules.KINDS),
    "rules": [],
    "older_than_days": -1,
    "journal_bytes": 0,
    "custom": [],
    "allowed": [],
    "protected": [],
    "state_dir": "/nowhere",
    "warn_bytes": 10**12,
}


def clean(check: bool, **options: Any) -> tuple[Any, dict[str, Any]]:
    made = cleanup.Cleanup(OPTIONS | options, check, LATER)
    return made, made.run()


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory that may be cleaned, and nothing else that a rule finds; not below /dev, as memory is."""
    monkeypatch.setattr(rules, "builtin", lambda state: [])
    monkeypatch.setattr(rules, "COMMANDS", {})
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        monkeypatch.setattr(rules, "ALLOWED", (directory,))
        yield Path(directory)


def test_a_run_frees_what_the_check_said_and_a_second_has_nothing_to_do(cache: Path) -> None:
    for name in ("a.tmp", "b.tmp", "c.txt"):
        (cache / name).write_text("x" * 6000)
    custom = [GOOD | {"root": str(cache)}]
    planned, check = clean(True, custom=custom)
    assert planned.changed
    _, result = clean(False, custom=custom)
    assert check["summary"] == {"planned_bytes": 16384, "freed_bytes": 0, "files": 2, "app-cache_bytes": 16384}
    assert result["summary"] == {
        "planned_bytes": 16384,
        "freed_bytes": 16384,
        "files": 2,
        "app-cache_bytes": 16384,
    }
    assert [(each["id"], each["fixable"], each["fixed"]) for each in result["findings"]] == [
        ("app-cache", True, True)
    ]
    again, second = clean(False, custom=custom)
    assert (again.changed, second["findings"]) == (False, [])
    assert names(cache) == ["c.txt"]


def test_refused_rules_are_findings_and_do_nothing(cache: Path) -> None:
    (cache / "a.tmp").write_text("x")
    custom = [
        GOOD | {"root": "/"},
        GOOD | {"root": "/etc"},
        "text",
        GOOD | {"root": str(cache), "patterns": ["../*"]},
    ]
    made, result = clean(False, custom=custom, allowed=["/"], protected=["../x"], rules=["app-cache", "nope"])
    assert not made.changed
    assert {(each["id"], each["subject"]) for each in result["findings"]} == {
        ("rule-refused", "app-cache"),
        ("rule-refused", "text"),
        ("allowed-path", "/"),
        ("protected-path", "../x"),
        ("unknown-rule", "app-cache"),
        ("unknown-rule", "nope"),
    }
    assert (cache / "a.tmp").exists()


def test_a_part_of_the_rules_judges_only_that_part(cache: Path) -> None:
    assert clean(True)[1]["judged"] is None
    custom = [GOOD | {"root": str(cache)}]
    assert "app-cache" in clean(True, custom=custom, rules=["app-cache"])[1]["judged"]


def test_lock_of_another_process_is_seen_without_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    assert not cleanup.is_locked(str(path))
    code = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, 2); print(1, flush=1); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        before = state(tmp_path)
        assert cleanup.is_locked(str(path))
        holder.communicate("\n")
    assert not cleanup.is_locked(str(path))
    assert not cleanup.is_locked(str(tmp_path / "none"))
    assert state(tmp_path) == before


def answer(stdout: str = "", code: int = 0) -> SimpleNamespace:
    return SimpleNamespace(stdout=stdout, stderr="told so", returncode=code)


def test_running_and_newest_kernels_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []
    files = {}
    for number in (9, 10, 11, 12):
        files[number] = tmp_path / f"vmlinuz-6.1.0-{number}"
        files[number].write_bytes(b"x" * 4096)

    def fake(words: list[str], **_: Any) -> SimpleNamespace:
        asked.append(words)
        if words[0] == "dpkg-query":
            return answer("".join(f"linux-image-6.1.0-{n}-amd64 ii \n" for n in (10, 9, 11, 12)))
        if words[0] == "dpkg":
            return answer(f"{files[int(words[-1].split('-')[3])]}\n/\n")
        if "-s" in words:
            return answer("".join(f"Remv {each} [1]\n" for each in words if each.startswith("linux-image")))
        for word in words:
            if word.startswith("linux-image"):
                files[int(word.split("-")[3])].unlink()
        return answer()

    monkeypatch.setattr(commands, "run", fake)
    monkeypatch.setattr(commands.shutil, "which", lambda name: name)
    plan = commands.old_kernels(0, "6.1.0-9-amd64")
    assert [(item.name, item.bytes) for item in plan.items] == [("linux-image-6.1.0-10-amd64", 4096)]
    assert plan.carry_out() == ([4096], [])
    assert commands.old_kernels(0, "6.9-own") is None


def test_kernels_that_would_take_more_along_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(words: list[str], **_: Any) -> SimpleNamespace:
        if words[0] == "dpkg-query":
            return answer("".join(f"linux-image-6.1.0-{n}-amd64 ii \n" for n in (9, 10, 11, 12)))
        return answer("Remv linux-image-6.1.0-9-amd64 [1]\nRemv openssh-server [1]\n")

    monkeypatch.setattr(commands, "run", fake)
    monkeypatch.setattr(commands.shutil, "which", lambda name: name)
    plan = commands.old_kernels(0, "6.1.0-12-amd64")
    assert plan.items == []
    assert "openssh-server" in plan.errors[0]


def test_untagged_docker_images_that_are_old_and_unused_go(monkeypatch: pytest.MonkeyPatch) -> None:
    base = {
        "Repository": "<none>",
        "Tag": "<none>",
        "Containers": "0",
        "CreatedAt": "2020-01-01 10:00:00 +0000 UTC",
    }
    images = [
        base | {"ID": "a" * 12, "UniqueSize": "12.5MB"},
        base | {"ID": "b" * 12, "UniqueSize": "1GB", "Containers": "1"},
        base | {"ID": "c" * 12, "UniqueSize": "1GB", "Tag": "latest", "Repository": "app"},
        base | {"ID": "d" * 12, "UniqueSize": "1GB", "CreatedAt": "2999-01-01 10:00:00 +0000 UTC"},
        base | {"ID": "--all", "UniqueSize": "1GB"},
    ]
    removed = []

    def fake(words: list[str], **_: Any) -> SimpleNamespace:
        if words[1] == "rmi":
            removed.append(words[2])
            return answer()
        return answer(json.dumps(images))

    monkeypatch.setattr(commands, "run", fake)
    monkeypatch.setattr(commands.shutil, "which", lambda name: name)
    plan = commands.PLANS["docker-images"](time.time())
    assert [(item.name, item.bytes) for item in plan.items] == [("a" * 12, 12_500_000)]
    assert plan.carry_out() == ([12_500_000], [])
    assert removed == ["a" * 12]
    monkeypatch.setattr(commands, "run", lambda words, **_: answer("no json"))
    assert commands.PLANS["docker-images"](0.0).errors
