"""`saveos up` on a fresh machine, with systemd and without: the newcomer's whole way, then away again."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import ROOT, Host, Lab, recap

PROGRAM = Path(sys.executable).with_name("saveos")
SECOND = "SAVEOS_HOME=/opt/second SAVEOS_LISTEN=127.0.0.1:8200 "
SOURCES = "/usr/share/doc"

MACHINES = ["bookworm", "bookworm:nosystemd"]
# Where systemd makes no difference, the machine that has it is enough.
AND_WITHOUT_SYSTEMD = pytest.mark.parametrize(
    "machine", [MACHINES[0], pytest.param(MACHINES[1], marks=pytest.mark.thorough)], indirect=True
)

pytestmark = pytest.mark.lab


class Machine:
    """A fresh machine with this checkout on it."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def saveos(self, words: str, setting: str = "") -> str:
        """Run the command and return what it prints; AssertionError with its words when it fails."""
        text = self.host.sh(f"{setting} {PROGRAM} {words} 2>&1 || echo '[it failed]'")
        assert "[it failed]" not in text, text
        return text

    def refused(self, words: str, setting: str = "") -> str:
        """Run a command that must fail with one sentence; return it."""
        text = self.host.sh(f"! {setting} {PROGRAM} {words} 2>&1")
        assert text.startswith("saveos: "), text
        assert "Traceback" not in text
        return text

    def items(self, noun: str, setting: str = "") -> list[dict]:
        """Return a list of the API, with the token that `up` stored."""
        return json.loads(self.saveos(f"--json {noun} list", setting))["items"]


@pytest.fixture(scope="module", params=MACHINES)
def machine(request) -> Iterator[Machine]:
    with Lab({"fresh": request.param}, options=("-v", f"{ROOT}:{ROOT}:ro")) as lab:
        host = lab.hosts["fresh"]
        # The lab's own key is mounted, and a mounted file cannot be replaced.
        keys = "/root/.ssh/authorized_keys"
        host.sh(f"cp {keys} /root/keys; umount {keys}; mv /root/keys {keys}; chmod 600 {keys}")
        yield Machine(host)


def test_the_first_run_ends_with_a_proven_archive(machine):
    text = machine.saveos(f"up {SOURCES}")
    assert "restored files of fresh are equal to the live ones" in text
    assert "one-time password" in text
    assert "http://127.0.0.1:8000" in text
    (archive,) = machine.items("archives")
    assert archive["files"] > 20
    assert archive["original_size"] > archive["deduplicated_size"] > 0
    jobs = machine.items("jobs")
    assert sorted(job["operation"] for job in jobs) == ["backup", "provision", "restore"]
    assert {job["state"] for job in jobs} == {"succeeded"}
    (host,) = machine.items("hosts")
    assert (host["name"], host["state"], host["protection"]) == ("fresh", "enrolled", "protected")


def test_only_root_reads_what_it_keeps(machine):
    public = "-name '*.pub' -o -name known_hosts"
    command = (
        f"find /var/lib/saveos /etc/saveos /var/lib/saveos-agent ! \\( -type l -o {public} \\) -perm /0077"
    )
    assert machine.host.sh(command) == ""


@AND_WITHOUT_SYSTEMD
def test_the_second_run_changes_nothing(machine):
    before = machine.items("archives")
    keys = machine.host.sh("cat /root/.ssh/authorized_keys")
    text = machine.saveos("up")
    assert recap(text)["fresh"]["changed"] == 0
    assert "The controller is running" in text
    assert machine.items("archives") == before
    assert machine.host.sh("cat /root/.ssh/authorized_keys") == keys


@AND_WITHOUT_SYSTEMD
def test_a_whole_restore_is_equal(machine):
    machine.saveos(f"restores create --host fresh --path {SOURCES} --destination /root/back --wait")
    assert machine.host.sh(f"diff -r --no-dereference {SOURCES} /root/back{SOURCES}") == ""


def test_doctor_has_nothing_to_fix(machine):
    assert "FIX" not in machine.saveos("doctor")


def test_a_killed_controller_comes_back(machine):
    machine.host.sh("pkill -9 -f -- '-I [^ ]*/saveos serve$'")  # not what keeps it
    machine.host.sh(
        "for i in $(seq 300); do python3 -c \"import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health')\""
        " 2>/dev/null && exit; sleep 0.2; done; exit 1"
    )
    assert machine.items("archives")


