"""Rebuilds over HTTP: a job at a time, each step timed, and what arrived compared with what was sent."""

import uuid
from typing import Any

import pytest
from saveos.archives.models import Archive
from saveos.core.clock import now
from saveos.hosts.models import Host
from saveos.jobs import queue
from saveos.jobs.models import Job, JobHost
from saveos.maintenance import rebuilds
from saveos.maintenance.models import MaintenanceResult
from saveos.repositories.models import Repository
from saveos.restores.models import Restore
from sqlalchemy import select

SENT = {"files": 5, "bytes": 900}
ARRIVED = {"destination": "/srv/back", "verified": True, "verified_files": 4, **SENT}


@pytest.fixture
def web1(api: Any) -> Any:
    """An enrolled host web1 with an archive of four files, and an empty host `spare`."""
    body = {"name": "web1", "connection": "local", "repository": {"kind": "local", "path": "/srv/r"}}
    host = uuid.UUID(api.made("/hosts", body)["id"])
    api.made("/hosts", {"name": "spare", "connection": "local"})
    with api.database.session() as session:
        session.get_one(Host, host).state = "enrolled"
        session.add(
            Archive(
                tenant_id=api.tenant_id,
                host_id=host,
                repository_id=session.scalars(select(Repository.id).where(Repository.host_id == host)).one(),
                borg_id="0" * 64,
                name="web1-2026",
                started_at=now(),
                files=4,
            )
        )
    return api


def begin(api: Any) -> Any:
    return api.made("/drills/rebuilds", {"host": "web1", "sandbox": "spare", "destination": "/srv/back"})


def end_step(api: Any, rebuild: Any, state: str = "succeeded", **told: Any) -> Any:
    """End the job of the step that goes on; its hosts told this. Return the rebuild then."""
    with api.database.session() as session:
        job = session.get_one(Job, uuid.UUID(rebuild["job_id"]))
        for row in session.scalars(select(JobHost).where(JobHost.job_id == job.id)):
            row.state, row.error = ("ok", "") if state == "succeeded" else ("failed", f"{row.name} is broken")
            row.result = told.get("results", {}).get(row.name, {})
        spare = session.scalars(select(Host).where(Host.name == "spare")).one()
        spare.state = "enrolled"
        if "outcome" in told:
            session.scalars(select(Restore).where(Restore.job_id == job.id)).one().outcome = told["outcome"]
        if "findings" in told:
            result = MaintenanceResult(tenant_id=api.tenant_id, job_id=job.id, host_id=spare.id)
            result.operation, result.state = "health", "ok"
            result.keep(told["findings"])
            session.add(result)
        queue.finish(session, job, state)
    with api.database.session(writes=True) as session:
        assert rebuilds.any_to_advance(session)
        rebuilds.advance(session)
    return api.get(f"/drills/rebuilds/{rebuild['id']}").json()


def through(api: Any, sent: Any, arrived: Any, findings: Any = ()) -> Any:
    """Return a rebuild whose steps all ended, with what its hosts told of the data."""
    rebuild = end_step(api, begin(api))
    assert (rebuild["step"], rebuild["state"]) == ("transfer", "running")
    rebuild = end_step(api, rebuild, results={"web1": {"send": sent}}, outcome=arrived)
    assert rebuild["step"] == "health"
    return end_step(api, rebuild, findings=list(findings))


