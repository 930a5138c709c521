"""A controller that was down learns every run, once; one that is up sees how hosts and their runs are."""

import json
import sqlite3
import ssl
import threading
import uuid
from contextlib import closing, contextmanager, suppress
from datetime import datetime

import httpx
import pytest
from fleet import at_rest
from serving import Controller, until
from support import agent, archives, on, records

pytestmark = pytest.mark.lab

SIZES = {"files": "nfiles", "original_size": "original_size", "compressed_size": "compressed_size"}


@contextmanager
def often(host, **seconds):
    """Let timers of a host elapse every so many seconds: saveos-backup, saveos-heartbeat."""
    try:
        for name, every in seconds.items():
            folder = f"/etc/systemd/system/saveos-{name}.timer.d"
            lines = ["[Timer]", "OnCalendar=", f"OnCalendar=*:*:0/{every}", "AccuracySec=100ms"]
            drop_in = "\n".join([*lines, "RandomizedDelaySec=0", ""])
            on(host, f"mkdir -p {folder} && cat > {folder}/lab.conf", stdin=drop_in)
        units = " ".join(f"saveos-{name}.timer" for name in seconds)
        on(host, f"systemctl daemon-reload && systemctl restart {units}")
        yield
    finally:
        folders = " ".join(f"/etc/systemd/system/saveos-{name}.timer.d" for name in seconds)
        on(host, f"rm -rf {folders} && systemctl daemon-reload && systemctl restart {units}")


