"""Rights × routes: what each role may do, for every route, generated from the routes themselves."""

import re

import pytest
from saveos.accounts.service import AGENT_RIGHTS, RIGHTS


def tokens(api):
    host = api.made("/hosts", {"name": "web1"})
    roles = {role: (api.token_of(role), rights) for role, rights in RIGHTS.items()}
    return roles | {"agent": (api.agent_token(host["id"]), AGENT_RIGHTS)}


def test_each_role_reaches_what_its_rights_allow_and_nothing_else(api, routes):
    """A 403 names the right that is missing; it must be one that the role lacks. Others reach the route."""
    for role, (token, rights) in tokens(api).items():
        refused = set()
        for route in routes:
            if route.open or route.own:
                continue
            answer = api.call(route.method, route.url(), token=token, json={} if route.has_body else None)
            if answer.status_code == 403:
                right = re.search(r"the right ([a-z:]+)", answer.json()["detail"]).group(1)
                assert right not in rights, f"{role} has {right}, but {route} refuses"
                refused.add(route)
            else:
                assert answer.status_code < 500, f"{role} {route}: {answer.text}"
                assert role != "agent" or route.path.startswith("/api/v1/agents/"), f"an agent reaches {route}"
                own = route.method == "GET" or "/tokens" in route.path
                assert role != "viewer" or own, f"a viewer reaches {route}"
        if role != "admin":
            assert len(refused) > 10, role


WRITES = {
    "/hosts": {"name": "web2"},
    "/hosts/scan": {"address": "127.0.0.1", "port": 1},
    "/groups": {"name": "web"},
    "/policies": {"name": "p", "sources": ["/etc"]},
    "/users": {"name": "u"},
    "/repositories": {"host": "web1", "kind": "local", "path": "/backup"},
}


@pytest.mark.parametrize("path", sorted(WRITES))
def test_only_an_admin_may_change_the_fleet(api, path):
    for role, (token, _) in tokens(api).items():
        status = api.post(path, WRITES[path], token=token).status_code
        assert (status in (201, 503)) if role == "admin" else (status == 403), f"{role} POST {path}: {status}"


def test_only_an_agent_checks_in(api):
    for role, (token, _) in tokens(api).items():
        status = api.post("/agents/checkins", {"runs": []}, token=token).status_code
        assert status == (200 if role == "agent" else 403), role


def test_every_write_by_a_person_is_in_the_audit_trail(api):
    before = len(api.get("/audit").json()["items"])
    api.made("/hosts", {"name": "web1", "address": "10.0.0.1"})
    api.made("/groups", {"name": "web", "hosts": ["web1"]})
    api.made("/policies", {"name": "p", "sources": ["/etc"], "hooks": {"before": ["echo canary-secret"]}})
    assert api.patch("/hosts/web1", {"policy": "p"}).status_code == 200
    assert api.post("/groups", {"name": "web"}).status_code == 409  # refused, so not noted
    assert api.delete("/groups/web").status_code == 204
    trail = api.get("/audit")
    acts = [(act["action"], act["object"]) for act in trail.json()["items"]]
    assert acts[: len(acts) - before] == [
        ("delete group", "group:web"),
        ("change host", "host:web1"),
        ("create policy", "policy:p"),
        ("create group", "group:web"),
        ("add host", "host:web1"),
    ]
    assert "canary-secret" not in trail.text
