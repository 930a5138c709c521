"""Heartbeats and progress: the newest counts, what ended is gone, and odd words do no harm."""

import json
import uuid
from datetime import timedelta

import pytest
from saveos.checkins.models import RunningBackup
from saveos.core.clock import now
from saveos.hosts.models import Host
from sqlalchemy import update


def at(**delta):
    return (now() + timedelta(**delta)).isoformat()


@pytest.fixture
def host(api):
    api.made("/hosts", {"name": "vault", "is_agent": False, "is_storage_server": True})
    made = api.made("/hosts", {"name": "web1"})
    made["repository"] = api.get("/repositories?host=web1").json()["items"][0]["id"]
    made["token"] = api.agent_token(made["id"])
    return made


def beat(api, host, **changes):
    body = {
        "at": at(),
        "versions": {"agent": "0.1.0", "borg": "1.4.5", "borgmatic": None},
        "init": "systemd",
        "boot_time": at(days=-3),
        "disks": [
            {"path": "/", "total": 1000, "free": 400, "inodes": 100, "inodes_free": 50},
            {"path": "/var", "total": 1000, "free": 90, "inodes": 0, "inodes_free": 0},
            {"path": "/sys", "total": 0, "free": 0},
        ],
        "load": [0.1, 0.2, 0.3],
        "memory": {"total": 4096, "available": 1024},
        "clock_synchronised": True,
        "next_run_at": at(hours=4),
        "spool": 0,
        "later": {"unknown": 1},
    }
    return api.post("/agents/heartbeat", body | changes, token=host["token"])


def progress(api, host, run_id, **changes):
    body = {
        "run_id": run_id,
        "kind": "backup",
        "trigger": "timer",
        "job_id": None,
        "started_at": at(minutes=-1),
        "repository_id": host["repository"],
        "phase": "create",
        "files": 10,
        "original_size": 1000,
        "compressed_size": 500,
        "deduplicated_size": 100,
    }
    return api.post("/agents/progress", body | changes, token=host["token"])


def test_a_heartbeat_says_how_the_host_is(api, host):
    answer = beat(api, host)
    assert answer.status_code == 200 and answer.json()["at"] <= at()
    assert answer.json()["last_run_at"] is None
    shown = api.get("/hosts/web1").json()
    assert shown["heartbeat"]["load"] == [0.1, 0.2, 0.3]
    assert shown["heartbeat"]["disks"][1] == {
        "path": "/var", "total": 1000, "free": 90, "inodes": 0, "inodes_free": 0
    }  # fmt: skip
    assert (shown["disk_free_share"], shown["versions"]) == (0.09, {"agent": "0.1.0", "borg": "1.4.5"})
    assert abs(shown["clock_skew"]) < 5
    assert shown["heartbeat_at"] == shown["seen_at"]
    assert "unknown" not in json.dumps(shown["heartbeat"])


@pytest.mark.parametrize("off", [-3600, 90])
def test_a_wrong_clock_is_seen_and_hides_nothing(api, host, off):
    beat(api, host, at=at(seconds=off))
    shown = api.get("/hosts/web1").json()
    assert shown["clock_skew"] == pytest.approx(off, abs=5)
    assert shown["heartbeat_at"] <= at()
    assert api.get("/agents/stats").json()["skewed"] == 1


@pytest.mark.parametrize(
    "changes, status, field",
    [
        ({"at": "now"}, 422, "at"),
        ({"at": "0001-01-01T00:00:00+14:00"}, 422, "at"),
        ({"disks": [{"path": "/", "total": -1, "free": 0}]}, 422, "disks.0.total"),
        ({"spool": 2**63}, 422, "spool"),
        ({"load": [-1]}, 422, "load.0"),
        ({"versions": {"a\x00\ud800": "1\x00\ud800"}}, 200, None),
        ({"disks": [{"path": "/\x00\ud800" * 50, "total": 1, "free": 1}] * 70}, 200, None),
        ({"versions": {str(n): "1" for n in range(1000)}}, 200, None),
        ({"os": "x" * 100_000}, 413, None),
    ],
)
def test_odd_heartbeats(api, host, changes, status, field):
    body = json.dumps({"at": at()} | changes)  # escapes, so that the surrogates survive the way
    answer = api.call("POST", "/agents/heartbeat", token=host["token"], content=body)
    assert (answer.status_code, answer.json().get("field")) == (status, field), answer.text
    shown = api.get("/hosts/web1").json()
    assert (shown["heartbeat_at"] is not None) == (status == 200)
    assert len(json.dumps(shown)) < 40_000


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 60_000, b"\xff", b"null", b'{"at": NaN}'])
@pytest.mark.parametrize("path", ["/agents/checkins", "/agents/heartbeat", "/agents/progress"])
def test_what_is_no_json_is_refused(api, host, path, body):
    answer = api.call("POST", path, token=host["token"], content=body)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:saveos:problem:invalid"), answer.text


