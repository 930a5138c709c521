"""Operations over HTTP: what is accepted, what is refused with which sentence."""

import uuid
from typing import Any

import pytest
from saveos.hosts.models import Host
from saveos.jobs import queue
from saveos.jobs.models import Job, JobHost
from saveos.maintenance.operations import OPERATIONS
from sqlalchemy import select


@pytest.fixture
def fleet(api: Any, host_key: Any) -> dict[str, Any]:
    """A storage server, two enrolled agents (web1 in group web), one pending, one without host key."""
    api.made("/groups", {"name": "web"})
    store = {"name": "vault", "address": "192.0.2.1", "is_agent": False, "is_storage_server": True}
    made = {"vault": api.made("/hosts", store | {"ssh_host_keys": [host_key()]})}
    for name in ("web1", "web2", "new"):
        body = {"name": name, "address": "192.0.2.9", "ssh_host_keys": [host_key()]}
        made[name] = api.made("/hosts", body | ({"groups": ["web"]} if name == "web1" else {}))
    made["bare"] = api.made("/hosts", {"name": "bare", "address": "192.0.2.8"})
    with api.database.session() as session:
        for name in ("vault", "web1", "web2"):
            session.get_one(Host, uuid.UUID(made[name]["id"])).state = "enrolled"
    return made


def start(api: Any, operation: str, targets: Any, **rest: Any) -> Any:
    return api.post(f"/maintenance/{operation}", {"targets": targets} | rest)


def test_table_of_operations(api: Any) -> None:
    items = {item["name"]: item for item in api.get("/maintenance").json()["items"]}
    assert set(items) == set(OPERATIONS)
    assert items["restore"]["idempotent"] is True  # the host knows a run by its id, and goes on with it
    assert items["browse"]["parameters"]["properties"]["path"]["default"] == "/"


def test_backup_leases_host_and_repository(api: Any, fleet: Any) -> None:
    job = start(api, "backup", {"hosts": ["web1", "web2"]}).json()
    with api.database.session() as session:
        resources = session.get_one(Job, uuid.UUID(job["id"])).resources
    assert {each for each in resources if each.startswith("host:")} == {
        f"host:{fleet['web1']['id']}",
        f"host:{fleet['web2']['id']}",
    }
    assert sum(each.startswith("repository:") for each in resources) == 2


def test_health_waits_for_no_other_job(api: Any, fleet: Any) -> None:
    start(api, "backup", {"hosts": ["web1"]})
    job = start(api, "health", {"hosts": ["web1"]}).json()
    with api.database.session() as session:
        claimed = queue.claim(session, "w1", 30, 10)
        assert [each.operation for each in claimed] == ["backup", "health"]
        assert session.get_one(Job, uuid.UUID(job["id"])).blocked_by == ""


def test_provision_takes_the_storage_server_along(api: Any, fleet: Any) -> None:
    job = start(api, "provision", {"hosts": ["new"]}, mode="check").json()
    assert (job["mode"], job["hosts_total"]) == ("check", 1)
    with api.database.session() as session:
        rows = session.scalars(select(JobHost).where(JobHost.job_id == uuid.UUID(job["id"]))).all()
        assert {row.name: row.is_target for row in rows} == {"new": True, "vault": False}
        assert f"host:{fleet['vault']['id']}" in session.get_one(Job, uuid.UUID(job["id"])).resources


def test_groups_and_all_choose_what_can(api: Any, fleet: Any) -> None:
    assert start(api, "backup", {"groups": ["web"]}).json()["hosts_total"] == 1
    assert start(api, "backup", {"all": True}).json()["hosts_total"] == 2
    assert start(api, "provision", {"all": True}).json()["hosts_total"] == 4


@pytest.mark.parametrize(
    ("operation", "body", "status", "words"),
    [
        ("backup", {"targets": {"hosts": ["nobody"]}}, 422, "there is no host nobody"),
        ("backup", {"targets": {"groups": ["nobody"]}}, 422, "there is no group nobody"),
        ("backup", {"targets": {}}, 422, "name hosts or groups"),
        ("backup", {"targets": {"hosts": ["new"]}}, 422, "run provision on it first"),
        ("backup", {"targets": {"hosts": ["vault"]}}, 422, "vault is no agent"),
        ("provision", {"targets": {"hosts": ["bare"]}}, 422, "has no SSH host key"),
        ("backup", {"targets": {"hosts": ["web1"]}, "mode": "check"}, 422, "no check mode"),
        ("backup", {"targets": {"hosts": ["web1"]}, "parameters": {"x": 1}}, 422, "parameters.x"),
        ("browse", {"targets": {"hosts": ["web1"]}, "parameters": {"path": "etc"}}, 422, "absolute"),
        ("browse", {"targets": {"hosts": ["web1"]}, "parameters": {"archive": "a\nb"}}, 422, "archive"),
        ("backup", {"targets": {"hosts": "web1"}}, 422, "targets.hosts"),
        ("backup", {"targets": {"hosts": ["web1"]}, "extra": 1}, 422, "extra"),
        ("frobnicate", {"targets": {"all": True}}, 404, "there are provision, backup"),
        ("restore", {"targets": {"hosts": ["web1", "web2"]}}, 422, "exactly one"),
        ("restore", {"targets": {"hosts": ["web1"]}}, 404, "no archive yet"),
    ],
)
def test_refusals(api: Any, fleet: Any, operation: str, body: Any, status: int, words: str) -> None:
    answer = api.post(f"/maintenance/{operation}", body)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["detail"]
    assert api.get("/jobs").json()["items"] == []


def test_paused_host_is_left_alone(api: Any, fleet: Any) -> None:
    api.patch(f"/hosts/{fleet['web1']['id']}", {"state": "paused"})
    assert "is paused" in start(api, "backup", {"hosts": ["web1"]}).json()["detail"]
    assert start(api, "backup", {"all": True}).json()["hosts_total"] == 1


def test_history_and_short_form(api: Any, fleet: Any) -> None:
    short = api.post("/backup", {"hosts": ["web1"]})
    assert (short.status_code, short.json()["operation"]) == (202, "backup")
    start(api, "health", {"hosts": ["web1"]})
    assert [job["id"] for job in api.get("/maintenance/backup").json()["items"]] == [short.json()["id"]]
    assert api.get("/maintenance/frobnicate").status_code == 404
    assert api.post("/backup", {"hosts": []}).status_code == 422


def test_audit_says_who_started_what(api: Any, fleet: Any) -> None:
    job = start(api, "backup", {"hosts": ["web1"]}).json()
    newest = api.get("/audit?limit=1").json()["items"][0]
    assert (newest["object"], newest["detail"]["operation"]) == (f"job:{job['id']}", "backup")
