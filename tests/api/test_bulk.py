"""One action for many hosts, as a caller sees it; at 10,000 hosts too."""

import time

import pytest
from saveos.hosts.models import Host
from sqlalchemy import event, func, insert, select


@pytest.fixture
def hosts(api, host_key):
    """Four hosts: two enrolled, one pending, one taken out."""
    for name in ("a", "b", "c", "d"):
        api.made("/hosts", {"name": name, "tags": ["old"], "ssh_host_keys": [host_key()]})
    with api.database.session() as session:
        for host in session.scalars(select(Host).where(Host.name.in_(["a", "b"]))):
            host.state = "enrolled"
    assert api.delete("/hosts/d").status_code == 204


def bulk(api, action, **more):
    answer = api.post("/hosts/bulk", {"action": action} | more)
    assert answer.status_code == 200, answer.text
    return answer.json()


def counts(out):
    return out["matched"], out["changed"], out["unchanged"], sum(each["count"] for each in out["refused"])


def states(api):
    return {host["name"]: host["state"] for host in api.get("/hosts").json()["items"]}


def test_pause_and_resume(api, hosts):
    assert counts(bulk(api, "pause", filter={})) == (3, 2, 0, 1)
    assert states(api) == {"a": "paused", "b": "paused", "c": "pending"}
    out = bulk(api, "resume", hosts=["a", "d"])
    assert counts(out) == (2, 1, 0, 1)
    assert out["refused"] == [{"reason": "was taken out: add it again first", "count": 1, "hosts": ["d"]}]
    assert counts(bulk(api, "resume", filter={"state": "enrolled"})) == (1, 0, 1, 0)


def test_a_dry_run_says_the_same_and_changes_nothing(api, hosts):
    for action, more in (
        ("pause", {}),
        ("add_tags", {"tags": ["new"]}),
        ("decommission", {}),
        ("operation", {"operation": "provision"}),
    ):
        before = api.get("/hosts").json()
        told = bulk(api, action, filter={}, dry_run=True, **more)
        assert (told["changed"] > 0, told["job"]) == (True, None), action
        assert api.get("/hosts").json()["items"] == before["items"], action
    assert api.get("/jobs").json()["items"] == []


def test_tags_and_groups(api, hosts):
    api.made("/groups", {"name": "web", "hosts": ["a"]})
    assert counts(bulk(api, "add_tags", filter={"tag": "old"}, tags=["x", "y"])) == (3, 3, 0, 0)
    assert counts(bulk(api, "remove_tags", hosts=["a"], tags=["old", "x"])) == (1, 1, 0, 0)
    assert api.get("/hosts/a").json()["tags"] == ["y"]
    assert counts(bulk(api, "add_group", filter={"q": ""}, groups=["web"])) == (3, 2, 1, 0)
    assert api.get("/groups/web").json()["hosts"] == 3
    assert counts(bulk(api, "remove_group", hosts=["b", "c"], groups=["web"])) == (2, 2, 0, 0)
    assert [host["name"] for host in api.get("/hosts?group=web").json()["items"]] == ["a"]
    missing = api.post("/hosts/bulk", {"action": "add_group", "filter": {}, "groups": ["gone"]})
    assert (missing.status_code, missing.json()["field"]) == (422, "groups")


def test_policy_and_groups_policy(api, hosts):
    api.made("/policies", {"name": "p", "sources": ["/srv"]})
    assert counts(bulk(api, "policy", filter={}, policy="p")) == (3, 3, 0, 0)
    assert {host["policy_name"] for host in api.get("/hosts").json()["items"]} == {"p"}
    assert counts(bulk(api, "policy", filter={"policy": "p"}, policy="p")) == (3, 0, 3, 0)
    assert counts(bulk(api, "follow_groups", hosts=["a"])) == (1, 1, 0, 0)
    assert api.get("/hosts/a").json()["policy_name"] == "default"


