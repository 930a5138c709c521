"""What a backup would hold, by Borg's own matching."""

import os

import pytest


def test_measures_each_source_without_what_is_left_out(agent, backed, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    (one / "cache").mkdir(parents=True)
    two.mkdir()
    (one / "a").write_bytes(b"x" * 1000)
    os.link(one / "a", one / "again")
    (one / "line\nbreak é").write_bytes(b"x" * 10)
    (one / "cache" / "big").write_bytes(b"x" * 5000)
    (one / "cache" / "CACHEDIR.TAG").write_bytes(b"Signature: 8a477f597d28d172789f06886806bc55\n")
    (two / "b").write_bytes(b"x" * 7)
    (two / "b.tmp").write_bytes(b"x" * 70)
    (two / "link").symlink_to("/nowhere")
    found = agent.measure(backed.settings, [str(one), str(two)], ["*.tmp"])
    assert found["sources"][1] == {"path": str(two), "files": 2, "bytes": 7}
    assert found["sources"][0] == {"path": str(one), "files": 3, "bytes": 1010}
    assert (found["files"], found["bytes"], found["unreadable"]) == (5, 1017, 0)


def test_a_source_that_is_not_there_is_counted_as_unreadable(agent, backed, tmp_path):
    found = agent.measure(backed.settings, [str(tmp_path / "none")], [])
    assert (found["files"], found["unreadable"]) == (0, 1)


@pytest.mark.parametrize("sources", [[], ["etc"]])
def test_sources_are_absolute(agent, host, sources):
    with pytest.raises(agent.AgentError, match="absolute"):
        agent.measure(host.settings, sources, [])
