"""Check-ins: idempotent, bounded, and true even when a host's clock or a record is not."""

import json
import uuid
from datetime import timedelta

import pytest
from saveos.core.clock import now


def at(hours=0.0):
    return (now() + timedelta(hours=hours)).isoformat()


@pytest.fixture
def host(api):
    api.made("/hosts", {"name": "vault", "is_agent": False, "is_storage_server": True})
    made = api.made("/hosts", {"name": "web1"})
    made["repository"] = api.get("/repositories?host=web1").json()["items"][0]["id"]
    made["token"] = api.agent_token(made["id"])
    return made


def record(host, **changes):
    archive = {
        "id": uuid.uuid4().hex * 2,
        "name": "web1-2026",
        "started_at": at(-1),
        "finished_at": at(-0.9),
        "duration": 12.5,
        "nfiles": 3,
        "original_size": 1000,
        "compressed_size": 500,
        "deduplicated_size": 10,
    }
    result = {"repository_id": host["repository"], "state": "succeeded", "exit_code": 0, "archive": archive}
    return {
        "schema": 1,
        "run_id": str(uuid.uuid4()),
        "kind": "backup",
        "host": "web1",
        "trigger": "timer",
        "job_id": None,
        "state": "succeeded",
        "started_at": at(-1),
        "finished_at": at(-0.9),
        "results": [result | {"warnings": [], "error": None}],
        "log_tail": "all good é\n",
        "versions": {"agent": "0.1", "borg": "1.4.5", "borgmatic": "2.1.10"},
        "joined": False,
        "unknown_field": {"a": 1},
    } | changes


def send(api, host, *records):
    return api.post("/agents/checkins", {"runs": list(records)}, token=host["token"])


def test_a_record_is_stored_once(api, host):
    told = record(host)
    assert send(api, host, told).json() == {"accepted": 1, "known": 0, "refused": []}
    assert send(api, host, told, told).json() == {"accepted": 0, "known": 1, "refused": []}
    archives = api.get("/archives").json()["items"]
    assert len(archives) == 1
    assert {key: archives[0][key] for key in ("host", "files", "original_size", "run_id", "check_state")} == {
        "host": "web1",
        "files": 3,
        "original_size": 1000,
        "run_id": told["run_id"],
        "check_state": "never",
    }
    assert api.get(f"/archives/{archives[0]['id']}").json() == archives[0]
    assert api.get("/backup/web1/snapshots").json()["items"] == archives
    run = api.get(f"/runs/{told['run_id']}").json()
    assert (run["log"], run["state"], run["trigger"]) == ("all good é\n", "succeeded", "timer")
    shown = api.get("/hosts/web1").json()
    assert (shown["protection"], shown["last_size"], shown["versions"]["borg"]) == ("protected", 1000, "1.4.5")
    assert shown["due_at"] > at()


def test_a_batch_keeps_the_newest_state_whatever_the_order(api, host):
    error = {"code": "quota_exceeded", "message": "full", "fix": "raise the quota"}
    broken = {
        "repository_id": host["repository"],
        "state": "failed",
        "exit_code": 2,
        "archive": None,
        "error": error,
    }
    older = record(host, started_at=at(-5), finished_at=at(-4))
    newer = record(host, state="failed", results=[broken])
    assert send(api, host, newer, older).json()["accepted"] == 2
    shown = api.get("/hosts/web1").json()
    assert (shown["protection"], shown["last_run_state"]) == ("failing", "failed")
    assert shown["last_backup_at"] is not None
    run = api.get(f"/runs/{newer['run_id']}").json()
    assert (run["error_code"], run["error"]) == ("quota_exceeded", "full raise the quota")
    states = [run["state"] for run in api.get("/runs?host=web1").json()["items"]]
    assert states == ["failed", "succeeded"]


def test_a_clock_in_the_future_does_not_hide_a_missing_backup(api, host):
    assert send(api, host, record(host, finished_at=at(24 * 400))).status_code == 200
    shown = api.get("/hosts/web1").json()
    assert shown["last_backup_at"] <= at(0.01)
    assert shown["due_at"] < at(24 * 3)


def test_success_without_an_archive_is_a_failure(api, host):
    told = record(host, results=[])
    assert send(api, host, told).json()["accepted"] == 1
    assert api.get(f"/runs/{told['run_id']}").json()["state"] == "failed"
    assert api.get("/hosts/web1").json()["protection"] == "failing"


def test_a_record_for_another_hosts_repository_is_refused_and_the_rest_stored(api, host):
    api.made("/hosts", {"name": "web2"})
    foreign = api.get("/repositories?host=web2").json()["items"][0]["id"]
    bad = record(host)
    bad["results"][0]["repository_id"] = foreign
    unknown = record(host)
    unknown["results"][0]["repository_id"] = str(uuid.uuid4())
    answer = send(api, host, bad, record(host), unknown).json()
    assert (answer["accepted"], answer["known"]) == (1, 0)
    assert {each["run_id"] for each in answer["refused"]} == {bad["run_id"], unknown["run_id"]}
    assert foreign in next(each["detail"] for each in answer["refused"] if each["run_id"] == bad["run_id"])
    assert api.get("/hosts/web2").json()["protection"] == "never"