def test_one_job_for_all_that_can_run_it(api, hosts):
    out = bulk(api, "operation", filter={}, operation="backup")
    assert counts(out) == (3, 2, 0, 1)
    assert out["job"]["hosts_total"] == 2
    (job,) = api.get("/jobs").json()["items"]
    assert job["targets"] == {"hosts": ["a", "b"]}
    wrong = {"action": "operation", "operation": "restore", "filter": {}, "parameters": {"size": 1}}
    assert api.post("/hosts/bulk", wrong).status_code == 422


def test_decommission_ends_tokens(api, hosts):
    token = api.agent_token(api.get("/hosts/a").json()["id"])
    assert api.post("/agents/checkins", {"runs": []}, token=token).status_code == 200
    assert counts(bulk(api, "decommission", hosts=["a", "b", "d"])) == (3, 2, 1, 0)
    assert api.post("/agents/checkins", {"runs": []}, token=token).status_code == 401
    assert states(api) == {"c": "pending"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"action": "pause"},
        {"action": "pause", "hosts": ["a"], "filter": {}},
        {"action": "explode", "filter": {}},
        {"action": "add_tags", "filter": {}},
        {"action": "policy", "filter": {}},
        {"action": "policy", "filter": {}, "policy": "gone"},
        {"action": "operation", "filter": {}},
        {"action": "operation", "filter": {}, "operation": "explode"},
        {"action": "pause", "hosts": ["gone"]},
        {"action": "pause", "filter": {"colour": "red"}},
    ],
)
def test_what_is_not_clear_is_refused(api, hosts, wrong):
    assert api.post("/hosts/bulk", wrong).status_code == 422
    assert states(api) == {"a": "enrolled", "b": "enrolled", "c": "pending"}


def test_an_operator_starts_operations_and_changes_no_host(api, hosts):
    token = api.token_of("operator")
    refused = api.post("/hosts/bulk", {"action": "pause", "filter": {}}, token=token)
    assert (refused.status_code, "hosts:write" in refused.text) == (403, True)
    allowed = api.post("/hosts/bulk", {"action": "operation", "operation": "backup", "filter": {}}, token=token)
    assert allowed.status_code == 200


def test_another_tenants_hosts_are_out_of_reach(api, hosts):
    other = api.other_tenant()
    key = api.get("/hosts/a").json()["id"]
    refused = api.post("/hosts/bulk", {"action": "pause", "hosts": [key]}, token=other.token)
    assert refused.status_code == 422
    answer = api.post("/hosts/bulk", {"action": "decommission", "filter": {}}, token=other.token)
    assert answer.json()["matched"] == 0
    assert states(api) == {"a": "enrolled", "b": "enrolled", "c": "pending"}


def test_ten_thousand_hosts(api):
    api.made("/groups", {"name": "web"})
    api.made("/policies", {"name": "p", "sources": ["/srv"]})
    with api.database.session() as session:
        plain = {"tenant_id": api.tenant_id, "address": "10.0.0.1", "state": "enrolled", "tags": []}
        session.execute(insert(Host), [plain | {"name": f"h{number:05}"} for number in range(10_000)])
    sent: list[str] = []
    event.listen(api.database.engine, "before_cursor_execute", lambda *words: sent.append(words[2]))
    for action, more in (
        ("pause", {}),
        ("resume", {}),
        ("add_tags", {"tags": ["x"]}),
        ("add_group", {"groups": ["web"]}),
        ("policy", {"policy": "p"}),
        ("decommission", {}),
    ):
        sent.clear()
        began = time.perf_counter()
        assert counts(bulk(api, action, filter={}, **more)) == (10_000, 10_000, 0, 0)
        elapsed = time.perf_counter() - began
        print(f"{action}: {elapsed:.2f} s")
        assert len(sent) < 100, f"{action} of 10,000 hosts took {len(sent)} statements"
        assert elapsed < 60, f"{action} of 10,000 hosts took {elapsed:.1f} s"
    with api.database.session() as session:
        assert session.scalar(select(func.count()).where(Host.state == "decommissioned")) == 10_000