def test_progress_is_shown_until_the_record_comes(api, host):
    run_id = str(uuid.uuid4())
    assert api.get("/hosts/web1/running").json() is None
    assert progress(api, host, run_id, phase="start", files=None).status_code == 204
    assert progress(api, host, run_id, files=11).status_code == 204
    running = api.get("/running").json()["items"]
    assert [(each["host"], each["files"], each["phase"]) for each in running] == [("web1", 11, "create")]
    assert api.get("/hosts/web1/running").json() == running[0]
    assert api.get("/agents/stats").json()["running"] == 1
    record = {"run_id": run_id, "state": "failed", "started_at": at(minutes=-1), "finished_at": at()}
    assert api.post("/agents/checkins", {"runs": [record]}, token=host["token"]).json()["accepted"] == 1
    assert api.get("/running").json()["items"] == []
    assert beat(api, host).json()["last_run_at"] == api.get("/hosts/web1").json()["last_run_at"] is not None
    assert progress(api, host, run_id).status_code == 204  # one that was late on its way
    assert api.get("/hosts/web1/running").json() is None


def test_a_run_of_which_nothing_is_heard_any_more_is_not_shown(api, host):
    run_id = str(uuid.uuid4())
    progress(api, host, run_id)
    beat(api, host, running=run_id)
    assert api.get("/hosts/web1/running").json()["run_id"] == run_id
    with api.database.session() as session:
        session.execute(update(RunningBackup).values(updated_at=now() - timedelta(minutes=11)))
    assert api.get("/running").json()["items"] == []
    progress(api, host, run_id)
    beat(api, host, running=None)
    assert api.get("/running").json()["items"] == []


def test_a_silent_host_is_one_that_beat_and_stopped(api, host):

    beat(api, host)
    assert api.get("/hosts/web1").json()["protection"] == "never"
    with api.database.session() as session:
        session.execute(update(Host).values(heartbeat_at=now() - timedelta(minutes=61)))
    assert api.get("/hosts/web1").json()["protection"] == "silent"
    assert [each["name"] for each in api.get("/hosts?protection=silent").json()["items"]] == ["web1"]


def test_the_stats_count_versions_and_who_was_heard(api, host):
    api.made("/hosts", {"name": "web2"})
    beat(api, host, spool=3)
    stats = api.get("/agents/stats").json()
    assert stats["hosts"] == 2 and stats["spooled"] == 1 and stats["skewed"] == 0
    assert stats["seen"] == stats["heartbeats"] == {"10m": 1, "1h": 1, "24h": 1, "ever": 1}
    assert stats["versions"]["agent"] == {"0.1.0": 1, "unknown": 1}


def test_versions_tell_which_agents_are_outdated(api, host):
    for name, versions in (("old1", {"agent": "0.0.1", "borg": "1.4.5"}), ("silent1", {})):
        made = api.made("/hosts", {"name": name})
        with api.database.session() as session:
            session.execute(update(Host).where(Host.id == uuid.UUID(made["id"])).values(versions=versions))
    beat(api, host)
    page = api.get("/agents/versions?limit=2").json()
    assert [row["host"] for row in page["items"]] == ["old1", "silent1"]
    assert page["items"][0]["outdated"] and page["items"][0]["agent"] == "0.0.1"
    assert page["items"][0]["offered"]["agent"] == "0.1.0" and page["items"][1]["outdated"] == []
    (last,) = api.get(f"/agents/versions?limit=2&cursor={page['next']}").json()["items"]
    assert last["host"] == "web1"
    found = api.get("/agents/versions?outdated=true").json()["items"]
    assert "old1" in [row["host"] for row in found] and "silent1" not in [row["host"] for row in found]
    assert api.get("/agents/versions", token=api.other_tenant().token).json()["items"] == []


@pytest.mark.parametrize("path", ["/agents/heartbeat", "/agents/progress", "/agents/checkins"])
def test_only_an_agents_own_token_opens(api, host, path):
    body = {"at": at(), "runs": [], "run_id": str(uuid.uuid4()), "started_at": at()}
    assert api.post(path, body).status_code == 403
    assert api.post(path, body, token="agent_unknown").status_code == 401
    assert api.post(path, body, token="").status_code == 401
    assert api.post(path, body, headers={"Authorization": "Basic x"}).status_code == 401
    assert api.post(path, body, token=host["token"]).status_code in (200, 204)
    assert api.delete("/hosts/web1").status_code == 204
    assert api.post(path, body, token=host["token"]).status_code == 401  # revoked at once


def test_another_tenant_sees_nothing(api, host):
    progress(api, host, str(uuid.uuid4()))
    beat(api, host)
    other = api.other_tenant().token
    assert api.get("/running", token=other).json()["items"] == []
    assert api.get("/hosts/web1/running", token=other).status_code == 404
    assert api.get("/agents/stats", token=other).json()["hosts"] == 0
