"""Hosts join by each way, twice, and are turned away with the reason. One story, in order."""

import base64
import json
import re
import subprocess

import pytest
from fleet import at_rest
from serving import Controller, until
from support import on

pytestmark = pytest.mark.lab

# name → suite; `line` joins by the line to paste, `file` by a token in a file, `push` and `list` by an admin.
HOSTS = {"line": "bookworm", "file": "trixie", "push": "bookworm", "list": "bookworm:nosystemd"}
SNAPSHOT = (
    "cd / && find etc/saveos root/.ssh usr/local/bin etc/systemd/system etc/cron.d -type f -o -type l | sort | "
    "xargs ls -ld --time-style=full-iso; find etc/saveos root/.ssh -type f | sort | xargs sha256sum"
)


@pytest.fixture(scope="module")
def story(fleet):
    """The session's fleet with four more machines that nobody prepared; they are gone at the end."""
    try:
        for name, suite in HOSTS.items():
            fleet.lab.add(name, suite)
        fleet.fill(*HOSTS)
        yield fleet
    finally:
        for name in HOSTS:
            fleet.controller.http("DELETE", f"/hosts/{name}")
            if name in fleet.lab.hosts:
                fleet.lab.drop(name)


@pytest.fixture(scope="module")
def other(story):
    """Another installation, which hosts reach, too."""
    from urllib.parse import urlsplit

    address = urlsplit(story.controller.url).hostname
    controller = Controller(story.lab.dir / "other", address)
    try:
        controller.start()
        yield controller
    finally:
        controller.stop()


@pytest.fixture(scope="module")
def expired(story):
    """A token that is good for a minute, made first so that the others need not wait."""
    return token(story.controller, "--hours", "0.02")


def token(controller, *words):
    return controller.command("enrol", "tokens", "create", "lab", *words)


def unpack(text):
    packed = text.removeprefix("saveos1.")
    return json.loads(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))


def changed(made, **changes):
    """The token's text with other content."""
    content = unpack(made["token"]) | changes
    return "saveos1." + base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


