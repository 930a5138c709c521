"""Every door to a backup leaves exactly one archive, one run record and one job. One story, in order."""

import json
import time

import pytest
from fleet import at_rest
from serving import until
from support import agent, archives, on, play, records

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def story(fleet):
    """The session's fleet; nothing is left to the timers but what a test starts."""
    return fleet


@pytest.fixture(scope="module")
def earlier(story):
    """What each host had before: archives in Borg, and told archives, runs and jobs.

    Other tests have pruned on these hosts, and lost a controller that knew more.
    """
    return {host: (in_borg(story, host), told(story, host)) for host in ("web", "bare", "cron")}


def counts(story, host):
    """What a host has: archives, runs, jobs, and records of its own."""
    found = story.controller.counts(host)
    found["records"] = len(records(story.lab.hosts[host]))
    return found


def one_more(story, host, before, seconds=120, **expected):
    """Require that a host soon has exactly one archive, run, job and record more, of one another."""
    kinds = ("archives", "runs", "backup", "records")

    def look():
        after = counts(story, host)
        return after if all(after[kind] > before[kind] for kind in kinds) else None

    after = until(look, seconds, f"an archive, a run and a job of {host} more than {before}")
    for kind in kinds:
        assert after[kind] == before[kind] + 1, (kind, before, after)
    job = story.controller.items(f"/jobs?host={host}&operation=backup")[0]
    for key, value in expected.items():
        assert job[key] == value, job
    run = story.controller.items(f"/runs?host={host}")[0]
    assert run["job_id"] == job["id"], (run, job)


def grown(story, host, act, **expected):
    """Run `act` and require that the host has exactly one archive, run, job and record more."""
    at_rest(story.lab.hosts[host])
    before = counts(story, host)
    act()
    one_more(story, host, before, **expected)


@pytest.fixture(scope="module")
def clock(story):
    """Let cron on the host without systemd fire in about a minute, once; return what it had before."""
    table = "/etc/cron.d/saveos-backup"
    kept, settings = on(story.cron, f"cat {table}"), on(story.cron, "cat /etc/saveos/agent.json")
    at_rest(story.cron)
    before = counts(story, "cron")
    # without a schedule of its own the agent takes cron's word for the time
    quick = json.dumps(json.loads(settings) | {"jitter_seconds": 0, "schedule": {}})
    on(story.cron, "cat > /etc/saveos/agent.json", stdin=quick)
    # its minute begins in 15 to 75 seconds: later than this table is read, however slow this process is
    soon = on(story.cron, "date -d '+75 seconds' '+%-M %-H %-d %-m'").split()
    lines = [
        " ".join([*soon, "*", *line.split()[5:]]) if " backup" in line and line[:1] != "#" else line
        for line in kept.splitlines()
    ]
    on(story.cron, f"cat > {table}", stdin="\n".join(lines) + "\n")
    yield before
    on(story.cron, f"cat > {table}", stdin=kept + "\n")
    on(story.cron, "cat > /etc/saveos/agent.json", stdin=settings + "\n")


def test_a_bare_host_is_added_and_provisioned(story, earlier):
    """`saveos hosts add` and `POST /maintenance/provision` made agents of bare hosts; again changes nothing."""
    for name in ("web", "bare", "cron"):
        found = story.controller.get(f"/hosts/{name}")
        assert found["state"] == "enrolled", found
        assert found["agent_public_key"].startswith("ssh-ed25519 ")
    again = story.controller.done("provision", "web", "bare", "cron")
    assert sum(row["counts"].get("changed", 0) for row in again["by_host"].values()) == 0, (
        story.controller.story(again)
    )


def test_by_http(story, clock):
    """POST /maintenance/backup."""
    grown(story, "web", lambda: story.controller.done("backup", "web"), trigger="api", state="succeeded")


def test_by_command(story):
    """`saveos maintenance backup create web --wait`."""
    words = ("maintenance", "backup", "create", "web", "--wait")
    grown(story, "web", lambda: story.controller.command(*words), state="succeeded")


def test_by_playbook_with_the_callback(story):
    """`ansible-playbook playbooks/backup.yml` with SAVEOS_URL and SAVEOS_TOKEN set."""
    story.lab.inventory(storage_servers=(), agents=("web",))
    ca = str(story.controller.home / "tls" / "ca.pem")
    here = {"SAVEOS_URL": story.controller.url, "SAVEOS_TOKEN": story.controller.token, "SAVEOS_CA": ca}
    grown(story, "web", lambda: play(story.lab, "backup", **here), trigger="hand", state="succeeded")


