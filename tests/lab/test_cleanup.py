"""Cleanup on real hosts: the same record by every door, exactly what the plan said, and no step into a trap."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from serving import until
from support import on, play
from untouched import changed, fingerprint, untouched

pytestmark = pytest.mark.lab

ARCHIVES = "/var/cache/apt/archives"
RULE = {"rules": ["apt-archives"], "older_than": 0}
# Python whose clock is 60 days ahead while files keep their times, so that what a test makes is old.
LATER = """#!/bin/sh
exec env LD_PRELOAD="$(ls /usr/lib/*/faketime/libfaketime.so.1)" FAKETIME=+60d NO_FAKE_STAT=1 \
  FAKETIME_DONT_FAKE_MONOTONIC=1 /usr/bin/python3 "$@"
"""
TRAPS = r"""
set -e
mkdir -p /srv/precious /var/tmp/traps/deep/er /var/tmp/traps/bound /var/tmp/traps/tmpfs /var/tmp/traps/kept
echo precious > /srv/precious/file
mount --bind /srv/precious /var/tmp/traps/bound
mount -t tmpfs none /var/tmp/traps/tmpfs
echo over > /var/tmp/traps/mounted-file; mount --bind /srv/precious/file /var/tmp/traps/mounted-file
echo other > /var/tmp/traps/tmpfs/file
ln -s /etc /var/tmp/traps/to-etc
ln -s /etc/passwd /var/tmp/traps/to-passwd
ln /srv/precious/file /var/tmp/traps/hard
mkfifo /var/tmp/traps/pipe
echo kept > /var/tmp/traps/kept/file
printf old > "$(printf '/var/tmp/traps/two\nlines etc')"
printf old > '/var/tmp/traps/-rf'
printf old > "$(printf '/var/tmp/traps/\377')"
printf old > /var/tmp/traps/deep/er/plain
setsid sh -c 'exec 3<>/var/tmp/traps/held; exec sleep 600' </dev/null >/dev/null 2>&1 &
"""
GONE = {"two\nlines etc", "-rf", "\N{REPLACEMENT CHARACTER}", "deep/er/plain", "deep/er", "deep"}


def prepare(host):
    """Leave two package files in apt's cache, and a lock and a list that stay."""
    on(
        host,
        f"rm -f {ARCHIVES}/*.deb; mkdir -p {ARCHIVES} && head -c 300000 /dev/urandom > {ARCHIVES}/a_1_all.deb",
    )
    on(host, f"head -c 5000 /dev/urandom > {ARCHIVES}/b_1_all.deb; touch {ARCHIVES}/lock")


def blocks(host, *paths):
    """Bytes on disk of files of a host."""
    return sum(512 * int(line) for line in on(host, 'stat -c %b -- "$@"', *paths).split())


def record(fleet, job, host="web"):
    """The stored result of a job on a host, without what differs from run to run."""
    (found,) = fleet.controller.items(f"/maintenance/results?job={job}&host={host}")
    whole = fleet.controller.get(f"/maintenance/results/{found['id']}")
    assert whole["host"] == host
    return {
        name: whole[name] for name in ("operation", "mode", "state", "summary", "findings", "info", "fixed")
    }


def by_playbook(fleet, mode):
    fleet.lab.inventory(storage_servers=(), agents=("web",))
    ca = str(fleet.controller.home / "tls" / "ca.pem")
    here = {"SAVEOS_URL": fleet.controller.url, "SAVEOS_TOKEN": fleet.controller.token, "SAVEOS_CA": ca}
    extra = json.dumps({f"maintenance_{name}": value for name, value in RULE.items()})
    play(fleet.lab, "cleanup", "-e", extra, *(["--check"] if mode == "check" else []), **here)
    job = fleet.controller.items("/jobs?operation=cleanup&trigger=hand&limit=1")[0]
    return job["id"]


def by_http(fleet, mode):
    return fleet.controller.ended(fleet.controller.ask("cleanup", "web", mode=mode, **RULE))["id"]


def by_command(fleet, mode):
    words = ["maintenance", "cleanup", "run", "web", "--rule", "apt-archives", "--older-than", "0", "--wait"]
    return fleet.controller.command(*words, *(["--check"] if mode == "check" else []))["id"]


def by_schedule(fleet, mode):
    soon = datetime.now(UTC) + timedelta(minutes=1)
    body = {
        "name": f"clean-{mode}",
        "operation": "cleanup",
        "targets": {"hosts": ["web"]},
        "parameters": RULE,
        "mode": mode,
        "cron": f"{soon.minute} {soon.hour} * * *",
    }
    fleet.controller.post("/schedules", body, 201)

    def fired():
        found = fleet.controller.items("/jobs?operation=cleanup&trigger=schedule")
        return next((job["id"] for job in found if job["mode"] == mode), None)

    job = until(fired, 130, "a job of the schedule")
    fleet.controller.ended(job)
    assert fleet.controller.http("DELETE", f"/schedules/clean-{mode}").status_code == 204
    return job