def start_line(host, command):
    """Start the line that an admin pastes; its curl runs here, in the host's network: lab hosts have none."""
    fetch, _, rest = command.partition(" | ")
    fetched = subprocess.Popen(
        ["nsenter", "-t", host.pid, "-n", "sh", "-c", fetch], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    return subprocess.Popen(
        ["podman", "exec", "-i", host.container, "sh", "-c", rest],
        stdin=fetched.stdout,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def paste(host, command, code=0):
    """Run the line and return what it said."""
    process = start_line(host, command)
    said, _ = process.communicate(timeout=180)
    assert process.returncode == code, f"{process.returncode}: {said}"
    return said


def register(host, text, *words, code=0):
    """`saveos-agent register` with a token in a file, the agent being there already."""
    on(host, "umask 077; cat > /root/token", stdin=text)
    return on(host, 'saveos-agent register --token-file /root/token "$@" 2>&1', *words, code=code, seconds=180)


def rows(controller, name):
    return [row for row in controller.items("/enrolment/registrations") if row["name"] == name]


def counted(controller, made):
    return next(t for t in controller.items("/enrolment/tokens") if t["id"] == made["id"])["uses"]


def quiet(story, name, act):
    """Require that `act` changes nothing on a host, starts no job and adds no registration."""
    host, controller = story.lab.hosts[name], story.controller
    before = (
        on(host, SNAPSHOT),
        controller.counts(name),
        rows(controller, name),
        controller.get(f"/hosts/{name}"),
    )
    said = act()
    after = (
        on(host, SNAPSHOT),
        controller.counts(name),
        rows(controller, name),
        controller.get(f"/hosts/{name}"),
    )
    for facts in (before[3], after[3]):
        for volatile in (
            "seen_at",
            "heartbeat",
            "heartbeat_at",
            "clock_skew",
            "disk_free_share",
            "next_run_at",
        ):
            facts.pop(volatile, None)
    assert after[0] == before[0]
    assert after[1:] == before[1:]
    return said


def test_the_line_waits_for_approval_and_enrols(story, expired):
    made = token(story.controller)
    host = story.lab.hosts["line"]
    process = start_line(host, made["command"])
    waiting = until(lambda: rows(story.controller, "line"), 90, "its registration")[0]
    assert (waiting["state"], waiting["address"], waiting["ssh_host_keys"]) == (
        "waiting",
        host.ip,
        [host.host_key()],
    )
    assert not on(host, "ls -A /root/.ssh 2>/dev/null || true"), "nobody is let in before the approval"
    assert story.controller.http("GET", "/hosts/line").status_code == 404
    story.controller.command("enrol", "approve", "line")
    story.controller.command("enrol", "watch", "line", "--timeout", "150")
    said, _ = process.communicate(timeout=90)
    assert process.returncode == 0, said
    assert waiting["fingerprints"][0] in said, "the person at the host can compare it"
    assert "line is enrolled." in said
    assert story.controller.get("/hosts/line")["state"] == "enrolled"
    assert story.controller.ssh_key().split()[1] in on(host, "cat /root/.ssh/authorized_keys")
    own = on(host, "cut -d' ' -f1,2 /etc/saveos/ssh/id_ed25519.pub")
    assert story.controller.get("/hosts/line")["agent_public_key"] == own, "the role kept the host's key"
    story.controller.done("backup", "line")
    at_rest(host)
    again = quiet(story, "line", lambda: paste(host, made["command"]))
    assert "line is enrolled already; nothing was changed." in again
    assert counted(story.controller, made) == 1
    assert quiet(story, "line", lambda: on(host, "saveos-agent register 2>&1")).endswith("nothing was changed.")


def test_a_pre_approved_token_needs_nobody(story):
    made = token(story.controller, "--pre-approve", "--tag", "by-file")
    host = story.lab.hosts["file"]
    story_of_script(story, "file")
    said = register(host, made["token"])
    assert "file is enrolled." in said
    shown = story.controller.get("/hosts/file")
    assert (shown["state"], shown["tags"]) == ("enrolled", ["by-file"])
    assert "nothing was changed" in quiet(story, "file", lambda: register(host, made["token"]))
    assert made["token"] not in on(host, "cat /etc/saveos/registration.json /etc/saveos/agent.json")


def story_of_script(story, name):
    """Put saveos-agent on a host as the script does."""
    agent = base64.b64encode(story.controller.http("GET", "/../../enrol/saveos-agent").content).decode()
    on(
        story.lab.hosts[name],
        "base64 -d > /usr/local/bin/saveos-agent; chmod 755 /usr/local/bin/saveos-agent",
        stdin=agent,
    )


def test_an_admin_pushes_and_imports_with_known_host_keys(story, tmp_path):
    controller, hosts = story.controller, story.lab.hosts
    story.trust("push", "list")
    add = ("hosts", "add", "push", "--address", hosts["push"].ip, "--host-key")
    controller.command(*add, hosts["push"].host_key())
    inventory = tmp_path / "hosts.json"
    variables = {
        name: {"ansible_host": hosts[name].ip, "saveos_ssh_host_keys": hosts[name].host_key()}
        for name in ("push", "list")
    }
    inventory.write_text(json.dumps({"_meta": {"hostvars": variables}, "all": {"hosts": ["push", "list"]}}))
    would = controller.command("hosts", "import", str(inventory), "--check", code=3)
    assert {row["name"]: row["outcome"] for row in would["items"]} == {
        "push": "unchanged",
        "list": "would be added",
    }
    assert controller.http("GET", "/hosts/list").status_code == 404
    controller.command("hosts", "import", str(inventory))
    controller.done("provision", "push", "list")
    again = quiet(story, "push", lambda: controller.command(*add, hosts["push"].host_key(), "--provision"))
    assert again["unchanged"] is True
    again = quiet(story, "list", lambda: controller.command("hosts", "import", str(inventory), "--provision"))
    assert {row["outcome"] for row in again["items"]} == {"unchanged"}
    wrong = quiet(story, "push", lambda: controller.command(*add, hosts["list"].host_key(), code=5))
    assert "other SSH host keys" in wrong["stderr"]
    made = token(controller)
    assert "already" in register(hosts["push"], made["token"]), "a pushed host that enrols itself, too"
    assert counted(controller, made) == 0


def test_each_refusal_has_its_reason(story, other, expired):
    """On a host of its own that is not enrolled: the one on which nothing may change."""
    controller = story.controller
    host = story.lab.add("stray", "bookworm")
    try:
        story_of_script(story, "stray")
        made, foreign = token(controller, "--pre-approve"), token(other, "--pre-approve")
        wrong = "0" * 64
        said = register(host, changed(made, p=wrong), code=5)
        assert f"the token says {wrong}" in said and "Nothing was sent" in said
        fetch = made["command"].partition(" | ")[0]
        bad_pin = re.sub(r"sha256//\S+?=", "sha256//" + "A" * 43 + "=", fetch)
        ran = subprocess.run(
            ["nsenter", "-t", host.pid, "-n", "sh", "-c", bad_pin], capture_output=True, check=False
        )
        assert (ran.returncode, ran.stdout) == (90, b""), "curl's own check of the pin"
        assert "is for the controller" in paste(
            host, f"{fetch} | SAVEOS_ENROLMENT_TOKEN={foreign['token']} sh", 5
        )
        secret = unpack(foreign["token"])["s"]
        assert "not one of this controller's" in register(host, changed(made, s=secret), code=5)
        assert "cut off" in register(host, made["token"][:40], code=2)
        used = token(controller)
        controller.command("enrol", "tokens", "revoke", made["id"])
        assert "was revoked" in register(host, made["token"], code=5)
        until(lambda: state_of(controller, expired) == "expired", 90, "the end of the token's minute")
        assert "expired at" in register(host, expired["token"], code=5)
        assert "waits" in register(host, used["token"], "--name", "waiter", "--no-wait")
        on(host, "rm -r /etc/saveos")  # a machine with the same sshd, but another identity
        assert "is used up" in register(host, used["token"], "--name", "second", code=5)
        enrolled = story.lab.hosts["line"]
        said = quiet(story, "line", lambda: register(enrolled, foreign["token"], code=5))
        assert f"The controller {controller.url} takes care of this host" in said
        controller.command("enrol", "refuse", "waiter", "--reason", "not one of ours")
        assert [row["name"] for row in controller.items("/enrolment/registrations?state=refused")] == ["waiter"]
        assert other.items("/enrolment/registrations") == []
        assert controller.http("GET", "/hosts/stray").status_code == 404
        assert not on(host, "ls -A /root/.ssh 2>/dev/null || true"), "nobody was let in"
    finally:
        story.lab.drop("stray")


def state_of(controller, made):
    return next(t for t in controller.items("/enrolment/tokens") if t["id"] == made["id"])["state"]