def test_a_play_does_not_mind_a_controller_that_is_away(story):
    """The callback costs at most a few seconds and a warning."""
    story.lab.inventory(storage_servers=(), agents=("web",))
    away = {"SAVEOS_URL": f"http://{story.web.ip}:9", "SAVEOS_TOKEN": "saveos_none"}
    began = time.monotonic()
    assert "report" in play(story.lab, "health", **away).output
    assert time.monotonic() - began < 90


def test_by_systemd_unit(story):
    """`systemctl start` of the unit that the timer starts."""
    grown(story, "web", lambda: on(story.web, "systemctl start saveos-backup.service"), state="succeeded")


def test_by_timer(story):
    """The timer itself elapses."""
    drop_in = "[Timer]\\nOnCalendar=\\nOnActiveSec=1s\\nAccuracySec=100ms\\nRandomizedDelaySec=0\\n"
    folder = "/etc/systemd/system/saveos-backup.timer.d"

    def elapse():
        on(
            story.bare,
            f"mkdir -p {folder} && printf '{drop_in}' > {folder}/lab.conf && systemctl daemon-reload",
        )
        on(story.bare, "systemctl restart saveos-backup.timer")

    try:
        grown(story, "bare", elapse, trigger="timer", state="succeeded")
        assert records(story.bare)[-1]["trigger"] == "timer"
    finally:
        on(story.bare, f"rm -r {folder} && systemctl daemon-reload && systemctl restart saveos-backup.timer")


def test_by_cron(story, clock):
    """On a host without systemd as PID 1 cron starts the same run."""
    assert on(story.cron, "cat /proc/1/comm") != "systemd"
    one_more(story, "cron", clock, seconds=150, trigger="timer", state="succeeded")
    assert records(story.cron)[-1]["trigger"] == "timer"


def test_without_systemd_by_http(story):
    """A run on demand works there too, detached from the SSH session."""
    grown(story, "cron", lambda: story.controller.done("backup", "cron"), trigger="api", state="succeeded")


def test_what_the_controller_missed_is_delivered_later(story):
    """While the controller is down a host backs up by itself; the record comes when it is back, once."""
    before = story.controller.counts("web")
    story.controller.stop()
    on(story.web, "systemctl start saveos-backup.service")
    assert int(on(story.web, "ls /var/lib/saveos-agent/spool | wc -l")) == 1
    story.controller.start()
    agent(story.web, "deliver")
    agent(story.web, "deliver")
    after = until(
        lambda: (now := story.controller.counts("web"))["backup"] > before["backup"] and now,
        30,
        "the run that the controller missed",
    )
    assert after["archives"] == before["archives"] + 1
    assert after["runs"] == before["runs"] + 1
    assert after["backup"] == before["backup"] + 1


def test_restore_by_http_equals(story):
    """POST /restores brings the data back."""
    on(story.web, "rm -rf /srv/back")
    body = {"archive": "latest", "host": "web", "paths": ["/srv/data/etc"], "destination": "/srv/back"}
    made = story.controller.post("/restores", body, 202)
    job = story.controller.ended(made["job"])
    assert job["state"] == "succeeded", story.controller.story(job)
    on(story.web, "diff -r --no-dereference /srv/data/etc /srv/back/srv/data/etc")


def test_nothing_was_counted_twice(story, earlier):
    """At the end a host's new archives, asked of Borg itself, its good runs and its good jobs are as many."""
    for host, (held, before) in earlier.items():
        new = in_borg(story, host) - held
        until(lambda host=host, new=new: new <= told(story, host)[0], 60, f"{host}'s last record")
        archives, runs, jobs = (now - then for now, then in zip(told(story, host), before, strict=True))
        assert archives == new, host
        assert {job for _, job in runs} == jobs, host
        assert len(archives) == len(runs) == len(jobs) > 0, host


def in_borg(story, host):
    return {each["id"] for each in archives(story.lab.hosts[host])}


def told(story, host):
    """What the controller knows of a host: archives by Borg's ids, good runs with their jobs, good jobs."""
    archives = {each["borg_id"] for each in story.controller.items(f"/archives?host={host}")}
    runs = story.controller.items(f"/runs?host={host}")
    good = {
        (run["id"], run["job_id"])
        for run in runs
        if run["kind"] == "backup" and run["state"] in ("succeeded", "warning")
    }
    jobs = story.controller.items(f"/jobs?host={host}&operation=backup&state=succeeded")
    return archives, good, {job["id"] for job in jobs}
