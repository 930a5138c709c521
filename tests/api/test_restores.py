"""Restores over HTTP."""

import uuid
from typing import Any

import pytest
from saveos.accounts.service import set_agent_token
from saveos.archives.models import Archive
from saveos.core.clock import now
from saveos.core.security import token_hash
from saveos.hosts.models import Host
from saveos.jobs import queue
from saveos.jobs.models import Job, JobHost
from saveos.maintenance import results
from saveos.repositories.models import Repository
from sqlalchemy import select


@pytest.fixture
def archive(api: Any) -> dict[str, Any]:
    """The archive of an enrolled host web1 with a local repository."""
    body = {"name": "web1", "connection": "local", "repository": {"kind": "local", "path": "/srv/r"}}
    host = api.made("/hosts", body)
    with api.database.session() as session:
        session.get_one(Host, uuid.UUID(host["id"])).state = "enrolled"
        repository = session.scalar(select(Repository.id).where(Repository.host_id == uuid.UUID(host["id"])))
        row = Archive(
            tenant_id=api.tenant_id,
            host_id=uuid.UUID(host["id"]),
            repository_id=repository,
            borg_id="0" * 64,
            name="web1-2026",
            started_at=now(),
        )
        session.add(row)
        session.flush()
        return {"id": str(row.id), "repository_id": str(repository), "host_id": host["id"]}


def test_restore_by_id_name_and_latest(api: Any, archive: Any) -> None:
    for body in (
        {"archive": archive["id"]},
        {"archive": "latest", "host": "web1"},
        {"archive": "web1-2026", "host": archive["host_id"]},
    ):
        answer = api.post("/restores", body | {"paths": ["/etc/hosts"], "destination": "/root/back"})
        assert answer.status_code == 202, answer.text
        made = answer.json()
        assert made["restore"]["job_id"] == made["job"]["id"]
        assert (made["restore"]["archive"], made["restore"]["host"], made["restore"]["state"]) == (
            "web1-2026",
            "web1",
            "queued",
        )
        assert made["job"]["parameters"] == {
            "archive": "web1-2026",
            "repository_id": archive["repository_id"],
            **{"paths": ["/etc/hosts"], "refs": [], "excludes": [], "exclude_refs": []},
            **{"destination": "/root/back", "in_place": False, "conflict": "refuse", "verify": True},
            **{"owners": True, "acls": True, "xattrs": True},
        }
    assert len(api.get("/restores?host=web1").json()["items"]) == 3


def test_what_belongs_to_files_can_be_left_out_and_is_said_so(api: Any, archive: Any) -> None:
    made = api.post("/restores", {"archive": archive["id"], "owners": False, "verify": False}).json()
    assert made["job"]["parameters"]["owners"] is False
    shown = api.get(f"/restores/{made['restore']['id']}").json()
    told = {name: shown[name] for name in ("owners", "acls", "xattrs", "verify")}
    assert told == {"owners": False, "acls": True, "xattrs": True, "verify": False}


def test_restore_through_the_operation_is_the_same(api: Any, archive: Any) -> None:
    job = api.made("/maintenance/restore", {"targets": {"hosts": ["web1"]}, "parameters": {"paths": ["/etc"]}})
    assert [item["job_id"] for item in api.get("/restores").json()["items"]] == [job["id"]]