def test_a_rebuild_goes_step_by_step_and_tells_the_seconds(web1: Any) -> None:
    made = begin(web1)
    assert (made["step"], made["state"], made["sandbox"]) == ("provision", "running", "spare")
    twice = web1.post("/drills/rebuilds", {"host": "web1", "sandbox": "spare"})
    assert (twice.status_code, "another rebuild" in twice.text) == (409, True)
    rebuild = end_step(web1, made)
    rebuild = end_step(web1, rebuild, results={"web1": {"send": SENT}}, outcome=ARRIVED)
    never = {"id": "never-backed-up", "severity": "critical", "title": "Never backed up"}
    rebuild = end_step(web1, rebuild, findings=[never])
    assert rebuild["state"] == "proven", rebuild
    assert [step["name"] for step in rebuild["steps"]] == ["provision", "transfer", "health"]
    assert all(check["ok"] for check in rebuild["checks"])
    assert {check["name"] for check in rebuild["checks"]} == {"counts", "hashes", "failures", "sandbox"}
    assert rebuild["seconds"] >= 0 and rebuild["destination"] == "/srv/back"
    assert [each["id"] for each in web1.get("/drills/rebuilds?host=web1").json()["items"]] == [made["id"]]
    assert web1.get(f"/drills/rebuilds/{made['id']}", token=web1.other_tenant().token).status_code == 404
    begin(web1)


@pytest.mark.parametrize(
    ("sent", "arrived", "fault"),
    [
        (SENT | {"files": 6}, ARRIVED, "counts: 5 of 6 entries"),
        (SENT | {"bytes": 901}, ARRIVED, "900 of 901 bytes"),
        (SENT, ARRIVED | {"verified": False}, "hashes:"),
        (SENT, ARRIVED | {"verified_files": 0}, "hashes:"),
        (SENT | {"files": 3}, ARRIVED | {"files": 3, "verified_files": 3}, "the backup counted 4 files"),
        (
            SENT | {"failed_total": 1, "failed_files": [{"path": "/srv/ledger", "message": "damaged"}]},
            ARRIVED,
            "/srv/ledger: damaged",
        ),
        (None, ARRIVED, "did not tell what it sent"),
    ],
)
def test_what_did_not_arrive_fails_the_rebuild_and_is_named(
    web1: Any, sent: Any, arrived: Any, fault: str
) -> None:
    rebuild = through(web1, sent, arrived)
    assert (rebuild["state"], fault in rebuild["error"]) == ("failed", True), rebuild


def test_a_sandbox_that_is_not_well_fails_the_rebuild(web1: Any) -> None:
    sick = {"id": "disk-full", "severity": "critical", "title": "The disk is full"}
    rebuild = through(web1, SENT, ARRIVED, [sick])
    assert (rebuild["state"], rebuild["error"]) == ("failed", "sandbox: The disk is full")


def test_a_rebuild_that_stumbles_ends_and_says_where_to_look(
    web1: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(*_arguments: Any) -> str:
        raise RuntimeError("poison")

    monkeypatch.setattr(rebuilds, "_fault", stumble)
    rebuild = end_step(web1, begin(web1))
    told = "provision: stumbled, the controller's log says why"
    assert (rebuild["state"], rebuild["error"], rebuild["steps"]) == ("failed", told, [])


def test_a_step_that_fails_ends_the_rebuild_with_its_reason(web1: Any) -> None:
    rebuild = end_step(web1, begin(web1), "failed")
    assert (rebuild["state"], rebuild["error"]) == ("failed", "provision: spare is broken")
    assert rebuild["seconds"] is not None and rebuild["job_id"] is None


def test_a_rebuild_needs_another_host_an_archive_and_its_rights(web1: Any) -> None:
    for body, status in (
        ({"host": "web1", "sandbox": "web1"}, 422),
        ({"host": "spare", "sandbox": "web1"}, 409),
        ({"host": "web1", "sandbox": "nobody"}, 404),
        ({"host": "web1", "sandbox": "spare", "destination": "relative"}, 422),
    ):
        assert web1.post("/drills/rebuilds", body).status_code == status, body
    refused = web1.post(
        "/drills/rebuilds", {"host": "web1", "sandbox": "spare"}, token=web1.token_of("operator")
    )
    assert (refused.status_code, "restores:other_host" in refused.text) == (403, True)
    assert web1.get("/drills/rebuilds").json()["items"] == []
