"""An archive against the host as it is, with the real borg: names of any bytes, and no file is opened."""

from __future__ import annotations

import base64
import os
import socket


def back_up(backed):
    code, record = backed.run("backup", "--wait")
    assert code == 0, record


def differences(backed, *more):
    code, told = backed.run("compare", *more)
    assert code == 0, told
    top = str(backed.sources)
    found = {each["path"].removeprefix(top): (each["kind"], each["what"]) for each in told["differences"]}
    return told, found


def test_nothing_differs_right_after_a_backup(backed):
    backed.configure("exclude_patterns: ['*.tmp']\n")
    (backed.sources / "left-out.tmp").write_text("x")
    os.link(backed.sources / "plain", backed.sources / "sub" / "again")
    (backed.sources / os.fsdecode(b"odd\xff")).write_text("x")
    back_up(backed)
    told, found = differences(backed)
    assert found == {}
    assert (told["more"], told["compared"] > 6) == (0, True)


def test_what_was_added_removed_and_modified_is_told_with_sizes(backed):
    backed.configure("exclude_patterns: ['*.tmp']\n")
    for name in (b"gone", b"gone\xff", b"content", b"mode", b"type", b"touched"):
        (backed.sources / os.fsdecode(name)).write_bytes(b"1234")
    back_up(backed)
    (backed.sources / "gone").unlink()
    (backed.sources / os.fsdecode(b"gone\xff")).unlink()
    (backed.sources / "content").write_bytes(b"123456")
    (backed.sources / "mode").chmod(0o4711)
    (backed.sources / "type").unlink()
    (backed.sources / "type").symlink_to("plain")
    os.utime(backed.sources / "touched", (1, 1))
    (backed.sources / "new").mkdir()
    (backed.sources / "new" / "line\nfeed").write_bytes(b"xyz")
    for name in (b"odd\xff", b"odd\xfe"):  # Borg prints both alike
        (backed.sources / "new" / os.fsdecode(name)).write_bytes(b"1")
    (backed.sources / "new" / "skip.tmp").write_bytes(b"x")
    told, found = differences(backed)
    assert found.pop("/gone\ufffd", found.pop("/gone?", None)) == ("removed", "")
    assert found.pop("", ("modified", "")) == ("modified", "")
    assert found == {
        "/gone": ("removed", ""),
        "/content": ("modified", "content"),
        "/mode": ("modified", "mode"),
        "/type": ("modified", "type"),
        "/touched": ("modified", "content"),
        "/new": ("added", ""),
        "/new/line\nfeed": ("added", ""),
        "/new/odd\ufffd": ("added", ""),
    }
    assert (told["added"], told["removed"]) == ({"files": 4, "bytes": 5}, {"files": 2, "bytes": 8})
    by_path = {each["path"]: each for each in told["differences"]}
    changed = by_path[f"{backed.sources}/content"]
    assert (changed["size"], changed["now"]) == (4, 6)
    ref = by_path[f"{backed.sources}/new/line\nfeed"]["ref"]
    assert base64.urlsafe_b64decode(ref + "==").endswith(b"/new/line\nfeed")
    _, found = differences(backed, "--path", f"{backed.sources}/new")
    assert set(found) == {"/new", "/new/line\nfeed", "/new/odd\ufffd"}


def test_only_the_first_paths_travel_and_all_are_counted(backed, agent, monkeypatch):
    back_up(backed)
    for number in range(30):
        (backed.sources / f"{number:03}").write_bytes(b"12")
    monkeypatch.setattr(agent, "SHOWN", 10)
    told = agent.compare(backed.settings, backed.settings.repository(""), "latest", "/")
    assert (told["added"], len(told["differences"]), told["more"]) == ({"files": 30, "bytes": 60}, 10, 20)


def test_what_the_configuration_leaves_out_in_any_way_is_not_called_added(backed, agent):
    top, patterns, excludes = backed.sources, backed.base / "patterns", backed.base / "excludes"
    patterns.write_text(f"# one more\nR {backed.base}/more\n+ {top}/logs/kept.log\n- {top}/logs\n")
    excludes.write_text("\n# these\n*/cache\npp:sources/never\n")
    for name in ("tagged", "logs", "cache", "listed", "odd [x]"):
        (top / name).mkdir()
    (backed.base / "more").mkdir()
    (top / "tagged" / ".nobackup").touch()
    backed.configure(
        f"exclude_if_present: [.nobackup]\nkeep_exclude_tags: true\npatterns: ['! {top}/listed']\n"
        f"patterns_from: [{patterns}]\nexclude_from: [{excludes}]\n"
        "extra_borg_options:\n  create: --exclude '*.bak' --filter E\n"
    )
    back_up(backed)
    left_out = ("tagged/new", "logs/new.log", "cache/new", "listed/new", "new.bak")
    for name in (*left_out, "logs/kept.log", "odd [x]/new"):
        (top / name).write_text("new")
    (backed.base / "more" / "new").write_text("new")
    with socket.socket(socket.AF_UNIX) as listening:  # Borg archives none, though its dry run tells of it
        listening.bind(str(top / "socket"))
        told = differences(backed)[0]
    assert {each["path"] for each in told["differences"] if each["kind"] != "modified"} == {
        f"{top}/logs/kept.log",
        f"{top}/odd [x]/new",
        f"{backed.base}/more/new",
    }
    assert agent.sources_of({"exclude_nodump": True, "one_file_system": True}).flags == [
        "--exclude-nodump",
        "--one-file-system",
    ]


def test_files_are_found_where_relative_sources_and_stripped_ones_are(backed):
    kept = backed.base / "shelf" / "kept"
    kept.mkdir(parents=True)
    (kept / "same").write_text("same")
    backed.configure(f"working_directory: {backed.base}\n")
    text = backed.config.read_text()
    backed.config.write_text(text.replace(f"- {backed.sources}\n", f"- sour*\n- {kept.parent}/./kept\n"))
    back_up(backed)
    assert differences(backed)[1] == {}
    (backed.sources / "plain").write_text("changed")
    (kept / "new").write_text("new")
    told, _ = differences(backed)
    found = {(each["kind"], each["path"]) for each in told["differences"]}
    assert found >= {("modified", "/sources/plain"), ("added", "/kept/new")}
    assert {kind for kind, _ in found} == {"modified", "added"}
    backed.configure("extra_borg_options:\n  create: --no-such-option\n")
    code, told = backed.run("compare")
    assert (code != 0, told["error"]["code"]) == (True, "compare_failed")
    assert "no-such-option" in told["error"]["message"]