def test_idempotency_key(api: Any, archive: Any) -> None:
    body, key = {"archive": archive["id"]}, {"Idempotency-Key": "one"}
    first, second = (api.post("/restores", body, headers=key).json() for _ in range(2))
    assert first == second
    assert api.post("/restores", body | {"paths": ["/x"]}, headers=key).status_code == 409


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"archive": "latest"}, 422, "name the host"),
        ({"archive": "latest", "host": "nobody"}, 404, "there is no host nobody"),
        ({"archive": str(uuid.uuid4())}, 404, "no such archive"),
        ({"archive": "other", "host": "web1"}, 404, "web1 has no archive other"),
        ({"archive": "latest", "host": "web1", "paths": ["etc"]}, 422, "absolute"),
        ({"archive": "latest", "host": "web1", "destination": "../x"}, 422, "destination"),
        ({"archive": "latest", "host": "web1", "paths": ["/a\u0000b"]}, 422, "NUL"),
        ({"archive": "latest", "host": "web1", "paths": ["//"]}, 422, "the path / cannot be chosen"),
        ({"archive": "latest", "host": "web1", "in_place": True}, 422, "needs a rule"),
        ({"archive": "latest", "host": "web1", "refs": ["a b"]}, 422, "refs"),
        (
            {"archive": "latest", "host": "web1", "in_place": True, "conflict": "skip", "destination": "/x"},
            422,
            "no other destination",
        ),
    ],
)
def test_refusals(api: Any, archive: Any, body: Any, status: int, words: str) -> None:
    answer = api.post("/restores", body)
    assert answer.status_code == status, answer.text
    assert words in answer.text
    assert api.get("/jobs").json()["items"] == []


def test_an_archive_that_is_no_more_is_refused_before_a_host_is_asked(api: Any, archive: Any) -> None:
    with api.database.session() as session:
        session.get_one(Archive, uuid.UUID(archive["id"])).gone_at = now()
    for body in ({"archive": archive["id"]}, {"archive": "web1-2026", "host": "web1"}):
        answer = api.post("/restores", body)
        assert (answer.status_code, "has web1-2026 no more" in answer.text) == (409, True)
    answer = api.post(f"/archives/{archive['id']}/diff", {"path": "/etc/hosts"})
    assert (answer.status_code, "no more" in answer.text) == (409, True)
    assert api.get("/jobs").json()["items"] == []


def test_a_restore_says_why_it_failed_and_texts_are_no_restores(api: Any, archive: Any) -> None:
    made = api.made("/restores", {"archive": archive["id"]})["restore"]
    assert api.made(f"/archives/{archive['id']}/text", {"path": "/etc/hosts"})["restore"]["kind"] == "download"
    with api.database.session() as session:
        job = session.get_one(Job, uuid.UUID(made["job_id"]))
        job.state, job.error = "failed", "Hosts failed."
        row = session.scalars(select(JobHost).where(JobHost.job_id == job.id)).one()
        row.state, row.error = "failed", "/srv cannot be written."
    found = api.get("/restores").json()["items"]
    assert [(each["id"], each["error"]) for each in found] == [(made["id"], "/srv cannot be written.")]
    assert api.get(f"/restores/{made['id']}").json()["error"] == "/srv cannot be written."


def enrolled(api: Any, name: str) -> str:
    body = {"name": name, "connection": "local", "repository": {"kind": "local", "path": f"/srv/{name}"}}
    host = api.made("/hosts", body)["id"]
    with api.database.session() as session:
        session.get_one(Host, uuid.UUID(host)).state = "enrolled"
    return str(host)


def test_another_host_is_a_right_of_its_own_and_a_transfer(api: Any, archive: Any) -> None:
    web2 = enrolled(api, "web2")
    body = {"archive": archive["id"], "target_host": "web2", "destination": "/srv/back"}
    refused = api.post("/restores", body, token=api.token_of("operator"))
    assert (refused.status_code, "restores:other_host" in refused.text) == (403, True)
    preview = api.post("/restores", body | {"preview": True})
    assert (preview.status_code, preview.json()["field"]) == (422, "preview")
    made = api.made("/restores", body)
    assert (made["restore"]["kind"], made["restore"]["target_host"]) == ("other_host", "web2")
    job = made["job"]
    assert (job["operation"], job["targets"]["hosts"]) == ("transfer", ["web1", "web2"])
    assert job["parameters"]["transfer"] == made["restore"]["id"] and job["parameters"]["staged"] is True
    with api.database.session() as session:
        resources = session.get_one(Job, uuid.UUID(job["id"])).resources
        queue.finish(session, session.get_one(Job, uuid.UUID(job["id"])), "lost", "its worker was gone")
    assert {f"host:{web2}", f"host:{archive['host_id']}"} < set(resources)
    assert [each["id"] for each in api.get("/restores?host=web2").json()["items"]] == [made["restore"]["id"]]
    again = api.post(f"/jobs/{job['id']}/retry")
    assert (again.status_code, "anew" in again.text) == (409, True)


