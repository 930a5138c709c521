"""Results and findings over HTTP: a run by hand tells them, they are listed, compared and filtered."""

import gzip
import json
from typing import Any

import pytest
from saveos.maintenance import findings
from saveos.maintenance.operations import OPERATIONS, Operation
from sqlalchemy import event


@pytest.fixture(autouse=True)
def tidy(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Operation("tidy", "tidy.yml", "Tidy up", supports_check=True, on_result=findings.record)
    monkeypatch.setitem(OPERATIONS, "tidy", made)


def report(api: Any, *kinds: str, mode: str = "run") -> str:
    found = [
        {"id": kind, "severity": severity, "subject": "/a", "title": f"{kind} is there.", "fix": "Remove it."}
        for kind, _, severity in (each.partition("=") for each in kinds)
    ]
    body = {
        "operation": "tidy",
        "mode": mode,
        "started_at": "2026-01-01T00:00:00Z",
        "finished_at": "2026-01-01T00:01:00Z",
        "state": "succeeded",
        "hosts": [
            {"name": "web1", "state": "ok", "result": {"tidy": {"summary": {"n": 1}, "findings": found}}}
        ],
    }
    answer = api.post("/jobs/reports", body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def test_run_by_hand_on_many_hosts_forgets_old_results_once_for_all(
    api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(findings, "KEPT", 1)
    names = [f"web{number}" for number in range(3)]
    for name in names:
        api.made("/hosts", {"name": name})
    sent: list[str] = []
    event.listen(api.database.engine, "before_cursor_execute", lambda *words: sent.append(words[2]))
    for number in range(2):
        told = {"tidy": {"summary": {"n": number}, "findings": []}}
        body = {
            "operation": "tidy",
            "started_at": "2026-01-01T00:00:00Z",
            "finished_at": "2026-01-01T00:01:00Z",
            "state": "succeeded",
            "hosts": [{"name": name, "state": "ok", "result": told} for name in names],
        }
        sent.clear()
        assert api.post("/jobs/reports", body).status_code == 201
    assert len([each for each in sent if each.startswith("DELETE FROM maintenance_results")]) == 1
    kept = api.get("/maintenance/results").json()["items"]
    assert sorted((each["host"], each["summary"]["n"]) for each in kept) == [(name, 1) for name in names]


def test_run_by_hand_tells_findings_which_the_next_resolves(api: Any) -> None:
    api.made("/hosts", {"name": "web1"})
    api.made("/groups", {"name": "web", "hosts": ["web1"]})
    report(api, "old=info", "dead=critical")
    job = report(api, "dead=critical", "fresh=warning", mode="check")
    listed = api.get(f"/maintenance/results?job={job}").json()["items"]
    assert [(each["host"], each["mode"], each["state"]) for each in listed] == [("web1", "check", "critical")]
    assert (listed[0]["critical"], listed[0]["warning"], listed[0]["info"]) == (1, 1, 0)
    told = api.get(f"/maintenance/results/{listed[0]['id']}").json()
    assert {word: [each["id"] for each in told[word]] for word in ("new", "gone", "same")} == {
        "new": ["fresh"],
        "gone": ["old"],
        "same": ["dead"],
    }
    found = api.get("/maintenance/findings?limit=1").json()
    assert [each["kind"] for each in found["items"]] == ["dead"]
    rest = api.get(f"/maintenance/findings?limit=1&cursor={found['next']}").json()
    assert [each["kind"] for each in rest["items"]] == ["fresh"]
    for asked, kinds in {
        "severity=warning": ["fresh"],
        "group=web": ["dead", "fresh"],
        "group=none": [],
        "host=web1&operation=tidy": ["dead", "fresh"],
        "operation=health": [],
        "open=false": ["dead", "fresh", "old"],
    }.items():
        items = api.get(f"/maintenance/findings?{asked}").json()["items"]
        assert [each["kind"] for each in items] == kinds, asked


def test_what_cannot_be_mended_is_said(api: Any) -> None:
    api.made("/hosts", {"name": "web1"})
    report(api, "dead=critical")
    found = api.get("/maintenance/findings").json()["items"][0]["id"]
    answer = api.post("/maintenance/findings/fix", {"findings": [found]})
    assert answer.status_code == 422
    assert "tidy cannot mend dead by itself: Remove it." in answer.text
    every = {"matching": {"severity": "critical"}}
    answer = api.post("/maintenance/findings/fix", every)
    assert answer.status_code == 422 and "no finding that matches" in answer.text
    assert api.post("/maintenance/findings/fix", every | {"expected": 3}).status_code == 409
    for body in ({}, every | {"findings": [found]}, {"matching": {"host": "nobody"}}):
        assert api.post("/maintenance/findings/fix", body).status_code in (404, 422)


def test_another_tenant_sees_nothing(api: Any) -> None:
    api.made("/hosts", {"name": "web1"})
    report(api, "dead=critical")
    result = api.get("/maintenance/results").json()["items"][0]["id"]
    found = api.get("/maintenance/findings").json()["items"][0]["id"]
    token = api.other_tenant().token
    for path in ("results", "findings"):
        assert api.get(f"/maintenance/{path}", token=token).json()["items"] == []
    assert api.get(f"/maintenance/results/{result}", token=token).status_code == 404
    assert api.post("/maintenance/findings/fix", {"findings": [found]}, token=token).status_code == 422
    assert api.get("/maintenance/results?cursor=bad").status_code == 422
    assert api.get("/maintenance/findings?cursor=WyJhIiwiYiJd").status_code == 422


def test_a_run_by_hand_over_a_thousand_hosts_is_recorded(api: Any) -> None:
    api.made("/hosts", {"name": "h7"})
    found = {"severity": "warning", "title": "Something is there. " * 20, "evidence": "e" * 300}
    told = {"tidy": {"summary": {}, "findings": [found | {"id": f"kind-{number}"} for number in range(5)]}}
    hosts = [{"name": f"h{number}", "state": "ok", "result": told} for number in range(1000)]
    body = {"operation": "tidy", "started_at": "2026-01-01T00:00:00Z", "finished_at": "2026-01-01T00:01:00Z"}
    plain = json.dumps(body | {"state": "succeeded", "hosts": hosts}).encode()
    assert len(plain) > 3_000_000
    headers = {"Authorization": f"Bearer {api.token}", "Content-Type": "application/json"}

    def send(content: bytes) -> Any:
        return api.client.post(
            "/api/v1/jobs/reports", content=content, headers=headers | {"Content-Encoding": "gzip"}
        )

    answer = send(gzip.compress(plain))
    assert answer.status_code == 201, answer.text
    assert answer.json()["hosts_total"] == 1000
    assert len(api.get("/maintenance/findings?host=h7").json()["items"]) == 5
    assert send(plain[:1000]).status_code == 422
    assert send(gzip.compress(plain)[:-9]).status_code == 422
    assert send(gzip.compress(b"{}")).json()["errors"][0]["field"] == "operation"
    assert send(gzip.compress(bytes(40_000_000))).status_code == 413
