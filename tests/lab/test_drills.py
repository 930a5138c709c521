"""Drills of real hosts: they prove what can be restored, and name what cannot; the alert follows."""

import pytest
from fleet import at_rest, host_processes
from serving import until
from support import on

pytestmark = pytest.mark.lab
LEDGER = "/srv/data/drilled/ledger"
NOTES = "/srv/app/drilled.db"
LEFT = "ls -d /var/tmp/saveos-drill-* /var/lib/saveos-agent/drill.json 2>/dev/null; true"
FILL = """
mkdir -p /srv/data/drilled /srv/app
head -c 3000000 /dev/urandom > "$1"
python3 - "$2" <<'SCRIPT'
import sqlite3, sys
base = sqlite3.connect(sys.argv[1])
base.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)")
base.executemany("INSERT INTO notes (text) VALUES (?)", [(str(n),) for n in range(321)])
base.commit()
SCRIPT
"""
# a sqlite3 that dumps half, as one whose disk is full
SQLITE = """#!/usr/bin/python3
import sqlite3, sys
lines = list(sqlite3.connect(sys.argv[-2] if sys.argv[-1] == ".dump" else sys.argv[-1]).iterdump())
print("\\n".join(lines[: len(lines) // HALVES]))
"""
# Borg keeps random bytes as they are: the large segment that a host wrote last holds the ledger.
# Done twice, it is whole again.
FLIP = """
python3 - "$1" <<'SCRIPT'
import pathlib, sys
found = {path: path.stat() for path in pathlib.Path(sys.argv[1], "data").glob("*/*")}
segment = max((path for path in found if found[path].st_size > 1000000), key=lambda path: found[path].st_mtime)
data = bytearray(segment.read_bytes())
data[len(data) // 2] ^= 0xFF
segment.write_bytes(data)
SCRIPT
"""
POLICY = {
    "name": "drilled",
    "sources": ["/srv/data/drilled"],
    "schedule": "0 3 1 1 *",
    "databases": [{"kind": "sqlite", "path": NOTES}],
}


@pytest.fixture(scope="module")
def drilled(fleet):
    """The fleet, with a host `bare` that backs up a ledger and a database; afterwards it is as it was."""
    on(fleet.bare, FILL, LEDGER, NOTES)
    dump_as(fleet, 1)
    fleet.controller.post("/policies", POLICY, 201)
    assert fleet.controller.http("PATCH", "/hosts/bare", {"policy": "drilled"}).is_success
    at_rest(fleet.bare)
    fleet.controller.done("provision", "bare")
    back_up(fleet)
    yield fleet
    assert fleet.controller.http("PATCH", "/hosts/bare", {"policy": None}).is_success
    on(fleet.bare, "rm -r /usr/local/bin/sqlite3 /srv/data/drilled /srv/app")
    fleet.controller.done("provision", "bare")


def dump_as(fleet, halves):
    script = SQLITE.replace("HALVES", str(halves))
    on(fleet.bare, 'printf %s "$1" > /usr/local/bin/sqlite3; chmod 755 /usr/local/bin/sqlite3', script)


def back_up(fleet):
    fleet.controller.done("backup", "bare")  # a drill waits for its end by itself


def drill(fleet, **parameters):
    """Drill the host; return the job's state and the host afterwards."""
    job = fleet.controller.ended(fleet.controller.ask("drill", "bare", sample=1000, **parameters))
    return job, fleet.controller.get("/hosts/bare")


def alerts(fleet):
    found = fleet.controller.items("/alerts?host=bare&state=open")
    return [alert["summary"] for alert in found if alert["rule"] == "drill_failed"]


def test_a_drill_that_the_policy_asks_for_proves_all_and_leaves_nothing(drilled):
    """Nobody starts it: the host was never drilled, so it is due as soon as the policy wants drills."""
    controller = drilled.controller
    asked = {"drill_every_days": 30, "drill_sample": 1000}
    assert controller.http("PATCH", "/policies/drilled", asked).is_success

    def begun():
        found = controller.items("/jobs?operation=drill&host=bare")
        return next((job for job in found if job["requested_by"] == "policy drilled"), None)

    job = controller.ended(until(begun, 60, "the policy's drill"))
    host = controller.get("/hosts/bare")
    assert (job["state"], job["trigger"]) == ("succeeded", "schedule"), controller.story(job)
    assert (host["proof"], host["last_drill_state"]) == ("proven", "proven")
    (repository,) = host["facts"]["drill"]["repositories"]
    assert (repository["canary"], repository["sampled"], repository["compared"]) == ("proven", 1, 1)
    ((kind, rows),) = [(base["kind"], base["rows"]) for base in repository["databases"]]
    assert (kind, rows) == ("sqlite", 321)
    assert on(drilled.bare, LEFT) == ""


