"""What the roles promise, seen on the hosts."""

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import testinfra

SCENARIO = Path(__file__).resolve().parents[1]
ROOT = SCENARIO.parents[1]
INVENTORY = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "lab" / "hosts.json"
HOSTS = json.loads(INVENTORY.read_text())
CANARY = "canary-hook-5ec2e7"


def connect(name):
    return testinfra.get_host(f"ansible://{name}?ansible_inventory={INVENTORY}")


def play(playbook, *arguments):
    inventories = ["-i", str(SCENARIO / "inventory"), "-i", str(INVENTORY)]
    return subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            *inventories,
            f"playbooks/{playbook}",
            *arguments,
        ],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"},
        text=True,
        capture_output=True,
        check=False,
    )


@pytest.fixture(params=list(HOSTS["agents"]["hosts"]))
def agent(request):
    return connect(request.param)


@pytest.fixture
def server():
    return connect("vault1")


def repository(agent):
    return json.loads(agent.check_output("cat /etc/saveos/agent.json"))["repositories"][0]


def tree(agent, path):
    script = base64.b64encode((ROOT / "tests" / "lab" / "odd_tree.py").read_bytes()).decode()
    return json.loads(agent.check_output(f"echo {script} | base64 -d | python3 - describe {path}"))


def secrets_of(agent):
    passphrase = f"/etc/saveos/repositories/{repository(agent)['id']}/passphrase"
    return agent.check_output(f"cat {passphrase} /etc/saveos/token").split()


def test_check_mode_is_clean_and_shows_no_secret():
    done = play("site.yml", "--check", "--diff", "-vvv")
    assert done.returncode == 0, done.stdout
    assert re.findall(r"changed=(\d+)", done.stdout) == ["0"] * 3
    for name in HOSTS["agents"]["hosts"]:
        for secret in [CANARY, *secrets_of(connect(name))]:
            assert secret not in done.stdout + done.stderr


def test_a_changed_policy_shows_as_a_diff_without_secrets():
    changed = json.dumps({"agent_sources": ["/etc"], "agent_hooks": {"before": ["echo other-canary-77"]}})
    done = play("site.yml", "--check", "--diff", "-vvv", "-e", changed)
    assert done.returncode == 0, done.stdout
    assert "\n-- /srv/data" in done.stdout
    for secret in (CANARY, "other-canary-77"):
        assert secret not in done.stdout + done.stderr


def test_secrets_are_for_root_only(agent):
    for path in ("/etc/saveos", "/etc/saveos/repositories", "/var/lib/saveos-agent"):
        assert agent.file(path).mode == 0o700
    for name in ("passphrase", "key-export", "initialised", "sealed"):
        assert agent.file(f"/etc/saveos/repositories/{repository(agent)['id']}/{name}").mode == 0o600
    for path in ("/etc/saveos/token", "/etc/saveos/ssh/id_ed25519", repository(agent)["config"]):
        assert agent.file(path).mode == 0o600


def test_timer_is_on_and_spread(agent):
    assert agent.service("saveos-backup.timer").is_running
    assert agent.service("saveos-backup.timer").is_enabled
    shown = agent.check_output(
        "systemctl show -p Persistent,FixedRandomDelay,RandomizedDelayUSec,TimersCalendar saveos-backup.timer"
    )
    assert "Persistent=yes" in shown
    assert "FixedRandomDelay=yes" in shown
    assert "RandomizedDelayUSec=30min" in shown
    assert "OnCalendar=Mon..Fri *-*-* 03:30:00" in shown


def test_unit_is_hardened_and_still_runs_hooks(agent):
    shown = agent.check_output(
        "systemctl show -p ProtectSystem,ProtectKernelTunables,CapabilityBoundingSet saveos-backup.service"
    )
    assert "ProtectSystem=full" in shown
    assert "ProtectKernelTunables=yes" in shown
    assert "cap_sys_module" not in shown
    assert agent.file("/run/hook-ran").content_string.strip() == CANARY


def test_host_key_of_the_server_is_pinned(agent, server):
    key = server.check_output("cat /etc/ssh/ssh_host_ed25519_key.pub").split()[:2]
    assert key == agent.file("/etc/saveos/ssh/known_hosts").content_string.split()[1:3]


def test_one_run_left_one_archive_and_one_record(agent):
    assert len(json.loads(agent.check_output("saveos-agent --json snapshots"))["items"]) == 1
    records = agent.check_output("ls /var/lib/saveos-agent/runs").split()
    backups = [
        record
        for name in records
        if (record := json.loads(agent.check_output(f"cat /var/lib/saveos-agent/runs/{name}")))["kind"]
        == "backup"
    ]
    assert [record["state"] for record in backups] == ["succeeded"]
    assert backups[0]["trigger"] == "playbook"
    assert CANARY not in json.dumps(backups)


def test_restore_is_byte_for_byte_with_metadata(agent):
    before, after = tree(agent, "/srv/data"), tree(agent, "/srv/restored/srv/data")
    assert len(before) > 40
    assert after == before


def test_key_gives_no_shell_and_no_other_repository(agent):
    own = repository(agent)
    address = re.search(r"@([\d.]+):", own["url"])[1]
    ssh = (
        "ssh -F none -o BatchMode=yes -o UserKnownHostsFile=/etc/saveos/ssh/known_hosts -i "
        "/etc/saveos/ssh/id_ed25519"
    )
    assert "uid=" not in agent.run(f"timeout 10 {ssh} saveos-borg@{address} id").stdout
    others = {"agent1": "agent2", "agent2": "agent1"}
    other = repository(connect(others[agent.check_output("hostname")]))["id"]
    path = own["url"].replace(own["id"], other)
    answer = agent.run(f"BORG_RSH='{ssh}' BORG_PASSPHRASE=x /opt/saveos/bin/borg list {path}")
    assert answer.rc != 0
    assert "not allowed" in answer.stderr.lower() or "permission" in answer.stderr.lower()


def test_server(server):
    user = server.user("saveos-borg")
    assert user.home == "/srv/backups"
    assert user.password == "*"
    assert server.file("/srv/backups/.ssh/authorized_keys").user == "root"
    lines = server.file("/srv/backups/.ssh/authorized_keys").content_string.splitlines()
    assert len(lines) == 2
    serve = "/opt/saveos/server/borg serve --append-only --restrict-to-repository /srv/backups/repositories/"
    for line in lines:
        assert line.startswith(f'command="{serve}')
        assert '",restrict ssh-ed25519 ' in line
    for name in server.check_output("ls /srv/backups/repositories").split():
        directory = server.file(f"/srv/backups/repositories/{name}")
        assert (directory.user, directory.mode) == ("saveos-borg", 0o700)


def test_the_guard_runs_by_itself_and_finds_repositories_in_order(server):
    timer = server.service("saveos-guard.timer")
    assert timer.is_enabled and timer.is_running
    assert server.file("/usr/local/sbin/saveos-guard").mode == 0o755
    server.check_output("systemctl start saveos-guard.service")
    report = json.loads(server.check_output("saveos-guard report --json"))
    assert [each["id"] for each in report["repositories"]] == server.check_output(
        "ls /srv/backups/repositories"
    ).split()
    for each in report["repositories"]:
        # without a controller, containers have nobody who says that their clock is in sync
        assert {why["code"] for why in each["reasons"] if why["holds"]} <= {"clock"}, each
        assert each["state"] == ("ok" if report["clock_synced"] else "held"), each
        assert each["good_copy"] and each["last_check"]["state"] == "ok", each
