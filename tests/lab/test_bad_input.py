"""What goes wrong on real hosts ends with a sentence that says how to fix it, and nothing half-done."""

import re

import pytest
from fleet import at_rest
from serving import until
from support import agent, archives, on, records

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def story(fleet):
    """The session's fleet; web has at least one archive."""
    fleet.controller.done("backup", "web")
    return fleet


def is_advice(sentence):
    """Require a sentence for people: no traceback, no module dump, long enough to say what to do."""
    assert len(sentence) > 30, sentence
    assert not re.search(r"Traceback|MODULE FAILURE|non-zero return code|\{'", sentence), sentence


def failed_backup(story, host, code):
    """Run a backup job that must fail with a stable code; return what the person reads."""
    before = story.controller.counts(host)
    job = story.controller.ended(story.controller.ask("backup", host))
    assert job["state"] == "failed", story.controller.story(job)
    assert job["error"] and job["error_type"], job
    sentence = story.error(job, host)
    is_advice(sentence)
    (result,) = job["by_host"][host]["result"]["run"]["results"]
    assert result["error"]["code"] == code, result
    assert result["error"]["fix"]
    after = story.controller.counts(host)
    assert after["archives"] == before["archives"]
    assert after["runs"] == before["runs"] + 1
    assert story.controller.items(f"/runs?host={host}")[0]["error_code"] == code
    return sentence


def repository_path(story, host):
    """Return the directory of a host's repository on the server."""
    (repository,) = story.controller.items(f"/repositories?host={host}")
    return f"/srv/saveos/repositories/{repository['id']}"


def test_repository_gone(story):
    """It is never made anew silently: neither by a backup nor by provisioning."""
    path = repository_path(story, "web")
    on(story.vault, 'mv "$1" /srv/gone', path)
    try:
        failed_backup(story, "web", "repository_gone")
        job = story.controller.ended(story.controller.ask("provision", "web"))
        assert job["state"] in ("failed", "partial"), story.controller.story(job)
        assert "is gone" in story.error(job, "web")
        is_advice(story.error(job, "web"))
        assert on(story.vault, 'test -e "$1/config" || echo none', path) == "none"
    finally:
        on(story.vault, 'rm -rf "$1" && mv /srv/gone "$1"', path)
    story.controller.done("backup", "web")


def test_passphrase_wrong(story):
    """The host has a passphrase that does not open its repository."""
    file = "/etc/saveos/repositories/*/passphrase"
    kept = on(story.web, f"cat {file}")
    on(story.web, f"echo not-the-passphrase > $(ls {file})")
    try:
        failed_backup(story, "web", "passphrase_wrong")
        job = story.controller.ended(story.controller.ask("provision", "web"))
        assert job["state"] in ("failed", "partial"), story.controller.story(job)
        is_advice(story.error(job, "web"))
        assert "passphrase" in story.error(job, "web")
        assert kept not in story.controller.story(job)
    finally:
        on(story.web, f"cat > $(ls {file})", stdin=kept + "\n")
    story.controller.done("backup", "web")


def test_server_unreachable(story):
    """The storage server does not answer the host."""
    at_rest(story.web)  # else the backup before prunes against the wall, for a minute
    undo = story.vault.block(story.web)
    try:
        failed_backup(story, "web", "server_unreachable")
    finally:
        undo()
    story.controller.done("backup", "web")


def test_server_with_another_host_key(story):
    """The storage server shows another key than the pinned one: an attack, until somebody says otherwise."""
    with other_host_key(story.vault):
        failed_backup(story, "web", "host_key_changed")
    story.controller.done("backup", "web")


class other_host_key:
    """Give a host a new SSH host key for a while."""

    def __init__(self, host):
        self.host = host

    def __enter__(self):
        on(self.host, "mkdir /root/kept && cp -p /etc/ssh/ssh_host_* /root/kept/")
        on(
            self.host,
            "rm /etc/ssh/ssh_host_* && ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key",
        )
        on(self.host, "systemctl restart ssh")

    def __exit__(self, *_):
        on(self.host, "cp -p /root/kept/* /etc/ssh/ && rm -r /root/kept && systemctl restart ssh")
        self.host.wait_ssh()


def test_host_with_another_key(story):
    """The controller refuses a host whose key is not the pinned one, and says both ways out."""
    # a control socket of an earlier job must not hide it: each job has its own
    kept = len(records(story.bare))
    with other_host_key(story.bare):
        job = story.controller.ended(story.controller.ask("backup", "bare"), 60)
    assert job["state"] == "failed", story.controller.story(job)
    assert job["by_host"]["bare"]["state"] == "unreachable"
    assert "host key" in story.error(job, "bare").lower()
    is_advice(story.error(job, "bare"))
    assert job["error_type"]
    assert len(records(story.bare)) == kept