def test_its_own_host_named_as_another_is_a_plain_restore(api: Any, archive: Any) -> None:
    body = {"archive": archive["id"], "target_host": "web1"}
    made = api.post("/restores", body, token=api.token_of("operator")).json()
    assert (made["restore"]["kind"], made["job"]["operation"]) == ("host", "restore")


def test_a_download_is_a_right_of_its_own_and_goes_nowhere_else(api: Any, archive: Any) -> None:
    body = {"archive": archive["id"], "download": True}
    operator = api.token_of("operator")
    refused = api.post("/restores", body, token=operator)
    assert (refused.status_code, "right download" in refused.text) == (403, True)
    assert api.post("/restores", body | {"destination": "/srv/x"}).status_code == 422
    made = api.made("/restores", body)
    path = f"/restores/{made['restore']['id']}/content"
    assert made["restore"]["kind"] == "download"
    assert api.get(path, token=operator).status_code == 403
    assert api.get(path, token=api.other_tenant().token).status_code == 404
    with api.database.session() as session:
        queue.finish(
            session, session.get_one(Job, uuid.UUID(made["job"]["id"])), "failed", "web1 is not reachable"
        )
    over = api.get(path)
    assert (over.status_code, "web1 is not reachable" in over.text) == (409, True)


def test_a_host_does_not_wait_for_one_that_failed(api: Any, archive: Any) -> None:
    """Its own part keeps the job going: without a look at the other's it would wait for ever."""
    web2 = uuid.UUID(enrolled(api, "web2"))
    made = api.made("/restores", {"archive": archive["id"], "target_host": "web2"})
    with api.database.session() as session:
        set_agent_token(session, api.tenant_id, web2, "web2", token_hash("agent-of-web2"))
        job = session.get_one(Job, uuid.UUID(made["job"]["id"]))
        job.state = "running"
        row = session.get_one(JobHost, (job.id, "web1"))
        row.state, row.error = "failed", "the repository is gone"
    over = api.get(f"/agents/transfers/{made['restore']['id']}", token="agent-of-web2")
    assert (over.status_code, "web1: the repository is gone" in over.text) == (409, True)


def test_nobody_starts_a_transfer_by_itself(api: Any, archive: Any) -> None:
    parameters = {"repository_id": archive["repository_id"], "transfer": str(uuid.uuid4()), "source": "web1"}
    answer = api.post("/maintenance/transfer", {"targets": {"hosts": ["web1"]}, "parameters": parameters})
    assert (answer.status_code, "belongs to a restore" in answer.text) == (422, True)


def test_content_may_be_kept_from_passing_through_the_controller(api: Any, archive: Any) -> None:
    assert api.get("/settings").json() == {"content_through_controller": True}
    made = api.made("/restores", {"archive": archive["id"], "download": True})
    assert (
        api.patch(
            "/settings", {"content_through_controller": False}, token=api.token_of("operator")
        ).status_code
        == 403
    )
    assert api.patch("/settings", {"content_through_controller": False}).status_code == 200
    enrolled(api, "web2")
    for body in ({"download": True}, {"target_host": "web2"}):
        refused = api.post("/restores", {"archive": archive["id"], **body})
        assert (refused.status_code, "content_through_controller" in refused.text) == (403, True)
    assert (
        api.get(f"/restores/{made['restore']['id']}/content").status_code == 403
    )  # also of what was asked before
    assert api.post("/restores", {"archive": archive["id"]}).status_code == 202


def test_retry_needs_the_right_to_restore_and_is_a_restore_too(api: Any, archive: Any) -> None:
    made = api.made("/restores", {"archive": archive["id"], "paths": ["/etc"]})
    with api.database.session() as session:
        queue.finish(session, session.get_one(Job, uuid.UUID(made["job"]["id"])), "lost", "its worker was gone")
    path = f"/jobs/{made['job']['id']}/retry"
    narrow = api.made("/tokens", {"name": "ci", "scopes": ["jobs:read", "jobs:write"]})["token"]
    refused = api.post(path, token=narrow)
    assert (refused.status_code, "restores:write" in refused.text) == (403, True)
    again = api.post(path)
    assert again.status_code == 202
    newest = api.get("/restores").json()["items"][0]
    assert (newest["job_id"], newest["paths"], newest["state"]) == (again.json()["id"], ["/etc"], "queued")


