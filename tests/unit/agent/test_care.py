"""Care of archives on a real repository: protected ones survive pruning, deleted ones go, exports are whole."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess

import pytest

from tests.unit.agent.conftest import REPOSITORY, at_rest

KEEP_ONE = "keep_daily: 1\nmatch_archives: '[!+]*'\n"


@pytest.fixture
def archives(backed, stages):
    """Two archives, the older first, of a host that keeps one a day."""

    def back_up():
        found = []
        for number in (1, 2):
            (backed.sources / "number").write_text(str(number))
            backed.configure(f"archive_name_format: one-{number}\nmatch_archives: '[!+]*'\n")
            code, record = backed.run("backup", "--wait")
            assert code == 0, record
            found.append(record["results"][0]["archive"])
        (backed.base / "archives.json").write_text(json.dumps(found))
        backed.configure(KEEP_ONE + "archive_name_format: one-3\n")

    stages.reach("two archives", back_up)
    return json.loads((backed.base / "archives.json").read_text())


def names(backed):
    return sorted(item["name"] for item in backed.run("snapshots")[1]["items"])


def care(backed, action, archive, *more):
    return backed.run("care", action, "--archive", archive, *more)


def test_a_protected_archive_survives_retention_and_is_found_by_its_old_id(backed, archives):
    code, told = care(backed, "protect", archives[0]["id"])
    assert code == 0, told
    assert told["now"]["name"] == "+one-1"
    assert told["now"]["id"] != archives[0]["id"]
    code, again = care(backed, "protect", archives[0]["id"])
    assert (code, again["changed"], again["now"]) == (0, False, told["now"])
    assert backed.run("backup", "--wait")[0] == 0
    at_rest(backed.base)
    assert names(backed) == ["+one-1", "one-3"]
    code, told = care(backed, "unprotect", "+one-1")
    assert (code, told["now"]["name"]) == (0, "one-1")
    backed.configure(KEEP_ONE + "archive_name_format: one-4\n")
    assert backed.run("backup", "--wait")[0] == 0
    at_rest(backed.base)
    assert names(backed) == ["one-4"]


def test_what_the_configuration_would_prune_is_not_called_protected(backed, archives):
    for text in (
        "keep_daily: 1\n",
        "keep_daily: 1\nmatch_archives: '*'\n",
        "keep_daily: 1\nmatch_archives: re:.\n",
    ):
        backed.configure(text)
        code, told = care(backed, "protect", "one-1")
        assert (code, told["error"]["code"]) == (1, "not_protectable"), text
    assert names(backed) == ["one-1", "one-2"]


def test_a_rename_keeps_protection_and_refuses_what_is_no_name(backed, archives):
    for name in ("", "+x", "a/b", "latest", "x.checkpoint", "x.checkpoint.1", "a b", "-x", "ab" * 32, "one-2"):
        code, told = care(backed, "rename", "one-1", f"--name={name}")
        assert (code, told["error"]["code"]) == (2, "usage"), name
    code, told = care(backed, "rename", "one-1", "--name=release", "--check")
    assert (code, told["now"]["name"], names(backed)) == (0, "release", ["one-1", "one-2"])
    assert care(backed, "protect", "one-1")[0] == 0
    code, told = care(backed, "rename", archives[0]["id"], "--name=release-1.0")
    assert (code, told["now"]["name"]) == (0, "+release-1.0")
    code, told = care(backed, "rename", archives[0]["id"], "--name=release-1.0")
    assert (code, told["changed"]) == (0, False)


def test_a_rename_whose_run_was_killed_is_known_afterwards(backed, agent, archives):
    assert care(backed, "protect", archives[1]["id"])[0] == 0
    agent.store(backed.settings, "renames.json", {})
    agent.note_rename(backed.settings, archives[1]["id"], "", "+one-2")  # the run was killed after Borg's work
    code, told = care(backed, "protect", archives[1]["id"])
    assert (code, told["changed"], told["now"]["name"]) == (0, False, "+one-2")


def test_the_changes_after_a_rename_still_refer_to_it(backed, agent, archives):
    agent.store(backed.settings, "canaries.json", {archives[1]["id"]: "ab"})
    base = {"archive": archives[1]["id"], "since": 1.0, "config": "x"}
    begun = {REPOSITORY: {archives[1]["id"]: 2.0}}
    agent.store(backed.settings, "catalogue.json", {REPOSITORY: base, "begun": begun})
    code, told = care(backed, "rename", "one-2", "--name=two")
    assert code == 0, told
    new = told["now"]["id"]
    assert agent.load(backed.settings, "canaries.json")[new] == "ab"
    known = agent.load(backed.settings, "catalogue.json")
    assert (known[REPOSITORY]["archive"], known["begun"]) == (new, {REPOSITORY: {new: 2.0}})


def test_a_delete_says_first_what_it_takes_and_refuses_a_protected_one(backed, archives):
    code, told = care(backed, "delete", archives[0]["id"], "--check")
    assert (code, told["archive"]["name"], names(backed)) == (0, "one-1", ["one-1", "one-2"])
    assert told["frees"] >= 0
    care(backed, "protect", "one-1")
    code, told = care(backed, "delete", archives[0]["id"])
    assert (code, told["error"]["code"]) == (5, "refused")
    code, told = care(backed, "delete", archives[1]["id"])
    assert (code, told["now"], names(backed)) == (0, None, ["+one-1"])
    code, told = care(backed, "delete", archives[1]["id"])
    assert (code, told["error"]["code"]) == (1, "archive_missing")


@pytest.mark.parametrize(("suffix", "flag"), [(".tar", ""), (".tar.gz", "z")])
def test_an_export_is_the_archive_for_root_only_and_overwrites_nothing(
    backed, archives, tmp_path, suffix, flag
):
    target = tmp_path / f"out{suffix}"
    code, told = care(backed, "export", "one-1", "--destination", str(target), "--check")
    assert (code, target.exists(), told["free"] > 0) == (0, False, True)
    code, told = care(backed, "export", "one-1", "--destination", str(target))
    assert code == 0, told
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    data = target.read_bytes()
    assert (told["bytes"], told["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    inside = str(backed.sources / "number").lstrip("/")
    out = subprocess.run(["tar", f"-x{flag}Of", target, inside], check=True, capture_output=True)
    assert out.stdout == b"1"
    code, told = care(backed, "export", "one-2", "--destination", str(target))
    assert (code, told["error"]["code"]) == (5, "refused")
    assert target.read_bytes() == data
    assert [each.name for each in tmp_path.iterdir() if "partial" in each.name] == []


@pytest.mark.parametrize("file", ["out.tar", "/tmp/../x.tar", "/tmp/.tar", "/tmp/x.zip", ""])
def test_an_export_goes_to_a_file_that_is_named_in_full(backed, archives, file):
    code, told = care(backed, "export", "one-1", f"--destination={file}")
    assert (code, told["error"]["code"]) == (2, "usage")


def test_an_export_through_a_link_that_a_user_made_is_refused(backed, archives, tmp_path):
    open_to_all = tmp_path / "shared"
    open_to_all.mkdir(mode=0o777)
    open_to_all.chmod(0o777)
    (tmp_path / "real").mkdir()
    link = open_to_all / "link"
    link.symlink_to(tmp_path / "real")
    os.lchown(link, 65534, 65534)
    code, told = care(backed, "export", "one-1", "--destination", str(link / "x.tar"))
    assert (code, told["error"]["code"]) == (5, "refused")
    assert list((tmp_path / "real").iterdir()) == []


def test_what_a_killed_export_left_is_taken_away(backed, agent, archives, tmp_path):
    part = tmp_path / ".x.tar.0000.saveos-partial"
    part.write_bytes(b"half")
    agent.store(backed.settings, "export.json", {"partial": str(part), "run_id": "no"})
    assert care(backed, "export", "one-1", "--destination", str(tmp_path / "x.tar"))[0] == 0
    assert not part.exists()
    assert (tmp_path / "x.tar").exists()
