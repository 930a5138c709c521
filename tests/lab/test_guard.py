"""Ransomware drill: an intruder with root on a host, and all its credentials, cannot destroy its backups.

By hand, without a controller: what a controller would tell the guard is written here. The rounds are seeded; a
failure prints the seed. The tests are one story and run in order.
"""

import json
import os
import random
import time
from datetime import UTC, datetime

import pytest
from lab import Lab
from support import agent, archives, on, play, tree

pytestmark = pytest.mark.lab

SEED = int(os.environ.get("SAVEOS_TEST_SEED", "0")) or random.randrange(2**32)
# Three kinds of attack; all ten rounds have each kind, and five more that the seed draws.
# tests/unit/guard/test_gate.py
# tries each kind on a real repository, too.
ROUNDS = int(os.environ.get("SAVEOS_TEST_ROUNDS") or (10 if os.environ.get("SAVEOS_TEST_ALL") else 3))
KINDS = ("delete", "key", "agent", "future", "quota")
RULES = {"keep_within": "7d", "keep_daily": 7, "keep_weekly": 4, "keep_monthly": 6}
# what an intruder finds on the host: passphrase, SSH key, and where to
EVIL = """set -e
id=$(ls /etc/saveos/repositories)
export BORG_PASSCOMMAND="cat /etc/saveos/repositories/$id/passphrase" BORG_BASE_DIR=/root/evil
export BORG_RSH="$(sed -n 's/^ssh_command: //p' /etc/saveos/borgmatic/$id.yaml)" BORG_NEW_PASSPHRASE=stolen
export BORG_RELOCATED_REPO_ACCESS_IS_OK=yes BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes
export R=$(python3 -c 'import json; print(json.load(open("/etc/saveos/agent.json"))["repositories"][0]["url"])')
"""
ALL = 'for name in $(borg list --short "$R"); do borg delete "$R::$name"; done'
ATTACKS = {
    "delete": ALL,
    "future": """for day in 1 2 3 4 5 6 7; do
        borg create --timestamp 2035-01-0${day}T00:00:00 "$R::f$day-$(date +%N)" /etc/hosts
        done; borg prune --keep-daily 7 "$R" """,
    "key": 'borg key change-passphrase "$R"',
    "quota": f"""head -c 30000000 /dev/urandom > /root/rubbish
        borg create "$R::rubbish" /root/rubbish || true; {ALL}""",
    "agent": f"""printf '#!/bin/sh\\nexit 0\\n' > /opt/saveos/bin/evil; chmod 755 /opt/saveos/bin/evil
        cp -a "$(readlink -f /opt/saveos/bin/saveos-agent)" /root/agent.kept
        cp /opt/saveos/bin/evil "$(readlink -f /opt/saveos/bin/saveos-agent)"; {ALL}""",
}


@pytest.fixture(scope="module")
def story():
    """A storage server with a guard, and a host with a quota that was backed up twice."""
    with Lab({"vault": "bookworm", "web": "bookworm"}) as lab:
        web, vault = lab.hosts["web"], lab.hosts["vault"]
        on(web, "mkdir -p /srv/data && cp -r /etc /srv/data/ && head -c 500000 /dev/urandom > /srv/data/one")
        settings = {"server_guard_settle_seconds": 0, "server_guard_reserve_bytes": 0}
        variables = {"agent_sources": ["/srv/data"], "agent_schedule": "0 3 1 1 *"}
        variables["agent_repositories"] = [{"id": "drilled", "server": "vault", "quota": "20M"}]
        lab.inventory(("vault",), variables={**variables, **settings})
        assert play(lab, "site").total("failed") == 0
        repository = on(web, "ls /etc/saveos/repositories")
        found = Story(lab, web, vault, repository)
        found.back_up()
        on(web, "head -c 300000 /dev/urandom > /srv/data/two")
        found.back_up()
        yield found


class Story:
    """The two hosts, and what a controller would know."""

    def __init__(self, lab, web, vault, repository):
        self.lab, self.web, self.vault, self.repository = lab, web, vault, repository
        self.told = {}
        self.trees = {}

    def back_up(self):
        """Back up, and note the archive and what it holds."""
        for _ in range(3):  # a busy machine may start the host's unit too late
            said = on(self.web, "saveos-agent --json backup --wait || true", seconds=600)
            record = json.loads(said)
            if record["state"] == "succeeded":
                break
        archive = record["results"][0]["archive"]
        at, size = archive["started_at"], archive["original_size"]
        told = {
            "id": archive["id"],
            "name": archive["name"],
            "at": at,
            "files": archive["nfiles"],
            "size": size,
        }
        self.told[archive["name"]] = told
        self.trees[archive["name"]] = tree(self.web, "/srv/data")

    def guard(self, *words, code=0, **more):
        """Hand in the word and have the guard run; its report of the repository."""
        time.sleep(1.1)  # what is told is newer than the last commit
        about = {
            "archives": list(self.told.values()),
            "retention": RULES,
            "zone": "UTC",
            "approvals": [],
            "open_alerts": [],
        }
        repositories = {self.repository: {**about, **more}}
        word = {"schema": 1, "at": datetime.now(UTC).isoformat(), "repositories": repositories}
        on(self.vault, "saveos-guard tell", stdin=json.dumps(word))
        report = json.loads(on(self.vault, f"saveos-guard run --json; test $? = {code}", seconds=600))
        return report["repositories"][0]

    def evil(self, script):
        """Do something on the host with all that is on it."""
        program = 'borg() { /opt/saveos/bin/borg --lock-wait 30 "$@"; }\n'
        return on(self.web, EVIL + program + script, seconds=600)

    def restored(self, name):
        """Restore an archive with the host's own credentials and describe it."""
        self.evil(f'rm -rf /root/back && mkdir /root/back && cd /root/back && borg extract "$R::{name}"')
        return tree(self.web, "/root/back/srv/data")


