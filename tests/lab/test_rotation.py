"""Rotations on lab hosts, killed with kill -9: the repository opens with what is stored or escrowed."""

import base64
import json
import sqlite3
import uuid

import pytest
from fleet import at_rest
from saveos.core import sealing
from serving import until
from support import on

pytestmark = pytest.mark.lab
HOME = "/etc/saveos/repositories/*"
SEAL = "/opt/saveos/bin/saveos-seal"
# Rotates as the verb does, and dies by SIGKILL before its n-th file is replaced, linked or removed
KILLED = """
import argparse, os, signal, sys
sys.path.insert(0, "/opt/saveos/bin/saveos-agent")
from pathlib import Path
from saveos_agent.passphrase import PassphraseRotation
from saveos_agent.settings import load_settings
point, steps = int(sys.argv[1]), [0]
def counting(function):
    def counted(*words, **named):
        steps[0] += 1
        if steps[0] == point:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*words, **named)
    return counted
for name in ("replace", "link", "unlink"):
    setattr(os, name, counting(getattr(os, name)))
settings = load_settings(Path("/etc/saveos"))
PassphraseRotation(settings, settings.repositories[0]).begin(sys.argv[2], sys.argv[3])
"""
OPENS = """
cat >/root/asked
BORG_PASSCOMMAND="cat /root/asked" BORG_BASE_DIR=/root/base BORG_RSH="ssh -i /etc/saveos/ssh/id_ed25519 \\
-o UserKnownHostsFile=/etc/saveos/ssh/known_hosts" /opt/saveos/bin/borg list --last 1 "$1" >/dev/null 2>&1 \\
&& echo yes || echo no
rm /root/asked
"""


@pytest.fixture(scope="module")
def keyed(fleet):
    """The fleet, sealing to a recovery key whose private half the test has."""
    public, private = sealing.new_pair()
    key = {"public_key": public, "mode": "managed", "private_key": private, "replace": True}
    fleet.controller.post("/recovery", key, 201)
    fleet.controller.done("provision", "web")
    at_rest(fleet.web)
    return fleet, private


def escrowed(fleet, private):
    """The passphrase in the newest escrow, opened with the private half on a host."""
    identity = on(fleet.web, "basename /etc/saveos/repositories/*").strip()
    sealed = newest_escrow(fleet, identity)
    script = (
        'printf %s "$1" >/root/private && printf %s "$2" | '
        + SEAL
        + " open --key /root/private; rm /root/private"
    )
    return json.loads(on(fleet.web, script, private, sealed))["passphrase"]


def newest_escrow(fleet, identity):
    with sqlite3.connect(f"file:{fleet.controller.home / 'saveos.db'}?mode=ro", uri=True) as database:
        row = database.execute(
            "select sealed from escrows where repository_id = ? order by id desc limit 1",
            (uuid.UUID(identity).hex,),
        ).fetchone()
    return base64.b64encode(row[0]).decode()


def stored(fleet):
    return on(fleet.web, f"cat {HOME}/passphrase").strip()


def opens(fleet, passphrase):
    """Whether the repository opens with a passphrase, asked without our code."""
    url = json.loads(on(fleet.web, "cat /etc/saveos/agent.json"))["repositories"][0]["url"]
    return on(fleet.web, OPENS, url, stdin=passphrase) == "yes"


@pytest.mark.parametrize(
    "point", [2, 7, 12, *(pytest.param(each, marks=pytest.mark.thorough) for each in (3, 6, 10))]
)
def test_killed_on_the_way_it_opens_and_is_finished_by_a_heartbeat(keyed, point):
    """Points: journal, new file, changed but not noted, in force, exported, escrowed."""
    fleet, private = keyed
    key = fleet.controller.get("/recovery")["key"]["public_key"]
    status = on(fleet.web, 'python3 -c "$1" "$2" "$3" "$4" 2>&1; echo $?', KILLED, str(point), key, SEAL)
    assert status.strip().endswith("137"), status
    files = on(fleet.web, f"cat {HOME}/passphrase*").split()
    kept = [*files, escrowed(fleet, private)]
    assert any(opens(fleet, each) for each in kept)
    on(fleet.web, "saveos-agent heartbeat")
    assert opens(fleet, stored(fleet))
    assert escrowed(fleet, private) == stored(fleet)
    assert on(fleet.web, f"ls {HOME}").split() == ["initialised", "key-export", "passphrase", "sealed"]


