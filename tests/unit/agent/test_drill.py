"""Drills against the real borg: what can be restored is proven, what cannot is named, and nothing is left."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

PASSPHRASE = "canary-passphrase-7f3a"  # of the host in conftest.py
POSTGRESQL = list(Path("/usr/lib/postgresql").glob("*/bin"))


@pytest.fixture
def drilled(backed):
    """A host whose archives hold a canary, as its role configures it."""
    backed.configure(
        f"exclude_patterns:\n- pp:{backed.base}/state\n"
        f"patterns:\n- R {backed.base}/state/canary\n- + pp:{backed.base}/state/canary\n"
    )
    return backed


def back_up(backed):
    time.sleep(0.05)  # a file's last change is before the archive's beginning
    code, record = backed.run("backup", "--wait")
    assert code == 0, record
    assert record["state"] == "succeeded", record
    return record["results"][0]["archive"]


def borg(backed, *arguments, **options):
    environment = {
        **os.environ,
        "BORG_PASSPHRASE": PASSPHRASE,
        "BORG_BASE_DIR": str(backed.base / "state/borg"),
        "BORG_REPO": str(backed.base / "repository"),
    }
    done = subprocess.run(
        [backed.settings.borg, *arguments], env=environment, capture_output=True, check=True, **options
    )
    return done.stdout


def archive_dump(backed, kind, name, content):
    """Make the newest archive one that holds a dump, as borgmatic places it."""
    place = backed.base / "dumps" / "borgmatic" / f"{kind}_databases" / "localhost"
    place.mkdir(parents=True, exist_ok=True)
    (place / name).write_bytes(content)
    borg(backed, "create", f"::dumped-{random.getrandbits(32):08x}", "borgmatic", cwd=backed.base / "dumps")


def corrupt(backed, path):
    """Change a byte of a file's chunk in the repository, as a bad disk would."""
    text = (backed.sources / path).read_bytes()
    for segment in sorted((backed.base / "repository" / "data").rglob("*")):
        data = segment.read_bytes() if segment.is_file() else b""
        if len(data) > len(text):  # random bytes do not get smaller: its segment is the one that is larger
            changed = bytearray(data)
            changed[len(data) // 2] ^= 0xFF
            segment.write_bytes(changed)
            return
    raise AssertionError("no segment holds it")


def test_an_archive_is_proven_by_its_canary_and_by_the_live_files(drilled):
    archive = back_up(drilled)
    code, told = drilled.run("drill", "--seed", "7")
    assert code == 0, told
    assert (told["state"], told["seed"], told["sampled"], told["compared"]) == ("proven", 7, 2, 2)
    (repository,) = told["repositories"]
    assert repository["canary"] == "proven"
    assert repository["archive"] == archive["name"]
    assert not repository["failed"]
    assert not (drilled.base / "state/drill.json").exists()


def test_the_canary_is_fresh_at_each_backup(drilled):
    path = drilled.base / "state/canary/canary"
    back_up(drilled)
    first = path.read_text()
    back_up(drilled)
    assert path.read_text() != first
    kept = json.loads((drilled.base / "state/canaries.json").read_text())
    assert len(set(kept.values())) == 2


def test_a_canary_with_another_content_fails(drilled):
    back_up(drilled)
    path = drilled.base / "state/canaries.json"
    path.write_text(json.dumps(dict.fromkeys(json.loads(path.read_text()), "0" * 64)))
    code, told = drilled.run("drill")
    assert (code, told["state"]) == (1, "failed")
    assert "canary" in told["repositories"][0]["failed"][0]["reason"]


def test_a_policy_without_a_canary_is_no_failure(backed):
    back_up(backed)
    code, told = backed.run("drill")
    assert (code, told["repositories"][0]["canary"]) == (0, "absent")


def test_a_file_that_changed_since_is_not_compared(drilled):
    back_up(drilled)
    (drilled.sources / "plain").write_text("other\n")
    code, told = drilled.run("drill")
    assert (code, told["sampled"], told["compared"]) == (0, 2, 1)


def test_the_same_seed_draws_the_same_files(agent):
    names = [f"srv/{number}" for number in range(500)]

    def draw(seed):
        sample = agent.Sample(seed, 20, "canary")
        for name in names:
            sample(f"-rw-r--r-- 5 2026-01-01T00:00:00.000000 /{name}\0".encode())
        return [item.path for item in sample.bounded()]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    assert len(set(draw(1))) == 20


def test_a_corrupted_chunk_fails_and_names_its_file(drilled):
    (drilled.sources / "ledger").write_bytes(random.Random(5).randbytes(300_000))
    back_up(drilled)
    corrupt(drilled, "ledger")
    code, told = drilled.run("drill")
    (repository,) = told["repositories"]
    assert (code, told["state"]) == (1, "failed")
    assert [each["path"] for each in repository["failed"]] == [str(drilled.sources / "ledger")], repository
    assert "integrity" in repository["failed"][0]["reason"].lower()
    assert (repository["sampled"], repository["canary"]) == (3, "proven")


def test_an_empty_repository_proves_nothing(drilled):
    code, told = drilled.run("drill")
    assert (code, told["state"]) == (1, "failed")
    assert told["repositories"][0]["error"]["code"] == "archive_missing"


def test_an_archive_of_nothing_but_the_canary_proves_nothing(drilled):
    config = drilled.base / "etc/borgmatic"
    path = next(config.iterdir())
    path.write_text(
        path.read_text().replace("exclude_patterns:\n", f"exclude_patterns:\n- pp:{drilled.sources}\n")
    )
    back_up(drilled)
    code, told = drilled.run("drill")
    assert (code, told["state"], told["repositories"][0]["canary"]) == (1, "failed", "proven")
    assert "no file of the host" in told["repositories"][0]["failed"][0]["reason"]


def test_a_killed_drill_leaves_nothing_for_the_next_run(drilled, agent):
    archive_dir = Path("/var/tmp") / f"saveos-drill-{random.getrandbits(64):016x}"
    (archive_dir / "files").mkdir(parents=True)
    left_behind = {"scratch": str(archive_dir), "run_id": agent.new_run_id()}
    (drilled.base / "state/drill.json").write_text(json.dumps(left_behind))
    back_up(drilled)
    assert not archive_dir.exists()


def sqlite_dump(rows):
    base = sqlite3.connect(":memory:")
    base.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)")
    base.executemany("INSERT INTO notes (text) VALUES (?)", [(f"a;\n'{n}",) for n in range(rows)])
    base.execute('CREATE TABLE "odd "" name" (n)')
    base.commit()
    return "\n".join(base.iterdump()).encode() + b"\n"


