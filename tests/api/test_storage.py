"""Storage as a caller sees it: holds, approvals, copies, checks, growth, retention tried out, metrics."""

from datetime import timedelta

import pytest
from saveos.archives.models import Archive
from saveos.core.clock import now
from saveos.hosts.models import Host
from saveos.repositories.models import Check, Guard, GuardState, Repository, Sample
from sqlalchemy import select

DIGEST = "ab" * 32
REASON = {"code": "vanished", "message": "gone", "holds": True, "would_destroy": [{"id": "11", "name": "a"}]}


@pytest.fixture
def held(api):
    """The id of web1's repository, held by the guard of `vault`."""
    vault = {"name": "vault", "address": "10.0.0.9", "is_storage_server": True, "is_agent": False}
    api.made("/hosts", vault)
    api.made("/hosts", {"name": "web1", "address": "10.0.0.1"})
    with api.database.session() as session:
        repository = session.scalars(select(Repository)).one()
        server = session.scalars(select(Host).where(Host.name == "vault")).one()
        at, tenant = now(), repository.tenant_id
        repository.size = 500
        copies = [{"at": f"2026-01-0{day}T00:00:00Z", "extra_bytes": 10, "good": day == 1} for day in (1, 2)]
        state = GuardState(
            repository_id=repository.id, tenant_id=tenant, state="held", digest=DIGEST, reported_at=at
        )
        state.reasons, state.copies, state.held_bytes, state.held_since = [REASON], copies, 20, at
        session.add(state)
        session.add(
            Guard(server_id=server.id, tenant_id=tenant, reported_at=at, hold_days=14, free=600, total=1000)
        )
        for days in range(5):
            row = {"tenant_id": tenant, "day": at.date() - timedelta(days=days)}
            session.add(Sample(subject_id=repository.id, used=500 - days, **row))
            session.add(Sample(subject_id=server.id, used=400 - 100 * days, **row))
        session.add(
            Check(tenant_id=tenant, repository_id=repository.id, kind="data", state="ok", at=at, archives=[])
        )
        for days in range(12):
            moment = at - timedelta(days=days, minutes=5)
            fields = {"started_at": moment, "reported_at": moment, "name": f"a{days}", "deduplicated_size": 7}
            owner = {"tenant_id": tenant, "host_id": repository.host_id, "repository_id": repository.id}
            session.add(Archive(borg_id=f"{days:064x}", **owner, **fields))
    return str(repository.id)


def test_a_hold_is_listed_with_what_would_be_destroyed(api, held):
    (found,) = api.get("/repositories/guard?state=held&host=web1&server=vault").json()["items"]
    assert (found["repository_id"], found["host"], found["server"], found["copies"]) == (
        held,
        "web1",
        "vault",
        2,
    )
    assert found["reasons"][0]["would_destroy"] == [{"id": "11", "name": "a"}]
    assert api.get(f"/repositories/{held}/guard").json() == found
    assert api.get("/repositories/guard?state=ok").json()["items"] == []
    assert api.get("/repositories/guard?host=nobody").status_code == 404
    copies = api.get(f"/repositories/{held}/copies").json()["items"]
    assert [copy["good"] for copy in copies] == [False, True]  # newest first
    (check,) = api.get(f"/repositories/{held}/checks").json()["items"]
    assert (check["kind"], check["state"]) == ("data", "ok")


def test_growth_and_forecast(api, held):
    (server,) = api.get("/repositories/servers").json()["items"]
    assert (server["used"], server["free"], server["held"], server["full_in_days"]) == (400, 600, 1, 6)
    days = api.get(f"/repositories/{held}/growth?days=2").json()["items"]
    assert [day["used"] for day in days] == [498, 499, 500]
    assert len(api.get("/repositories/servers/vault/growth").json()["items"]) == 5


def test_an_approval_is_audited_bound_and_revoked_by_who_may(api, held):
    path, asked = f"/repositories/{held}/approvals", {"reason": "vanished", "digest": DIGEST, "days": 3}
    operator = api.token_of("operator")
    assert api.post(path, asked, token=operator).status_code == 403
    assert api.post(path, asked | {"digest": "cd"}).status_code == 409
    assert api.post(path, asked | {"reason": "clock"}).status_code == 409
    assert api.post(path, asked | {"days": 400}).status_code == 422
    made = api.made(path, asked)
    assert [each["id"] for each in api.get(path).json()["items"]] == [made["id"]]
    assert api.call("DELETE", f"{path}/{made['id']}", token=operator).status_code == 403
    assert api.delete(f"{path}/{made['id']}").status_code == 204
    assert api.delete(f"{path}/{made['id']}").status_code == 409
    acts = [act["action"] for act in api.get("/audit").json()["items"]]
    assert acts[:2] == ["revoke approval", "approve compaction"]


def test_an_undo_needs_its_right_and_a_repository_with_a_guard(api, held):
    asked = {"targets": {"hosts": ["web1"]}, "parameters": {"repository_id": held}}
    refused = api.post("/maintenance/undo", asked, token=api.token_of("operator"))
    assert (refused.status_code, "repositories:undo" in refused.text) == (403, True)
    for parameters in ({}, {"repository_id": held, "to": "../../x"}, {"repository_id": held, "to": "--help"}):
        assert api.post("/maintenance/undo", asked | {"parameters": parameters}).status_code == 422, parameters


def test_only_storage_servers_are_guarded(api, held):
    answer = api.post("/maintenance/guard", {"targets": {"hosts": ["web1"]}})
    assert (answer.status_code, "is no storage server" in answer.text) == (422, True)


def test_a_retention_is_tried_on_real_archives(api, held):
    policy = "/policies/default/simulate"
    now_ = api.post(policy, {}).json()
    assert (now_["totals"]["archives"], now_["totals"]["newly_pruned"]) == (12, 0)
    fewer = api.post(policy, {"retention": {"keep_within": "1d", "keep_daily": 2}, "days": 40}).json()
    assert fewer["totals"]["kept"] == 3
    assert fewer["totals"]["newly_pruned"] == now_["totals"]["kept"] - 3
    assert fewer["totals"]["bytes"] == 9 * 7
    assert fewer["before"]["keep_daily"] == 7
    archives = fewer["items"][0]["archives"]
    assert [each["kept_by"] for each in archives[:4]] == ["within 1", "daily 1", "daily 2", ""]
    assert all(each["expires_at"] for each in archives)
    wrong = api.post(policy, {"retention": {"keep_within": "7S", "keep_daily": 2}})
    assert (wrong.status_code, "unit S" in wrong.text) == (422, True)
    assert api.post(policy, {"hosts": ["nobody"]}).status_code == 422


def test_figures_are_in_the_metrics(api, held):
    text = api.get("/metrics").text
    assert 'saveos_guard_repositories{tenant="default",state="held"} 1' in text
    assert 'saveos_storage_free_bytes{tenant="default",server="vault"} 600' in text
    assert f'host="web1",repository="{held}"}} 500' in text
