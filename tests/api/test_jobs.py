"""Jobs over HTTP: find, log, stream, cancel, retry, report."""

import json
import uuid
from typing import Any

import pytest
from saveos.jobs import logs, queue
from saveos.jobs.models import Job


@pytest.fixture
def host(api: Any) -> dict[str, Any]:
    """An enrolled local agent."""
    made = api.made("/hosts", {"name": "web1", "address": "127.0.0.1", "connection": "local"})
    with api.database.session() as session:
        from saveos.hosts.models import Host

        session.get_one(Host, uuid.UUID(made["id"])).state = "enrolled"
    return made  # type: ignore[no-any-return]


def start(api: Any, **rest: Any) -> Any:
    return api.post("/maintenance/backup", {"targets": {"hosts": ["web1"]}}, **rest)


def end(api: Any, job_id: str, state: str, events: int = 0) -> None:
    """Make a job final, as its worker does."""
    with api.database.session() as session:
        job = session.get_one(Job, uuid.UUID(job_id))
        for number in range(events):
            logs.say(session, job, f"line {number + 1}")
        queue.finish(session, job, state, "web1: broken" if state == "failed" else "")


def frames(text: str) -> list[dict[str, str]]:
    return [
        dict(line.split(": ", 1) for line in frame.split("\n") if not line.startswith(":"))
        for frame in text.strip().split("\n\n")
    ]


def test_accepted_job(api: Any, host: Any) -> None:
    answer = start(api)
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == job["links"]["self"] == f"/api/v1/jobs/{job['id']}"
    assert (job["state"], job["trigger"], job["hosts_total"]) == ("queued", "api", 1)
    assert job["targets"] == {"hosts": ["web1"]}
    assert api.get(f"/jobs/{job['id']}").json() == job
    assert [item["name"] for item in api.get(f"/jobs/{job['id']}/hosts").json()["items"]] == ["web1"]


def test_door_is_the_trigger(api: Any, host: Any) -> None:
    assert start(api, headers={"User-Agent": "saveos-cli"}).json()["trigger"] == "cli"


def test_idempotency_key(api: Any, host: Any) -> None:
    key = {"Idempotency-Key": "k1"}
    first = start(api, headers=key).json()
    assert start(api, headers=key).json()["id"] == first["id"]
    assert start(api, headers={"Idempotency-Key": "k2"}).json()["id"] != first["id"]
    other = api.post("/maintenance/health", {"targets": {"hosts": ["web1"]}}, headers=key)
    assert (other.status_code, other.json()["type"]) == (409, "urn:saveos:problem:idempotency-key-reused")
    assert start(api, headers={"Idempotency-Key": "x" * 300}).status_code == 422
    assert len(api.get("/jobs").json()["items"]) == 2


def test_list_filters_and_pages(api: Any, host: Any) -> None:
    made = [start(api).json()["id"] for _ in range(3)]
    end(api, made[0], "failed")
    page = api.get("/jobs?limit=2").json()
    assert [job["id"] for job in page["items"]] == [made[2], made[1]]
    assert [job["id"] for job in api.get(f"/jobs?limit=2&cursor={page['next']}").json()["items"]] == [made[0]]
    for query, expected in (
        ("state=failed", made[:1]),
        ("state=active", made[:0:-1]),
        ("state=final&operation=backup", made[:1]),
        ("operation=health", []),
        ("host=web1", made[::-1]),
        (f"host={host['id']}", made[::-1]),
        ("host=other", []),
        ("trigger=timer", []),
    ):
        assert [job["id"] for job in api.get(f"/jobs?{query}").json()["items"]] == expected, query


def test_log_by_range_and_as_text(api: Any, host: Any) -> None:
    job_id = start(api).json()["id"]
    end(api, job_id, "succeeded", events=5)
    log = api.get(f"/jobs/{job_id}/log?start=2&count=2").json()
    assert (log["start"], log["total"], [event["n"] for event in log["events"]]) == (2, 5, [2, 3])
    text = api.get(f"/jobs/{job_id}/log?format=text&start=5")
    assert text.headers["content-type"].startswith("text/plain")
    assert text.text.endswith("note: line 5\n")
    assert api.get(f"/jobs/{job_id}/log?start=0").status_code == 422