def test_host_unreachable(story):
    """A frozen host is noticed in seconds, others in the job go on."""
    undo = story.bare.freeze()
    try:
        job = story.controller.ended(story.controller.ask("health", "bare", "web"), 60)
    finally:
        undo()
    assert job["state"] == "partial", story.controller.story(job)
    assert job["by_host"]["bare"]["state"] == "unreachable"
    assert job["by_host"]["web"]["state"] in ("ok", "changed")
    is_advice(story.error(job, "bare"))
    retried = story.controller.ended(story.controller.post(f"/jobs/{job['id']}/retry", {}, 202))
    assert list(retried["by_host"]) == ["bare"]
    assert (retried["state"], retried["retry_of"]) == ("succeeded", job["id"]), story.controller.story(retried)


def test_sudo_missing(story):
    """A log-in that is not root and may not become it."""
    user = "useradd -m -s /bin/sh plain && install -d -o plain -m 700 /home/plain/.ssh"
    key = 'echo "$1" > /home/plain/.ssh/authorized_keys && chown plain /home/plain/.ssh/authorized_keys'
    on(story.bare, f"{user} && {key}", story.controller.ssh_key())
    story.add("plain", "--user", "plain", host="bare")
    try:
        job = story.controller.ended(story.controller.ask("provision", "plain"))
        assert job["state"] in ("failed", "partial"), story.controller.story(job)
        assert "sudo" in story.error(job, "plain")
        is_advice(story.error(job, "plain"))
        assert story.controller.get("/hosts/plain")["state"] == "pending"
    finally:
        story.controller.command("hosts", "remove", "plain", "--yes")
        on(story.bare, "pkill -u plain; userdel -r plain", code=None)


def test_full_disk_on_the_server(story):
    """Borg stops cleanly, earlier archives restore, and the next run works as soon as there is room."""
    path = repository_path(story, "web")
    small = 'mount -t tmpfs -o size=$(($(du -sm /srv/kept | cut -f1) + 16))m tmpfs "$1"'
    keep = 'cp -a /srv/kept/. "$1/" && chown --reference=/srv/kept "$1" && chmod 700 "$1"'
    back = 'cp -a "$1/." /srv/kept/; umount "$1" && rmdir "$1" && mv /srv/kept "$1"'
    on(story.vault, f'mv "$1" /srv/kept && mkdir "$1" && {small} && {keep}', path)
    on(story.web, "head -c 60000000 /dev/urandom > /srv/data/big")
    try:
        failed_backup(story, "web", "disk_full")
        on(story.web, "rm -rf /srv/back")
        body = {"archive": "latest", "host": "web", "paths": ["/srv/data/stamp"], "destination": "/srv/back"}
        restore = story.controller.ended(story.controller.post("/restores", body, 202)["job"])
        assert restore["state"] == "succeeded", story.controller.story(restore)
        on(story.vault, 'mount -o remount,size=1g "$1"', path)
        story.controller.done("backup", "web")
    finally:
        on(story.web, "rm -f /srv/data/big")
        on(story.vault, back, path)
    assert archives(story.web)


def test_a_restore_that_cannot_work_leaves_nothing(story):
    """An archive that is not there, a path that is not in it, a full destination: no half-filled directory."""
    cases = [
        {"paths": ["/srv/data/no-such-file"], "destination": "/srv/nothing"},
        {"paths": ["/srv/data/stamp"], "destination": "/etc"},
    ]
    for case in cases:
        answer = story.controller.http("POST", "/restores", {"archive": "latest", "host": "web", **case})
        if answer.status_code == 422:
            is_advice(answer.json()["detail"])
            continue
        job = story.controller.ended(answer.json()["job"])
        assert job["state"] == "failed", story.controller.story(job)
        is_advice(story.error(job, "web"))
    assert on(story.web, "ls -d /srv/nothing* /srv/.nothing* 2>/dev/null || true") == ""


def test_a_source_that_is_missing(story):
    """A policy's source is not on the host: said by name, other sources are not silently half backed up."""
    on(story.bare, "mv /srv/data /srv/away")
    try:
        sentence = failed_backup(story, "bare", "source_missing")
        assert "/srv/data" in sentence
    finally:
        on(story.bare, "mv /srv/away /srv/data")
    until(lambda: agent(story.bare, "status"), 5, "status")