def test_a_drill_on_a_sandbox_proves_that_all_comes_there_and_leaves_nothing(drilled):
    before = drilled.controller.get("/hosts/cron")
    job, host = drill(drilled, sandbox="cron")
    assert job["state"] == "succeeded", drilled.controller.story(job)
    told = host["facts"]["drill"]
    assert (host["proof"], told["sandbox"], told["sent"]["files"]) == ("proven", "cron", 2)  # the canary, too
    assert told["sent"]["bytes"] > 3_000_000
    assert drilled.controller.get("/hosts/cron")["last_drill_at"] == before["last_drill_at"]
    assert on(drilled.bare, LEFT) == on(drilled.cron, LEFT) == ""


def test_a_broken_dump_fails_the_drill_and_is_named(drilled):
    dump_as(drilled, 2)
    back_up(drilled)
    job, host = drill(drilled)
    assert (job["state"], host["proof"]) == ("failed", "failed")
    assert "sqlite" in host["drill_error"]
    assert "drilled.db" in host["drill_error"]
    (summary,) = until(lambda: alerts(drilled), 90, "the alert about the drill")
    assert "drilled.db" in summary
    dump_as(drilled, 1)
    back_up(drilled)
    assert drill(drilled)[1]["proof"] == "proven"
    until(lambda: not alerts(drilled), 90, "the alert resolved")


def test_a_corrupted_chunk_on_the_server_fails_the_drill_and_is_named(drilled):
    on(drilled.bare, 'head -c 3000000 /dev/urandom > "$1"', LEDGER)
    back_up(drilled)
    back_up(drilled)  # damage in a repository's last transaction makes all of it unreadable, not one file
    repository = drilled.controller.items("/repositories?host=bare")[0]
    place = f"/srv/saveos/repositories/{repository['id']}"
    # what still writes would meet the damage first, and leave the repository to be read anew as a whole
    until(lambda: not host_processes(drilled.bare), 240, "the backup's end, its pruning too")
    on(drilled.vault, FLIP, place)
    try:
        job, host = drill(drilled, sandbox="cron")
    finally:
        on(drilled.vault, FLIP, place)
    assert (job["state"], host["proof"]) == ("failed", "failed")
    assert LEDGER in job["by_host"]["cron"]["error"], "the sandbox hears why nothing comes"
    assert on(drilled.bare, LEFT) == on(drilled.cron, LEFT) == ""
    assert LEDGER in host["drill_error"], host
    assert LEDGER in job["by_host"]["bare"]["error"]
    (summary,) = until(lambda: alerts(drilled), 90, "the alert about the drill")
    assert LEDGER in summary
    assert drill(drilled)[1]["proof"] == "proven"


def test_a_host_is_rebuilt_on_an_empty_one_checked_and_timed(drilled):
    controller = drilled.controller
    spare = drilled.lab.add("spare", "bookworm")
    drilled.trust("spare")
    drilled.add("spare")
    try:
        told = controller.command(
            *("drills", "rebuild", "bare", "--on", "spare", "--destination", "/srv/rebuilt", "--wait")
        )
        assert told["state"] == "proven", told
        assert [step["name"] for step in told["steps"]] == ["provision", "transfer", "health"]
        assert all(step["seconds"] > 0 for step in told["steps"])
        assert told["seconds"] >= sum(step["seconds"] for step in told["steps"]) - 0.5, "but for rounding"
        assert all(check["ok"] for check in told["checks"])
        content = 'sha256sum < "$1" && stat -c "%U %a %y" "$1"'
        assert on(spare, content, f"/srv/rebuilt{LEDGER}") == on(drilled.bare, content, LEDGER)
        (listed,) = controller.items("/drills/rebuilds?host=bare")
        assert (listed["id"], listed["sandbox"]) == (told["id"], "spare")
    finally:
        controller.http("DELETE", "/hosts/spare")
        drilled.lab.drop("spare")
