"""kill -9 in the middle of a job, and cancel: jobs end, nothing is left behind, nothing runs twice at once."""

import os
import signal
import time
import uuid

import pytest
from fleet import Census, at_rest, processes_of, wait_for_borg
from serving import until
from support import agent, archives, in_network, on, records

pytestmark = pytest.mark.lab

FINAL_WITHIN = 60  # seconds after the restart, as issue and trust.md's bar 1 say


@pytest.fixture(scope="module")
def story(fleet):
    """The session's fleet, with data on web that takes a while over a slow link."""
    on(fleet.web, "head -c 40000000 /dev/urandom > /srv/data/big")
    yield fleet
    on(fleet.web, "rm /srv/data/big")


@pytest.fixture
def slow_backup(story):
    """Start a backup job of web over a slow link, wait until borg writes, and yield the job."""
    on(story.web, "head -c 40000000 /dev/urandom > /srv/data/big")
    undo = story.web.slow("8mbit")
    try:
        job = story.controller.ask("backup", "web")
        wait_for_borg(story.web)
        assert story.controller.get(f"/jobs/{job['id']}")["state"] == "running"
        yield job
    finally:
        undo()


def link_is_fast(story, rate="4gbit"):
    """Take the brake off before the fixture does."""
    shape = ["tbf", "rate", rate, "burst", "1mb", "latency", "50ms"]
    in_network(story.web, "tc", "qdisc", "replace", "dev", "eth0", "root", *shape)


def nothing_left(story):
    """Require that neither controller nor host keeps a process of a job."""
    until(
        lambda: not processes_of(story.controller), 60, f"no process of a job: {processes_of(story.controller)}"
    )
    at_rest(story.web)


def supervisors(story, job):
    """Return the pids of a job's supervisors; a schedule may have one of its own."""
    mine = uuid.UUID(job["id"]).hex
    return [
        pid for pid, words in processes_of(story.controller).items() if "supervisor" in words and mine in words
    ]


def test_kill_of_the_controller(story, slow_backup):
    """After kill -9 and a restart the run is joined: final in time, one archive, never two at once."""
    before = story.controller.counts("web")
    kept = len(archives_when_free(story))
    with Census(story.web) as census:
        story.controller.kill()
        until(
            lambda: not processes_of(story.controller),
            60,
            f"the job's processes end: {processes_of(story.controller)}",
        )
        story.controller.start()
        began = time.monotonic()
        time.sleep(3)
        link_is_fast(story)
        job = story.controller.ended(slow_backup, FINAL_WITHIN)
        assert time.monotonic() - began < FINAL_WITHIN
    assert job["state"] == "succeeded", story.controller.story(job)
    assert job["attempt"] == 2
    assert census.most == 1
    after = story.controller.counts("web")
    assert (after["archives"], after["runs"]) == (before["archives"] + 1, before["runs"] + 1)
    assert after["backup"] == before["backup"], "the run became a second job"
    assert len(archives(story.web)) == kept + 1
    nothing_left(story)


def archives_when_free(story):
    """Return web's run records that have an archive: its repository is locked while borg writes."""
    return [record for record in records(story.web) if any(r.get("archive") for r in record["results"])]


def test_kill_of_the_supervisor(story, slow_backup):
    """kill -9 of the supervisor: the job is final in time, nothing ran twice at once."""
    before = story.controller.counts("web")
    with Census(story.web) as census:
        (supervisor,) = supervisors(story, slow_backup)
        os.kill(supervisor, signal.SIGKILL)
        time.sleep(2)
        link_is_fast(story)
        job = story.controller.ended(slow_backup, FINAL_WITHIN)
    assert job["state"] == "succeeded", story.controller.story(job)
    assert census.most == 1
    after = story.controller.counts("web")
    assert (after["archives"], after["runs"]) == (before["archives"] + 1, before["runs"] + 1)
    nothing_left(story)


def test_kill_of_controller_and_supervisor(story, slow_backup):
    """Both at once, as when a machine runs out of memory."""
    before = story.controller.counts("web")
    with Census(story.web) as census:
        victims = supervisors(story, slow_backup)
        story.controller.kill()
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        story.controller.start()
        link_is_fast(story)
        job = story.controller.ended(slow_backup, FINAL_WITHIN)
    assert job["state"] == "succeeded", story.controller.story(job)
    assert census.most == 1
    after = story.controller.counts("web")
    assert (after["archives"], after["runs"]) == (before["archives"] + 1, before["runs"] + 1)
    nothing_left(story)


def test_cancel_ends_the_run_on_the_host(story, slow_backup):
    """Cancel stops borg on the host, at once; the job and the run say so; the next backup needs no hand."""
    began = time.monotonic()
    story.controller.post(f"/jobs/{slow_backup['id']}/cancel", {}, 202)
    job = story.controller.ended(slow_backup, 60)
    assert job["state"] == "canceled", story.controller.story(job)
    assert job["by_host"]["web"]["state"] == "canceled"
    nothing_left(story)
    assert time.monotonic() - began < 90
    assert on(story.web, "systemctl is-active saveos-backup.service", code=3) in ("inactive", "failed")
    until(lambda: records(story.web)[-1]["state"] == "canceled", 60, "a canceled run record")
    link_is_fast(story)
    story.controller.done("backup", "web")


def test_cancel_of_a_queued_job_and_of_a_host_without_systemd(story):
    """A job that waits is canceled at once; a detached run on a host without systemd ends too."""
    at_rest(story.cron)
    on(story.cron, "head -c 60000000 /dev/urandom > /srv/data/big")  # two minutes, unless it is ended
    undo = story.cron.slow("4mbit")
    try:
        running = story.controller.ask("backup", "cron")
        wait_for_borg(story.cron)
        waiting = story.controller.ask("backup", "cron")
        blocked = until(lambda: story.controller.get(f"/jobs/{waiting['id']}")["blocked_by"], 30, "blocked_by")
        assert "cron" in blocked or running["id"] in blocked
        story.controller.post(f"/jobs/{waiting['id']}/cancel", {}, 202)
        assert story.controller.ended(waiting, 30)["state"] == "canceled"
        assert story.controller.get(f"/jobs/{running['id']}")["state"] == "running"
        story.controller.command("jobs", "cancel", running["id"])
        ended = story.controller.ended(running, 60)
        assert ended["state"] == "canceled", story.controller.story(ended)
        at_rest(story.cron)
    finally:
        undo()
        on(story.cron, "rm /srv/data/big")
    story.controller.done("backup", "cron")


def test_two_triggers_are_one_run(story):
    """A job that meets the timer's run joins it: one archive, and both know it."""
    on(story.web, "head -c 40000000 /dev/urandom > /srv/data/big")
    undo = story.web.slow("8mbit")
    try:
        at_rest(story.web)
        kept = len(records(story.web))
        on(story.web, "systemctl start --no-block saveos-backup.service")
        wait_for_borg(story.web)
        with Census(story.web) as census:
            job = story.controller.ask("backup", "web")
            until(lambda: on(story.web, "pgrep -f '[b]ackup --wait' || true"), 60, "the job on the host")
            link_is_fast(story, "48mbit")  # the run must last until the job's process has looked for it
            ended = story.controller.ended(job, 120)
        assert ended["state"] == "succeeded", story.controller.story(ended)
        assert ended["by_host"]["web"]["result"]["run"]["joined"] is True
        assert census.most == 1
        assert len(records(story.web)) == kept + 1
    finally:
        undo()
    assert agent(story.web, "status")