def test_rights_and_tenants(api: Any, archive: Any) -> None:
    assert api.post("/restores", {"archive": archive["id"]}, token=api.token_of("viewer")).status_code == 403
    other = api.other_tenant().token
    assert api.post("/restores", {"archive": archive["id"]}, token=other).status_code == 404
    assert api.get("/restores", token=other).json()["items"] == []


def test_in_place_is_a_right_of_its_own_whichever_way_it_is_asked(api: Any, archive: Any) -> None:
    operator = api.token_of("operator")
    body = {"archive": archive["id"], "in_place": True, "conflict": "newer", "paths": ["/etc"]}
    refused = api.post("/restores", body, token=operator)
    assert (refused.status_code, "restores:in_place" in refused.text) == (403, True)
    start = {"targets": {"hosts": ["web1"]}, "parameters": {"in_place": True, "conflict": "newer"}}
    refused = api.post("/maintenance/restore", start, token=operator)
    assert (refused.status_code, "restores:in_place" in refused.text) == (403, True)
    assert api.post("/restores", body | {"in_place": False}, token=operator).status_code == 202
    for root in ("/", "//", "/./"):
        answer = api.post("/restores", body | {"in_place": False, "destination": root}, token=operator)
        assert answer.status_code == 422, "it would be in place"
        start["parameters"] = {"destination": root, "conflict": "overwrite"}
        assert api.post("/maintenance/restore", start, token=operator).status_code == 422
    made = api.made("/restores", body)
    assert (made["restore"]["in_place"], made["job"]["parameters"]["in_place"]) == (True, True)
    assert api.post(f"/jobs/{made['job']['id']}/retry", token=operator).status_code == 403


def test_the_outcome_of_a_preview_and_of_a_restore_is_kept(api: Any, archive: Any) -> None:
    plan = {"files": 2, "bytes": 10, "fits": True, "created": 1, "overwritten": 1, "destination": "/"}
    plan["entries"] = [{"path": "/etc/hosts", "action": "overwrite"}]
    asked = {"archive": archive["id"], "in_place": True, "conflict": "overwrite", "paths": ["/etc"]}
    preview = api.made("/restores", asked | {"preview": True})
    assert (preview["job"]["mode"], preview["restore"]["preview"]) == ("check", True)
    told(api, preview, {"plan": plan})
    outcome = api.get(f"/restores/{preview['restore']['id']}").json()["outcome"]
    assert (outcome["created"], outcome["entries"]) == (1, plan["entries"])

    made = api.made("/restores", asked)
    run = {"files": 2, "bytes": 10, "verified": True, "verified_files": 2, "failed_total": 1}
    run["failed_files"] = [{"path": "/etc/x", "message": "Operation not permitted"}]
    told(api, made, {"run": record(archive, made, run)})
    found = api.get(f"/restores/{made['restore']['id']}").json()
    assert (found["outcome"]["verified"], found["outcome"]["failed_files"]) == (True, run["failed_files"])
    other = api.other_tenant().token
    assert api.get(f"/restores/{made['restore']['id']}", token=other).status_code == 404


def told(api: Any, made: Any, result: dict[str, Any]) -> None:
    """Let the host's result arrive, as the runner would."""
    with api.database.session() as session:
        job = session.get_one(Job, uuid.UUID(made["job"]["id"]))
        row = session.scalar(select(JobHost).where(JobHost.job_id == job.id))
        row.result = result
        results.restored(session, job, row)


def record(archive: Any, made: Any, restore: dict[str, Any]) -> dict[str, Any]:
    """Return the record of a restore's run."""
    moment = now().isoformat()
    repository = {"repository_id": archive["repository_id"], "state": "warning"}
    about = {"schema": 1, "run_id": str(uuid.uuid4()), "kind": "restore", "trigger": "job"}
    about |= {"job_id": made["job"]["id"], "state": "warning", "started_at": moment, "finished_at": moment}
    return about | {"results": [repository], "restore": restore}