def test_a_host_cannot_take_another_hosts_run(api, host):
    told = record(host)
    send(api, host, told)
    other = api.made("/hosts", {"name": "web2"})
    stolen = record(host, run_id=told["run_id"], results=[], state="failed")
    answer = api.post("/agents/checkins", {"runs": [stolen]}, token=api.agent_token(other["id"])).json()
    assert (answer["accepted"], answer["known"], len(answer["refused"])) == (0, 0, 1)
    assert api.get(f"/runs/{told['run_id']}").json()["state"] == "succeeded"


@pytest.mark.parametrize(
    "changes, field",
    [
        ({"run_id": "x"}, "run_id"),
        ({"state": "fine"}, "state"),
        ({"kind": "format"}, "kind"),
        ({"started_at": "yesterday"}, "started_at"),
        ({"started_at": "0001-01-01T00:00:00+14:00"}, "started_at"),
        ({"finished_at": "9999-12-31T23:59:59-14:00"}, "finished_at"),
        ({"results": {}}, "results"),
        ({"results": [{"repository_id": 5, "state": "succeeded"}]}, "results.0.repository_id"),
        ({"log_tail": 5}, "log_tail"),
    ],
)
def test_wrong_types_are_refused_naming_the_run(api, host, changes, field):
    told = record(host) | changes
    answer = send(api, host, record(host), told)
    assert (answer.status_code, answer.json()["field"]) == (422, f"runs.1.{field}"), answer.text
    assert str(told["run_id"]) in answer.json()["detail"]
    assert api.get("/runs").json()["items"] == []  # nothing half-done


@pytest.mark.parametrize("size", [-1, 2**63, 1.5, "big"])
def test_sizes_are_bounded(api, host, size):
    told = record(host)
    told["results"][0]["archive"]["original_size"] = size
    assert send(api, host, told).status_code == 422


def test_odd_texts_are_kept_as_well_as_can_be(api, host):
    told = record(host, log_tail="a\x00b\ud800c" + "x" * 100_000 + "END", versions={"agent": "1\x00"})
    body = json.dumps({"runs": [told]})  # escapes, so that the surrogate survives the way
    headers = {"Content-Type": "application/json"}
    answer = api.call("POST", "/agents/checkins", token=host["token"], content=body, headers=headers)
    assert answer.json()["accepted"] == 1, answer.text
    log = api.get(f"/runs/{told['run_id']}").json()["log"]
    assert log.endswith("END") and len(log) <= 64 * 1024


def test_a_body_over_two_megabytes_is_refused(api, host):
    answer = api.call("POST", "/agents/checkins", token=host["token"], content=b"[" * (2 * 1024 * 1024 + 1))
    assert (answer.status_code, answer.json()["type"]) == (413, "urn:saveos:problem:too-large")

    def stream():
        for _ in range(40):
            yield b"x" * 65536

    answer = api.call("POST", "/agents/checkins", token=host["token"], content=stream())
    assert (answer.status_code, answer.json()["type"]) == (413, "urn:saveos:problem:too-large")


def test_archives_filter_and_page_newest_first(api, host):
    for n in range(5):
        told = record(host, started_at=at(-10 - n), finished_at=at(-10 - n))
        told["results"][0]["archive"]["started_at"] = f"2026-01-0{n + 1}T00:00:00.000{n}00Z"
        send(api, host, told)
    found, cursor = [], None
    while True:
        page = api.get("/archives", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        found += [each["started_at"][:10] for each in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert found == [f"2026-01-0{n}" for n in (5, 4, 3, 2, 1)]
    between = {"after": "2026-01-02T00:00:00Z", "before": "2026-01-04T00:00:00Z", "host": "web1"}
    assert len(api.get("/archives", params=between).json()["items"]) == 2
    assert api.get("/archives", params={"repository": str(uuid.uuid4())}).json()["items"] == []
    assert api.get("/archives?host=nope").status_code == 404


@pytest.mark.parametrize(
    ("warnings", "archive", "lacks"),
    [
        (["/srv/db: read: [Errno 5] Input/output error: 'db'"], {}, "could not read /srv/db"),
        (["/srv/log: file changed while we backed it up"], {}, ""),
        (["/srv/spool/1: open: [Errno 2] No such file or directory: '1'"], {}, ""),
        ([], {"nfiles": 1}, "no file of the host"),
        ([], {"original_size": 20_000_000}, "the one before it 900000000"),
        ([], {"original_size": 100_000_000}, ""),
    ],
)
def test_a_backup_that_lacks_something_says_so(api, host, warnings, archive, lacks):
    before = record(host, started_at=at(-3), finished_at=at(-2.9))
    before["results"][0]["archive"]["original_size"] = 900_000_000
    send(api, host, before)
    told = record(host, state="warning" if warnings else "succeeded")
    told["results"][0] |= {"warnings": warnings, "state": told["state"]}
    told["results"][0]["archive"] |= {"original_size": 900_000_000} | archive
    assert send(api, host, told).json()["accepted"] == 1
    run, shown = api.get(f"/runs/{told['run_id']}").json(), api.get("/hosts/web1").json()
    assert (lacks in run["error"]) if lacks else run["error"] == ""
    assert run["state"] == ("warning" if lacks else told["state"])
    assert (shown["last_run_state"] == "incomplete") is bool(lacks)
    assert shown["protection"] == "protected", "the archive is there"