def drill_dump(backed, kind, name, content):
    archive_dump(backed, kind, name, content)
    code, told = backed.run("drill")
    ((found,),) = [repository["databases"] for repository in told["repositories"]]
    return code, told, found


def test_a_sqlite_dump_is_loaded_and_counted(drilled):
    code, told, found = drill_dump(drilled, "sqlite", "notes.db", sqlite_dump(120))
    assert code == 0, told
    assert (found["state"], found["tables"], found["rows"]) == ("proven", 2, 120)


def test_a_broken_sqlite_dump_is_named(drilled):
    whole = sqlite_dump(120)
    for content in (whole[: len(whole) // 2], whole.replace(b"VALUES", b"VALVES")):
        code, told, found = drill_dump(drilled, "sqlite", "notes.db", content)
        assert (code, told["state"], found["state"], found["name"]) == (1, "failed", "failed", "notes.db")
        assert found["error"]


def test_what_cannot_be_tried_here_is_told(drilled):
    code, told, found = drill_dump(drilled, "mongodb", "all", b"anything")
    assert (code, told["state"], found["state"]) == (0, "partial", "skipped")


CLUSTER = b"""-- PostgreSQL database cluster dump
CREATE ROLE postgres;
CREATE ROLE shopper;
CREATE DATABASE shop OWNER shopper;
\\connect shop
CREATE TABLE public.goods (id integer, name text);
ALTER TABLE public.goods OWNER TO shopper;
COPY public.goods (id, name) FROM stdin;
1\tone
2\ttwo
3\tsecret-row
\\.
-- PostgreSQL database cluster dump complete
"""


@pytest.mark.skipif(not POSTGRESQL, reason="no PostgreSQL server on this machine")
def test_a_postgresql_dump_is_loaded_and_counted(drilled):
    code, told, found = drill_dump(drilled, "postgresql", "all", CLUSTER)
    assert code == 0, told
    assert (found["state"], found["tables"], found["rows"]) == ("proven", 1, 3), found


@pytest.mark.skipif(not POSTGRESQL, reason="no PostgreSQL server on this machine")
def test_a_broken_postgresql_dump_is_named_without_its_rows(drilled):
    for content in (CLUSTER[:300], CLUSTER.replace(b"3\t", b"x\t")):
        code, told, found = drill_dump(drilled, "postgresql", "all", content)
        assert (code, found["state"]) == (1, "failed"), found
        assert found["error"]
        assert "secret-row" not in json.dumps(told)