SENT = {"files": 3, "bytes": 900, "digest": "a" * 64}


def sandbox_drill(api: Any, **told: Any) -> Any:
    """A drill of web1 on web2 whose hosts told this; returns web1 as it is then."""
    targets = {"hosts": ["web1"]}
    job = api.made("/maintenance/drill", {"targets": targets, "parameters": {"sandbox": "web2"}})
    drill = {"state": "proven", "at": "2026-01-02T00:00:00Z", "seed": 7, "sampled": 2, "compared": 2}
    drill |= {"seconds": 4.5, "repositories": [{"repository_id": "r1"}], "sent": SENT}
    results_by = {"web1": {"drill": drill | told.get("drill", {})}, "web2": {"receive": told.get("receive")}}
    with api.database.session() as session:
        found = session.get_one(Job, uuid.UUID(job["id"]))
        for row in session.scalars(select(JobHost).where(JobHost.job_id == found.id).order_by(JobHost.name)):
            row.result = results_by[row.name]
            session.flush()
            results.drilled(session, found, row)
        queue.finish(session, found, "succeeded")
    return job, api.get("/hosts/web1").json()


def test_a_drill_on_a_sandbox_is_proven_by_what_arrives_there(api: Any, archive: Any) -> None:
    enrolled(api, "web2")
    job, host = sandbox_drill(api, receive=SENT)
    assert (host["proof"], host["facts"]["drill"]["sandbox"]) == ("proven", "web2")
    assert api.get("/hosts/web2").json()["last_drill_at"] is None
    assert {each["name"] for each in api.get(f"/jobs/{job['id']}/hosts").json()["items"]} == {"web1", "web2"}
    assert api.get("/restores").json()["items"] == [], "nobody asked anything back"
    assert api.get(f"/restores/{job['parameters']['transfer']}").json()["kind"] == "drill"
    again = api.post(f"/jobs/{job['id']}/retry")
    assert (again.status_code, "anew" in again.text) == (409, True)


def test_a_sandbox_that_has_something_else_fails_the_drill(api: Any, archive: Any) -> None:
    enrolled(api, "web2")
    lost = [{"path": "/r1/srv/ledger", "message": "did not arrive as it was sent"}]
    host = sandbox_drill(api, receive=SENT | {"failed_total": 1, "failed": lost})[1]
    assert (host["proof"], "/r1/srv/ledger: on web2: did not arrive" in host["drill_error"]) == ("failed", True)
    host = sandbox_drill(api, receive=SENT | {"digest": "b" * 64})[1]
    assert (host["proof"], "hashes differ" in host["drill_error"]) == ("failed", True)


def test_a_sandbox_that_told_nothing_proves_nothing(api: Any, archive: Any) -> None:
    enrolled(api, "web2")
    assert sandbox_drill(api)[1]["last_drill_at"] is None
    broken = {"state": "failed", "sent": None}
    broken["repositories"] = [{"repository_id": "r1", "failed": [{"path": "/a", "reason": "damaged"}]}]
    assert sandbox_drill(api, drill=broken)[1]["drill_error"] == "/a: damaged"


def test_a_sandbox_is_another_enrolled_host_and_a_right_of_its_own(api: Any, archive: Any) -> None:
    enrolled(api, "web2")
    api.made("/hosts", {"name": "web3", "connection": "local"})
    body = {"targets": {"hosts": ["web1"]}, "parameters": {"sandbox": "web2"}}
    refused = api.post("/maintenance/drill", body, token=api.token_of("operator"))
    assert (refused.status_code, "restores:other_host" in refused.text) == (403, True)
    for sandbox in ("web1", "web3", "nobody"):
        refused = api.post("/maintenance/drill", body | {"parameters": {"sandbox": sandbox}})
        assert (refused.status_code, refused.json()["field"]) == (422, "parameters.sandbox"), refused.text
    several = {"targets": {"hosts": ["web1", "web2"]}, "parameters": {"sandbox": "web2"}}
    assert api.post("/maintenance/drill", several).json()["field"] == "targets.hosts"