def test_every_door_gives_the_same_record(fleet):
    """Check: playbook, HTTP, CLI and schedule; then runs, each with a second that has nothing to do."""
    prepare(fleet.web)
    size = blocks(fleet.web, f"{ARCHIVES}/a_1_all.deb", f"{ARCHIVES}/b_1_all.deb")
    with untouched(fleet.web):
        told = [record(fleet, door(fleet, "check")) for door in (by_playbook, by_http, by_command, by_schedule)]
    assert told[0]["summary"] == {
        "planned_bytes": size,
        "freed_bytes": 0,
        "files": 2,
        "apt-archives_bytes": size,
    }
    assert all(each == told[0] for each in told), told
    done = []
    for door in (by_playbook, by_http, by_command):
        prepare(fleet.web)
        before = fingerprint(fleet.web, ARCHIVES)
        done.append(record(fleet, door(fleet, "run")))
        assert changed(before, fingerprint(fleet.web, ARCHIVES)) == {}
        assert "deb" not in on(fleet.web, f"ls {ARCHIVES}")
    assert all(each == done[0] for each in done), done
    assert (done[0]["summary"]["freed_bytes"], done[0]["fixed"]) == (size, 1)
    again = fleet.controller.done("cleanup", "web", **RULE)
    assert again["by_host"]["web"]["state"] == "ok", again  # not "changed"
    assert record(fleet, again["id"])["summary"]["freed_bytes"] == 0
    assert fleet.controller.items("/maintenance/findings?operation=cleanup&host=web") == []


def test_prepared_host_frees_what_the_plan_said_and_no_trap_is_stepped_into(fleet):
    """By hand with a later clock: temporary files, with a tree of traps, fresh files and refused rules."""
    web = fleet.web
    on(web, "cat > /usr/local/bin/python-later && chmod 755 /usr/local/bin/python-later", stdin=LATER)
    on(web, TRAPS)
    fleet.lab.inventory(
        storage_servers=(),
        agents=("web",),
        variables={
            "agent_cleanup_protected": ["/var/tmp/traps/kept"],
            "agent_cleanup_rules": [
                {"name": "everything", "root": "/", "patterns": ["*"]},
                {"name": "conf", "root": "/etc", "patterns": ["*"]},
                {"name": "elsewhere", "root": "/srv/precious", "patterns": ["*"]},
            ],
        },
    )
    later = {
        "ansible_python_interpreter": "/usr/local/bin/python-later",
        "maintenance_rules": ["tmp", "var-tmp", "apt-archives"],
    }
    words = ("-v", "-e", json.dumps(later))
    try:
        with untouched(web):
            planned = told(play(fleet.lab, "cleanup", "--check", *words).output)
        refused = {each["subject"] for each in planned["findings"] if each["id"] == "rule-refused"}
        assert refused == {"everything", "conf", "elsewhere"}
        fresh = play(
            fleet.lab, "cleanup", "--check", "-v", "-e", json.dumps({"maintenance_rules": ["var-tmp"]})
        )
        assert told(fresh.output)["summary"]["planned_bytes"] == 0, "files of just now are no old files"
        before = fingerprint(web)
        done = told(play(fleet.lab, "cleanup", *words).output)
        differs = changed(before, fingerprint(web))
        assert done["summary"]["freed_bytes"] == planned["summary"]["planned_bytes"] > 0
        assert done["summary"]["files"] == planned["summary"]["files"]
        assert {name: size for name, size in done["summary"].items() if name != "freed_bytes"} == {
            name: size for name, size in planned["summary"].items() if name != "freed_bytes"
        }
        freed = sum(
            -(-before[path][4] // 4096) * 4096 for path in differs if len(before[path]) == 8 and path in before
        )
        assert freed <= planned["summary"]["planned_bytes"] * 1.1 + 100_000
        gone = {path.removeprefix("/var/tmp/traps/") for path in differs if path.startswith("/var/tmp/traps/")}
        assert gone == GONE
        outside = [
            path
            for path in differs
            if not re.match(r"/(tmp|var/tmp|var/cache|var/crash|root/\.cache)(/|$)", path)
        ]
        assert outside == []
        again = play(fleet.lab, "cleanup", *words)
        assert told(again.output)["summary"]["freed_bytes"] == 0
        assert again.total("changed") == 0
        assert (
            on(web, "cat /srv/precious/file /var/tmp/traps/hard /var/tmp/traps/bound/file").split()
            == ["precious"] * 3
        )
    finally:
        on(
            web,
            "pkill -x sleep; cd /var/tmp/traps && umount bound tmpfs mounted-file; rm -r /var/tmp/traps",
        )


def told(output):
    """The record in what a verbose play printed: the last task's."""
    found = list(re.finditer(r"^(?:ok|changed): \[web\] => ", output, re.M))
    assert found, output
    result, _ = json.JSONDecoder().raw_decode(output[found[-1].end() :])
    return result["saveos"]["cleanup"]
