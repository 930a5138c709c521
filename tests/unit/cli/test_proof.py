import os
import time

import pytest
from saveos.cli import proof


@pytest.fixture
def tree(tmp_path):
    source = tmp_path / "source"
    for name in ("a/one", "a/two", "cache/x", "own/repository", "b/three"):
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (source / "cache/CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55")
    (source / "link").symlink_to("a/one")
    (source / "odd\x1bname").write_text("x")
    return source


def names(found, source):
    return sorted(str(path.relative_to(source)) for path in found)


def test_the_sample_is_of_files_that_the_archive_must_hold(tree):
    policy = {"sources": [str(tree)], "excludes": [str(tree / "own")]}
    assert names(proof.sample(policy, time.time() + 5), tree) == ["a/one", "a/two", "b/three"]


def test_files_that_changed_since_the_archive_are_left_out(tree):
    policy = {"sources": [str(tree)], "excludes": []}
    assert proof.sample(policy, time.time() - 60) == []


@pytest.mark.parametrize("pattern", ["*.log", "/var/*", "re:x", "sh:**/tmp"])
def test_patterns_that_we_do_not_read_ourselves_leave_all_out(tree, pattern):
    assert proof.sample({"sources": [str(tree)], "excludes": [pattern]}, time.time() + 5) == []


def test_the_sample_is_bounded_and_drawn_over_all_sources(tmp_path):
    for source in ("x", "y"):
        (tmp_path / source).mkdir()
        for number in range(60):
            (tmp_path / source / str(number)).write_text("1")
    policy = {"sources": [str(tmp_path / "x"), str(tmp_path / "y")], "excludes": []}
    found = proof.sample(policy, time.time() + 5)
    assert len(found) == len(set(found)) == proof.SAMPLE
    assert {path.parent.name for path in found} == {"x", "y"}


def test_a_restored_file_must_be_equal(tree, tmp_path):
    live = tree / "a/one"
    restored = tmp_path / "restored"
    assert not proof._same(live, restored)
    restored.write_text("a/one")
    assert proof._same(live, restored)
    restored.write_text("a/onE")
    assert not proof._same(live, restored)
    os.truncate(restored, 0)
    assert not proof._same(live, restored)