def codes(report):
    """Codes of what holds."""
    return {each["code"] for each in report["reasons"] if each["holds"]}


def test_what_is_in_order_is_compacted_and_copied(story):
    """The sandboxed unit does all: copies, checks, judges; a second provisioning changes nothing."""
    report = story.guard()
    assert report["state"] in ("ok", "compacted"), report
    assert report["good_copy"] and report["last_check"]["state"] == "ok" and report["archives_expected"] == 2
    on(story.vault, "systemctl start saveos-guard.service")
    told = on(story.vault, "systemctl show -p Result,ExecMainStatus --value saveos-guard.service").split()
    assert told[0] == "success", told
    again = play(story.lab, "server")
    assert again.total("changed") == 0, again.output


@pytest.mark.parametrize("number", range(ROUNDS))
def test_ransomware_round(story, number):
    """Held at the first run and at each one after; what the policy keeps comes back byte for byte."""
    dice = random.Random(f"{SEED}-{number}")
    kind = KINDS[number % len(KINDS)] if number < len(KINDS) else dice.choice(KINDS)
    names = set(story.told)
    story.evil(ATTACKS[kind])
    for run in range(1 + dice.randrange(1, 3)):
        report = story.guard(code=3)
        assert report["state"] == "held", (SEED, kind, run, report)
        assert codes(report) & {"vanished", "key"}, (SEED, kind, run, report)
        assert story.vault.exec("systemctl", "start", "saveos-guard.service") == ""
    undone = json.loads(on(story.vault, f"saveos-guard undo --json --repository {story.repository}"))
    assert undone["state"] == "done"
    if kind == "agent":  # reinstalled, as a person would
        on(story.web, 'cp -a /root/agent.kept "$(readlink -f /opt/saveos/bin/saveos-agent)"')
    on(story.web, "rm -rf /root/evil")
    mended = agent(story.web, "mend", "--repository", story.repository)
    assert mended["state"] == "mended" and set(mended["archives"]) == {
        each["id"] for each in story.told.values()
    }
    assert {each["name"] for each in archives(story.web)} == names, (SEED, kind)
    for name in sorted(names):
        assert story.restored(name) == story.trees[name], (SEED, kind, name)
    if number in (0, ROUNDS - 1):
        story.evil('borg check --verify-data "$R"')
    report = story.guard()
    assert report["state"] in ("ok", "compacted"), (SEED, kind, report)


def test_life_goes_on(story):
    """The next backup is taken, and all is in order."""
    on(story.web, "head -c 200000 /dev/urandom > /srv/data/three")
    story.back_up()
    report = story.guard()
    assert report["state"] in ("ok", "compacted") and report["archives_expected"] == 3, report


def test_a_really_full_disk_harms_nothing(story):
    """Copies need a little space; without any the guard says so, drops nothing, and works again afterwards."""
    good = story.guard()["good_copy"]
    on(story.vault, "mkdir -p /mnt/small && mount -t tmpfs -o size=2m tmpfs /mnt/small")
    on(story.vault, "cp -a /var/lib/saveos-guard/. /mnt/small && mount --bind /mnt/small /var/lib/saveos-guard")
    on(story.vault, "cat /dev/zero > /mnt/small/fill || true")
    try:
        said = on(story.vault, "saveos-guard run", code=None)
        assert "No space left" in said or "space" in said, said
    finally:
        on(story.vault, "umount /var/lib/saveos-guard /mnt/small")
    report = story.guard()
    assert report["state"] in ("ok", "compacted") and report["good_copy"] >= good
    story.evil('borg check "$R"')


def test_undo_by_its_playbook(story):
    """Dry run, then both halves: the server's and the host's."""
    story.evil(ALL)
    assert story.guard(code=3)["state"] == "held"
    words = ("-e", f"maintenance_repository_id={story.repository}")
    planned = play(story.lab, "undo", "--check", *words)
    assert planned.total("failed") == 0
    assert story.guard(code=3)["state"] == "held", "a dry run changed something"
    assert play(story.lab, "undo", *words).total("failed") == 0
    assert {each["name"] for each in archives(story.web)} == set(story.told)
    checked = play(story.lab, "check", "-e", json.dumps({"maintenance_check": [story.repository]}))
    assert checked.total("failed") == 0 and checked.recap["vault"]["skipped"] == 0, checked.output