@pytest.mark.thorough
def test_an_installation_that_was_deleted_is_cleaned_up_after(machine):
    assert "are equal" in machine.saveos("up /etc/ssh", SECOND)
    assert recap(machine.saveos("up", SECOND))["fresh"]["changed"] == 0
    machine.host.sh("rm -rf /opt/second")
    text = machine.saveos("up /etc/ssh", SECOND)
    assert "An earlier installation in /opt/second was deleted without `make purge`" in text
    assert "are equal" in text
    assert len(machine.items("archives", SECOND)) == 1
    machine.saveos("purge --yes", SECOND)
    machine.host.sh("rm -rf /opt/second")


@pytest.mark.thorough
def test_another_installation_shares_the_machine(machine):
    first = machine.items("archives")
    assert "in use by another program" in machine.refused("up /etc", "SAVEOS_HOME=/opt/second")
    assert machine.host.sh("ls /opt") == "saveos", "a refused run leaves nothing"
    assert "are equal" in machine.saveos("up /etc/ssh", SECOND)
    assert len(machine.items("archives", SECOND)) == 1
    assert machine.items("archives") == first
    kept = machine.saveos("purge --yes", SECOND)
    assert "/opt/second/storage/repositories" in kept
    assert machine.host.sh("getent passwd | grep saveos-borg | cut -d: -f1") == "saveos-borg"
    assert recap(machine.saveos("up"))["fresh"]["changed"] == 0, "the first one is as it was"


@AND_WITHOUT_SYSTEMD
def test_what_cannot_work_is_a_sentence_and_changes_nothing(machine):
    before = machine.host.sh("ls -A /opt /var/lib; cat /root/.ssh/authorized_keys")
    third = "SAVEOS_HOME=/opt/third SAVEOS_LISTEN=127.0.0.1:8300 "
    assert "is no directory here" in machine.refused("up /no/such/directory", third)
    assert "SAVEOS_LISTEN must look like" in machine.refused(
        "up /etc", "SAVEOS_HOME=/opt/third SAVEOS_LISTEN=nonsense"
    )
    assert "only its owner may enter" in machine.refused(
        "up /etc", "SAVEOS_HOME=/root/third SAVEOS_LISTEN=127.0.0.1:8300"
    )
    assert "needs root" in machine.host.sh(f"! su -s /bin/sh nobody -c '{PROGRAM} up /etc' 2>&1")
    assert machine.host.sh("ls -A /opt /var/lib; cat /root/.ssh/authorized_keys") == before


@AND_WITHOUT_SYSTEMD
def test_down_stops_and_up_starts(machine):
    assert "is stopped" in machine.saveos("down")
    assert "does not answer" in machine.refused("hosts list")
    assert "does not run" in machine.host.sh(f"{PROGRAM} doctor 2>&1 || true")
    assert recap(machine.saveos("up"))["fresh"]["changed"] == 0


def test_purge_keeps_the_repositories_and_what_opens_them(machine):
    kept = machine.saveos("purge --yes")
    assert "/srv/saveos/repositories" in kept
    assert "/etc/saveos/repositories" in kept
    assert "Kept, as /srv/saveos is: the user saveos-borg." in kept
    left = machine.host.sh(
        "ls -d /var/lib/saveos /var/lib/saveos-agent /opt/saveos /etc/cron.d/saveos* 2>/dev/null || true"
    )
    assert left == ""
    assert machine.host.sh("ls /etc/systemd/system | grep saveos || true") == ""
    assert "saveos-controller" not in machine.host.sh("cat /root/.ssh/authorized_keys")
    assert machine.host.sh("pgrep -af '[s]aveos' || true") == ""
    repository = machine.host.sh("ls -d /srv/saveos/repositories/*")
    assert (
        machine.host.sh(f"test -s {repository}/config && test -s /etc/saveos/repositories/*/passphrase") == ""
    )
    assert "no installation" in machine.saveos("purge --yes")
    machine.host.sh("rm -rf /srv/saveos")
    assert "Its storage is gone, and so is the user saveos-borg." in machine.saveos("purge --yes")
    assert machine.host.sh("getent passwd saveos-borg || true") == ""
