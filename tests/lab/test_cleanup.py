"""Cleanup on a real host: exactly what the plan said is freed, and no trap is stepped into."""

import json
import re

import pytest
from support import on, play
from untouched import changed, fingerprint, untouched

pytestmark = pytest.mark.lab

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