def test_stream_of_a_final_job_resumes_and_ends(api: Any, host: Any) -> None:
    job_id = start(api).json()["id"]
    end(api, job_id, "succeeded", events=5)
    answer = api.get(f"/jobs/{job_id}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    whole = frames(answer.text)
    assert [frame["event"] for frame in whole] == ["log", "state", "end"]
    assert whole[0]["id"] == "5"
    assert json.loads(whole[1]["data"])["state"] == "succeeded"
    rest = frames(api.get(f"/jobs/{job_id}/events", headers={"Last-Event-ID": "3"}).text)
    assert [event["n"] for event in json.loads(rest[0]["data"])["events"]] == [4, 5]
    assert json.loads(rest[0]["data"])["start"] == 4
    assert [frame["event"] for frame in frames(api.get(f"/jobs/{job_id}/events?after=5").text)] == [
        "state",
        "end",
    ]


def test_long_log_streams_in_batches(api: Any, host: Any) -> None:
    job_id = start(api).json()["id"]
    end(api, job_id, "succeeded", events=2500)
    sent = [
        json.loads(f["data"]) for f in frames(api.get(f"/jobs/{job_id}/events").text) if f["event"] == "log"
    ]
    assert [len(each["events"]) for each in sent] == [1000, 1000, 500]


def test_cancel(api: Any, host: Any) -> None:
    job_id = start(api).json()["id"]
    answer = api.post(f"/jobs/{job_id}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (202, "canceled")
    again = api.post(f"/jobs/{job_id}/cancel")
    assert (again.status_code, again.json()["detail"]) == (
        409,
        "the job is canceled already: there is nothing to cancel",
    )


def test_retry(api: Any, host: Any) -> None:
    job_id = start(api).json()["id"]
    assert api.post(f"/jobs/{job_id}/retry").status_code == 409
    end(api, job_id, "failed")
    made = api.post(f"/jobs/{job_id}/retry", headers={"Idempotency-Key": "r"})
    assert (made.status_code, made.json()["retry_of"], made.json()["targets"]) == (
        202,
        job_id,
        {"hosts": ["web1"]},
    )
    assert api.post(f"/jobs/{job_id}/retry", headers={"Idempotency-Key": "r"}).json()["id"] == made.json()["id"]


def test_report_of_a_run_by_hand(api: Any, host: Any) -> None:
    body = {
        "operation": "site",
        "mode": "check",
        "started_at": "2026-01-01T00:00:00Z",
        "finished_at": "2026-01-01T00:01:00Z",
        "state": "succeeded",
        "hosts": [{"name": "web1", "state": "ok", "counts": {"ok": 3}, "result": {}, "error": None}],
        "user": "root",
    }
    job = api.post("/jobs/reports", body).json()
    assert (job["operation"], job["mode"], job["trigger"], job["requested_by"]) == (
        "provision",
        "check",
        "hand",
        "root",
    )
    assert job["hosts_done"] == 1
    assert api.post("/jobs/reports", body | {"state": "odd"}).status_code == 422
    assert api.post("/jobs/reports", body | {"started_at": "yesterday"}).status_code == 422


def test_nothing_there(api: Any) -> None:
    for path in ("", "/hosts", "/log", "/events"):
        assert api.get(f"/jobs/{uuid.uuid4()}{path}").status_code == 404


def test_viewer_reads_only(api: Any, host: Any) -> None:
    viewer = api.token_of("viewer")
    job_id = start(api).json()["id"]
    assert api.get(f"/jobs/{job_id}", token=viewer).status_code == 200
    assert start(api, token=viewer).status_code == 403
    assert api.post(f"/jobs/{job_id}/cancel", token=viewer).status_code == 403


def test_other_tenant_sees_nothing(api: Any, host: Any) -> None:
    other = api.other_tenant().token
    job_id = start(api).json()["id"]
    assert api.get("/jobs", token=other).json()["items"] == []
    for path in ("", "/hosts", "/log", "/events"):
        assert api.get(f"/jobs/{job_id}{path}", token=other).status_code == 404
    assert api.post(f"/jobs/{job_id}/cancel", token=other).status_code == 404
