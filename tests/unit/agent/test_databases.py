"""Databases that are brought back; the lab has them on real servers."""

from __future__ import annotations

import os
import sqlite3

import pytest


def test_a_name_is_never_an_option_of_the_client(agent, host, monkeypatch, tmp_path):
    """A copy may be called anything, and the client runs as the server's root: --tee=FILE would write files."""
    asked = []
    work = agent.Loading(host.settings, host.settings.repositories[0])
    work.kind = "mariadb"
    monkeypatch.setattr(agent, "which_server", lambda *names: names[0])
    monkeypatch.setattr(
        agent.Loading, "_must_run", lambda _self, argv, *_rest, **_named: asked.append(argv) or b""
    )
    (tmp_path / "dump").write_bytes(b"SELECT 1;")
    work._fill(tmp_path / "dump", "--tee=/etc/cron.d/x")
    work._sql("SELECT 1", "--execute=DROP DATABASE wiki")
    (fill, sql) = asked
    assert fill[1:] == ["--no-defaults", "--user=root", "--database=--tee=/etc/cron.d/x"]
    assert sql[-1] == "--database=--execute=DROP DATABASE wiki"


@pytest.mark.parametrize("name", ["it's", "`x`", 'a"b'])
def test_names_are_quoted_whatever_they_hold(agent, name):
    assert agent._literal(name)[1:-1].replace("''", "") == name.replace("'", "")
    assert agent._backticks(name)[1:-1].replace("``", "`") == name
    assert agent._quoted(name)[1:-1].replace('""', '"') == name


@pytest.mark.skipif(os.geteuid() != 0, reason="a link of another user needs root")
def test_a_link_that_a_user_made_leads_no_copy_away(agent, host, tmp_path):
    work = agent.Loading(host.settings, host.settings.repositories[0])
    work.kind, work.name, work.scratch = "sqlite", str(tmp_path / "live.db"), tmp_path
    with sqlite3.connect(tmp_path / "dump.db") as base:
        base.execute("CREATE TABLE notes (id INTEGER)")
    for name in ("outside", "theirs"):
        (tmp_path / name).mkdir()
    (tmp_path / "theirs/way").symlink_to(tmp_path / "outside")
    os.chown(tmp_path / "theirs", 12345, 12345)
    os.lchown(tmp_path / "theirs/way", 12345, 12345)
    with pytest.raises(agent.AgentError, match="symbolic link"):
        work.copy(tmp_path / "dump.db", str(tmp_path / "theirs/way/copy.db"))
    assert list((tmp_path / "outside").iterdir()) == []
    assert work.copy(tmp_path / "dump.db", str(tmp_path / "theirs/copy.db")) == [0]
    with pytest.raises(agent.AgentError, match="is there already"):
        work.copy(tmp_path / "dump.db", str(tmp_path / "theirs/copy.db"))