def moment(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def test_all_runs_of_a_downtime_appear_once(fleet):
    """Stopped for several runs of the timer, started: right ids, times and statistics, and none twice."""
    host = fleet.web
    at_rest(host)
    before = fleet.controller.counts("web")
    known = {record["run_id"] for record in records(host)}
    fleet.controller.stop()
    with often(host, backup=8):
        until(lambda: len({r["run_id"] for r in records(host)} - known) >= 3, 300, "three runs of the timer")
    at_rest(host)
    missed = [record for record in records(host) if record["run_id"] not in known]
    kept = on(host, "cp -a /var/lib/saveos-agent/spool /root/spool && ls /root/spool").split()
    assert {f"{record['run_id']}.json" for record in missed} <= set(kept)
    with often(host, heartbeat=5):  # it finds nobody for a while, then delivers by itself
        fleet.controller.start()
        until(lambda: fleet.controller.counts("web")["runs"] >= before["runs"] + len(missed), 60, "the runs")
    on(
        host, "cp -a /root/spool/. /var/lib/saveos-agent/spool/ && rm -r /root/spool"
    )  # as if no answer had come
    agent(host, "deliver")
    agent(host, "heartbeat")
    after = until(
        lambda: (now := fleet.controller.counts("web"))["backup"] >= before["backup"] + len(missed) and now,
        30,
        "a job of each run",
    )
    for kind in ("runs", "archives", "backup"):
        assert after[kind] == before[kind] + len(missed), (kind, before, after, len(missed))
    same_as_told(fleet, missed)


def same_as_told(fleet, missed):
    """Require each run with the host's own times, and each archive with Borg's own statistics."""
    runs = {run["id"]: run for run in fleet.controller.items("/runs?host=web")}
    reported = {each["borg_id"]: each for each in fleet.controller.items("/archives?host=web")}
    real = {each["id"] for each in archives(fleet.web)}
    for record in missed:
        run, archive = runs[record["run_id"]], record["results"][0]["archive"]
        assert (run["state"], run["trigger"]) == ("succeeded", "timer")
        for key in ("started_at", "finished_at"):
            assert moment(run[key]) == moment(record[key]), (key, run, record)
        assert moment(run["received_at"]) > moment(run["finished_at"])
        told = reported[archive["id"]]
        assert archive["id"] in real and told["run_id"] == record["run_id"]
        assert {name: told[name] for name in SIZES} == {name: archive[key] for name, key in SIZES.items()}
        assert moment(told["started_at"]) == moment(archive["started_at"])
    host = fleet.controller.get("/hosts/web")
    assert host["protection"] == "protected"
    assert moment(host["last_backup_at"]) == max(moment(record["finished_at"]) for record in missed)


def test_a_heartbeat_tells_how_the_host_is(fleet):
    """By the host's own unit, in its sandbox, and with cron; every fact is there."""
    with often(fleet.web, heartbeat=5):
        first = fleet.controller.get("/hosts/web")["heartbeat_at"]
        host = until(
            lambda: (now := fleet.controller.get("/hosts/web"))["heartbeat_at"] != first and now,
            30,
            "a heartbeat",
        )
    told = host["heartbeat"]
    assert abs(host["clock_skew"]) < 30 and 0 < host["disk_free_share"] < 1
    assert told["clock_synchronised"] in (
        True,
        False,
    )  # asked and answered: it would be null in a stricter sandbox
    assert moment(told["next_run_at"]) > moment(host["heartbeat_at"])
    assert {"/"} <= {disk["path"] for disk in told["disks"]}
    assert host["versions"]["borg"].startswith("1.4.")
    on(fleet.cron, "$(grep -o '/opt/saveos/bin/saveos-agent .* heartbeat' /etc/cron.d/saveos-backup)")
    assert fleet.controller.get("/hosts/cron")["heartbeat"]["init"] == "cron"
    for host in (fleet.bare, fleet.web):  # theirs may have come while a record was on its way
        on(host, "saveos-agent heartbeat")
    stats = fleet.controller.get("/agents/stats")
    assert stats["heartbeats"]["1h"] >= 2 and stats["spooled"] == 0
    assert sum(stats["versions"]["borg"].values()) == stats["hosts"]


def test_progress_of_a_run_by_the_timers_unit_is_seen_live(fleet):
    """Whoever started a run: its figures grow while it goes on, and are gone when its record is there."""
    at_rest(fleet.web)
    on(
        fleet.web,
        "mkdir /srv/data/big && for n in $(seq 60); do head -c 8M /dev/urandom > /srv/data/big/$n; done",
    )
    seen = []

    def look():
        running = fleet.controller.get("/hosts/web/running")
        if running and running not in seen:
            seen.append(running)
        return not running and seen

    try:
        on(fleet.web, "systemctl start --no-block saveos-backup.service")
        until(look, 120, "a run that goes on, and then not")
    finally:
        at_rest(fleet.web)
        on(fleet.web, "rm -r /srv/data/big")
    assert len({each["run_id"] for each in seen}) == 1
    sizes = [each["original_size"] for each in seen if each["original_size"]]
    assert len(sizes) >= 2 and sizes == sorted(sizes) and len(set(sizes)) > 1, seen
    assert seen[0]["host"] == "web" and seen[0]["kind"] == "backup" and seen[-1]["repository_id"]
    assert fleet.controller.items("/running") == []
    assert fleet.controller.get(f"/runs/{seen[0]['run_id']}")["state"] == "succeeded"


def test_what_was_acknowledged_survives_kill_9(tmp_path):
    """Many hosts check in at once and the controller is killed; every acknowledged run is there after it."""
    from bench.checkins import PLACE, Server, record

    controller = Controller(tmp_path / "home", "127.0.0.1", SAVEOS_TLS="on")
    controller.start()
    try:
        told = Server(tmp_path / "home")
        told.fill(8)
        acknowledged: list[str] = []
        trust = ssl.create_default_context(cafile=tmp_path / "home" / "tls" / "ca.pem")

        def tell(teller):
            with httpx.Client(verify=trust, trust_env=False) as client, suppress(httpx.TransportError):
                while True:
                    run_id = str(uuid.uuid4())
                    body = json.dumps({"runs": [record(teller)]}).replace(PLACE, run_id)
                    answer = client.post(
                        f"{controller.url}/api/v1/agents/checkins",
                        content=body,
                        headers={"Authorization": f"Bearer {teller.token}"},
                    )
                    assert answer.json()["accepted"] == 1, answer.text
                    acknowledged.append(run_id)

        threads = [threading.Thread(target=tell, args=(teller,)) for teller in told.tellers]
        for thread in threads:
            thread.start()
        until(lambda: len(acknowledged) > 200, 60, "200 check-ins")
        controller.kill()
        for thread in threads:
            thread.join(30)
    finally:
        controller.stop()
    with closing(sqlite3.connect(tmp_path / "home" / "saveos.db")) as database:
        stored = {str(uuid.UUID(run_id)) for (run_id,) in database.execute("select id from runs")}
    assert set(acknowledged) <= stored
    assert len(acknowledged) == len(set(acknowledged))
