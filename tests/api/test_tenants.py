"""Two tenants: every route with another tenant's id answers as if there were nothing."""

BODIES = {
    ("PATCH", "/api/v1/hosts/{host}"): {"port": 2222},
    ("PATCH", "/api/v1/groups/{group}"): {"hosts": []},
    ("PATCH", "/api/v1/policies/{policy}"): {"jitter_minutes": 1},
    ("POST", "/api/v1/policies/{policy}/rollback"): {"version": 1},
    ("POST", "/api/v1/policies/{policy}/simulate"): {},
    ("POST", "/api/v1/repositories/{repository_id}/approvals"): {"reason": "vanished", "digest": "ab"},
    ("PUT", "/api/v1/groups/{group}/policy"): {"policy": None},
    ("PATCH", "/api/v1/repositories/{repository_id}"): {"quota": "1G"},
    ("PATCH", "/api/v1/archives/{archive_id}"): {"note": "x"},
    ("POST", "/api/v1/archives/{archive_id}/care"): {"action": "protect"},
    ("POST", "/api/v1/archives/{archive_id}/diff"): {"path": "/etc/hosts"},
    ("POST", "/api/v1/archives/{archive_id}/text"): {"path": "/etc/hosts"},
    ("POST", "/api/v1/agents/catalogue/{repository_id}/living"): {"archives": []},
    ("PATCH", "/api/v1/users/{user_id}"): {"role": "viewer"},
    ("PATCH", "/api/v1/schedules/{schedule}"): {"jitter_seconds": 1},
}


def things(api):
    """Make one of everything in the first tenant; return the id for each path parameter."""
    api.made("/hosts", {"name": "vault", "is_agent": False, "is_storage_server": True})
    host = api.made("/hosts", {"name": "web1"})
    group = api.made("/groups", {"name": "web", "hosts": ["web1"]})
    policy = api.made("/policies", {"name": "p", "sources": ["/etc"]})
    repository = api.get("/repositories").json()["items"][0]
    token = api.made("/tokens", {"name": "mine"})
    run_id = "6e7c1c0a-55c2-4d0c-8c6f-0a9d3c1f1a11"
    record = {
        "run_id": run_id,
        "state": "succeeded",
        "started_at": "2026-01-01T00:00:00Z",
        "finished_at": "2026-01-01T00:01:00Z",
        "results": [
            {
                "repository_id": repository["id"],
                "state": "succeeded",
                "archive": {"id": "a" * 64, "started_at": "2026-01-01T00:00:00Z"},
            }
        ],
    }
    assert (
        api.post("/agents/checkins", {"runs": [record]}, token=api.agent_token(host["id"])).status_code == 200
    )
    return {
        "host": host["id"],
        "group": group["id"],
        "policy": policy["id"],
        "repository_id": repository["id"],
        "token_id": token["id"],
        "user_id": api.get("/users").json()["items"][0]["id"],
        "schedule": api.get("/schedules").json()["items"][0]["id"],
        "archive_id": api.get("/archives").json()["items"][0]["id"],
        "other_id": api.get("/archives").json()["items"][0]["id"],
        "borg_id": "a" * 64,
        "run_id": run_id,
        "enrolment_token": api.made("/enrolment/tokens", {"name": "t"})["id"],
    }


def test_every_route_hides_what_another_tenant_has(api, routes):
    ids = things(api)
    other = api.other_tenant()
    foreign = api.call("POST", "/hosts", json={"name": "theirs"}, token=other.token).json()
    agent = api.agent_token(foreign["id"], other.id)
    checked = []
    for route in routes:
        if not route.parameters or not ids.keys() >= set(route.parameters):
            continue
        body = BODIES.get((route.method, route.path))
        token = agent if route.path.startswith("/api/v1/agents/") else other.token
        answer = api.call(route.method, route.url(ids), token=token, json=body)
        assert answer.status_code == 404, f"{route}: {answer.status_code} {answer.text}"
        checked.append(route)
    assert len(checked) >= 15
    for name, path in (("host", "/hosts/"), ("policy", "/policies/"), ("archive_id", "/archives/")):
        assert api.get(path + ids[name]).status_code == 200  # and nothing was changed or removed


def test_lists_show_only_ones_own(api):
    things(api)
    other = api.other_tenant()
    for path in ("/hosts", "/groups", "/repositories", "/archives", "/runs", "/policies"):
        assert api.get(path).json()["items"], path
        assert api.get(path, token=other.token).json()["items"] == [], path
    assert api.get("/backup/web1/snapshots", token=other.token).status_code == 404
    hosts = api.get("/inventory", token=other.token).json()["_meta"]["hostvars"]
    assert hosts == {}
    assert api.post("/hosts", {"name": "web1"}, token=other.token).status_code == 201
    assert api.get("/hosts/web1").json()["id"] != api.get("/hosts/web1", token=other.token).json()["id"]


def test_only_the_first_tenant_may_have_the_controllers_own_machine(api):
    own = {"name": "here", "connection": "local", "repository": {"kind": "local", "path": "/b"}}
    other = api.other_tenant()
    refused = api.post("/hosts", own, token=other.token)
    assert (refused.status_code, "connection" in refused.json()["field"]) == (422, True), refused.text
    assert api.get("/hosts", token=other.token).json()["items"] == []
    assert api.post("/hosts", own).status_code == 201


def test_bodies_cannot_name_what_another_tenant_has(api):
    ids = things(api)
    token = api.other_tenant().token
    cases = [
        ("/hosts", {"name": "x", "policy": ids["policy"]}),
        ("/hosts", {"name": "x", "groups": ["web"]}),
        ("/hosts", {"name": "x", "repository": {"server": "vault"}}),
        ("/groups", {"name": "g", "hosts": [ids["host"]]}),
        ("/repositories", {"host": ids["host"], "kind": "local", "path": "/b"}),
    ]
    for path, body in cases:
        assert api.post(path, body, token=token).status_code == 422, path
    assert api.get("/hosts", token=token).json()["items"] == []  # nothing half-done