def test_rotation_by_job_shows_no_secret(keyed):
    """Passphrase, token and SSH key by HTTP: changed, working, told; no value in a log or answer."""
    fleet, private = keyed
    controller = fleet.controller
    before = {stored(fleet), on(fleet.web, "cat /etc/saveos/token").strip()}
    old_key = on(fleet.web, "cat /etc/saveos/ssh/id_ed25519.pub").split()[1]
    jobs = []
    for kind in ("passphrase", "agent-token", "ssh-key"):
        job = controller.done("secrets", "web", rotate=kind)
        jobs.append(job)
    after = {stored(fleet), on(fleet.web, "cat /etc/saveos/token").strip()}
    assert not before & after
    assert opens(fleet, stored(fleet)) and escrowed(fleet, private) == stored(fleet)
    new_key = on(fleet.web, "cat /etc/saveos/ssh/id_ed25519.pub").split()[1]
    lines = on(fleet.vault, "cat ~saveos-borg/.ssh/authorized_keys")
    assert new_key != old_key and new_key in lines and old_key not in lines
    on(fleet.web, "saveos-agent heartbeat")
    kinds = {each["kind"]: each for each in controller.items("/secrets?host=web")}
    assert kinds["passphrase"]["rotated_at"] is None or kinds["passphrase"]["escrow"] == "fresh"
    said = json.dumps([controller.http("GET", f"/jobs/{job['id']}/log?format=text").text for job in jobs])
    said += (
        json.dumps(jobs)
        + controller.log.read_text()
        + on(fleet.web, "journalctl --no-pager -o cat | tail -n 500")
    )
    assert not any(value in said for value in before | after)


def test_provisioning_afterwards_changes_nothing(keyed):
    fleet, _ = keyed
    job = fleet.controller.ended(fleet.controller.ask("provision", "web", mode="check"))
    assert job["by_host"]["web"]["state"] == "ok", fleet.controller.story(job)
    fleet.controller.done("backup", "web")
    until(lambda: fleet.controller.items("/archives?host=web"), 30, "an archive of web")


def holds(fleet, name, key):
    """Whether a host's authorized_keys have a key."""
    return key.split()[1] in on(fleet.lab.hosts[name], "cat /root/.ssh/authorized_keys*")


def test_the_controllers_own_key_is_rotated_host_by_host(keyed):
    """One host keeps its lines where sshd does not look, one is frozen, the controller is killed on the way."""
    fleet, _ = keyed
    controller = fleet.controller
    old, everybody = controller.ssh_key(), ("vault", "web", "bare", "cron")
    look = controller.ended(controller.ask("rekey", *everybody, mode="check"))
    assert look["state"] == "succeeded" and controller.ssh_key() == old, controller.story(look)
    elsewhere = (
        "cat /root/.ssh/authorized_keys* >/etc/ssh/elsewhere; "
        "printf 'AuthorizedKeysFile /etc/ssh/elsewhere\\n' >/etc/ssh/sshd_config.d/00-elsewhere.conf; "
        "systemctl reload ssh"
    )
    on(fleet.bare, elsewhere)
    undo = fleet.cron.freeze()
    try:
        job = controller.ended(controller.ask("rekey", *everybody))
    finally:
        undo()
    new = controller.ssh_key()
    assert job["state"] == "partial" and new != old, controller.story(job)
    assert job["by_host"]["cron"]["state"] == "unreachable"
    assert job["by_host"]["bare"]["state"] == "failed"
    assert "does not let it in" in fleet.error(job, "bare")
    for name in ("vault", "web"):
        assert holds(fleet, name, new) and not holds(fleet, name, old)
    assert holds(fleet, "bare", old) and holds(fleet, "cron", old)
    own = {each["kind"]: each for each in controller.get("/secrets/controller")}
    assert own["controller-ssh-key-former"]["waiting_hosts"] == ["bare", "cron"]
    # Hosts that have not moved are reached by the former key, the others by the new one
    controller.done("health", *everybody)
    on(fleet.bare, "rm /etc/ssh/sshd_config.d/00-elsewhere.conf /etc/ssh/elsewhere; systemctl reload ssh")
    started = controller.ask("rekey", *everybody)
    until(lambda: controller.get(f"/jobs/{started['id']}")["state"] == "running", 30, "the rotation to begin")
    controller.kill()
    controller.start()
    job = controller.ended(started)
    assert job["state"] == "succeeded", controller.story(job)
    assert controller.ssh_key() == new
    assert all(holds(fleet, name, new) and not holds(fleet, name, old) for name in everybody)
    assert "controller-ssh-key-former" not in {each["kind"] for each in controller.get("/secrets/controller")}
    controller.done("health", *everybody)
    said = json.dumps(job) + controller.http("GET", f"/jobs/{job['id']}/log?format=text").text
    assert "PRIVATE" not in said + controller.log.read_text()
