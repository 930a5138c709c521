"""Policies, as a caller sees them."""

import uuid

import pytest


def test_the_default_policy_is_there_from_the_start(api):
    policy = api.get("/policies/default").json()
    assert (policy["is_default"], policy["sources"]) == (True, ["/etc", "/home"])
    assert policy["retention"] == {"keep_within": "7d", "keep_daily": 7, "keep_weekly": 4, "keep_monthly": 6}


def test_hooks_are_sealed_and_never_shown(api):
    made = api.made(
        "/policies", {"name": "p", "sources": ["/etc"], "hooks": {"before": ["login canary-7311", "b"]}}
    )
    assert made["hooks"] == {"before": 2, "after": 0, "on_error": 0}
    for path in ("/policies", "/policies/p", "/audit", "/inventory"):
        assert "canary-7311" not in api.get(path).text
    from saveos.policies.models import Policy
    from saveos.policies.service import hooks_of
    from sqlalchemy import select

    with api.database.session() as session:
        policy = session.scalar(select(Policy).where(Policy.name == "p"))
        assert b"canary-7311" not in policy.hooks
        assert hooks_of(session, policy)["before"] == ["login canary-7311", "b"]
    kept = api.patch("/policies/p", {"jitter_minutes": 5}).json()
    assert (kept["hooks"]["before"], kept["jitter_minutes"]) == (2, 5)
    assert api.patch("/policies/p", {"hooks": {}}).json()["hooks"]["before"] == 0


def test_a_policy_that_does_not_open_is_listed_as_unreadable_beside_the_others(api):
    from saveos.policies.models import Policy
    from sqlalchemy import update

    for name in ("bad", "good"):
        api.made("/policies", {"name": name, "sources": ["/etc"], "hooks": {"before": ["true"]}})
    with api.database.session() as session:
        session.execute(update(Policy).where(Policy.name == "bad").values(hooks=b"1" * 60))
    shown = {each["name"]: each for each in api.get("/policies").json()["items"]}
    assert (shown["good"]["unreadable"], shown["good"]["hooks"]["before"]) == ("", 1)
    assert shown["bad"]["unreadable"].startswith("the commands of policy bad do not open")
    headers = {"Authorization": f"Bearer {api.token}", "Accept": "text/html"}
    for page in ("/policies", f"/policies/{shown['bad']['id']}"):
        answer = api.client.get(page, headers=headers)
        assert answer.status_code == 200 and "The commands of policy bad do not open" in answer.text
    refused = api.patch("/policies/bad", {"jitter_minutes": 5})
    assert (refused.status_code, refused.json()["detail"]) == (409, shown["bad"]["unreadable"])


def test_there_is_always_one_default_and_a_policy_in_use_stays(api):
    api.made("/policies", {"name": "p", "sources": ["/etc"], "is_default": True})
    assert api.get("/policies/default").json()["is_default"] is False
    assert api.patch("/policies/p", {"is_default": False}).status_code == 409
    assert api.delete("/policies/p").status_code == 409
    api.made("/hosts", {"name": "web1", "policy": "default"})
    assert api.get("/policies/default").json()["hosts"] == 1
    assert api.delete("/policies/default").status_code == 409
    api.patch("/hosts/web1", {"policy": "p"})
    assert api.delete("/policies/default").status_code == 204


@pytest.mark.parametrize(
    "body, field, words",
    [
        ({}, "sources", "required"),
        ({"sources": []}, "sources", "at least 1"),
        ({"sources": ["etc"]}, "sources.0", "absolute"),
        ({"sources": ["/etc\nx"]}, "sources.0", "one line"),
        ({"sources": "/etc"}, "sources", "list"),
        ({"sources": ["/etc"], "schedule": "often"}, "schedule", "day of week"),
        ({"sources": ["/etc"], "schedule": "61 2 * * *"}, "schedule", "0 to 59"),
        ({"sources": ["/etc"], "schedule": "0 0 30 2 *"}, "schedule", "never"),
        ({"sources": ["/etc"], "schedule": "0 0 1 * 1"}, "schedule", "not both"),
        ({"sources": ["/etc"], "retention": {}}, "retention", "keep nothing"),
        ({"sources": ["/etc"], "retention": {"keep_within": "soon"}}, "retention.keep_within", "pattern"),
        ({"sources": ["/etc"], "compression": "zip"}, "compression", "Borg"),
        ({"sources": ["/etc"], "overrides": {"commands": []}}, "overrides", "hooks"),
        ({"sources": ["/etc"], "hooks": {"sometimes": []}}, "hooks.sometimes", "no such field"),
    ],
)
def test_bad_policies_are_refused(api, body, field, words):
    answer = api.post("/policies", {"name": "p"} | body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["field"] == field
    assert words in answer.json()["detail"]


def test_a_policy_takes_a_zone_a_calendar_and_databases(api):
    asked = {
        "name": "p",
        "sources": ["/etc"],
        "schedule": "Mon..Fri *-*-* 02:30",
        "zone": "Europe/Paris",
        "databases": [{"kind": "mariadb", "username": "b", "password": "canary-db-1"}, {"kind": "postgresql"}],
        "retention": {"keep_daily": 3},
    }
    made = api.made("/policies", asked)
    assert (made["schedule"], made["zone"]) == ("30 2 * * 1,2,3,4,5", "Europe/Paris")
    assert made["retention"] == {"keep_within": "7d", "keep_daily": 3}
    assert [(each["kind"], each["name"], each["has_password"]) for each in made["databases"]] == [
        ("mariadb", "all", True),
        ("postgresql", "all", False),
    ]
    # an absent password stays with its database, wherever that moves; an empty one takes it away
    moved = [{"kind": "postgresql"}, {"kind": "mariadb", "username": "b"}]
    kept = api.patch("/policies/p", {"databases": moved}).json()
    assert [each["has_password"] for each in kept["databases"]] == [False, True]
    assert api.patch("/policies/p", {"databases": moved}).json()["version"] == kept["version"] == 2
    gone = api.patch("/policies/p", {"databases": [moved[1] | {"password": ""}]}).json()
    assert gone["databases"][0]["has_password"] is False
    paths = ("/policies", "/policies/p/versions", "/policies/p/versions/1/diff/2", "/inventory", "/audit")
    assert not any("canary-db-1" in api.get(path).text for path in paths)


@pytest.mark.parametrize(
    "body, words",
    [
        ({"zone": "Mars/Olympus"}, "no time zone"),
        ({"schedule": "02:00 Europe/Paris"}, "names a time zone"),
        ({"databases": [{"kind": "sqlite"}]}, "path"),
        ({"databases": [{"kind": "oracle"}]}, "postgresql"),
        ({"databases": [{"kind": "mysql", "name": "-x"}]}, "dash"),
        ({"databases": [{"kind": "mysql"}, {"kind": "mysql"}]}, "twice"),
        ({"servers": ["nowhere"]}, "no storage server"),
        ({"overrides": {"list_details": True}}, "overridden"),
        ({"retention": {"keep_within": "0d"}}, "retention.keep_within"),  # would keep nothing
        ({"overrides": {"mysql_databases": []}}, "field of their own"),
        ({"overrides": {"ntfy": {"access_token": "tk_hunter22"}}}, "{credential file PATH}"),
    ],
)
def test_what_a_host_could_not_do_is_refused(api, body, words):
    answer = api.post("/policies", {"name": "p", "sources": ["/etc"]} | body)
    assert answer.status_code == 422, answer.text
    assert words in answer.json()["detail"]


def test_each_change_is_a_version_that_can_be_compared_and_gone_back_to(api):
    api.made("/policies", {"name": "p", "sources": ["/etc"], "hooks": {"before": ["canary-hook-1"]}})
    api.patch("/policies/p", {"sources": ["/etc", "/srv"], "note": "the shop moved"})
    api.patch("/policies/p", {"hooks": {"before": ["canary-hook-2"]}})
    assert api.patch("/policies/p", {"sources": ["/etc", "/srv"]}).json()["version"] == 3
    versions = api.get("/policies/p/versions").json()["items"]
    assert [(each["number"], each["note"], bool(each["created_by"])) for each in versions] == [
        (3, "", True),
        (2, "the shop moved", True),
        (1, "", True),
    ]
    first_page = api.get("/policies/p/versions?limit=2").json()
    assert [each["number"] for each in first_page["items"]] == [3, 2]
    second = api.get(f"/policies/p/versions?limit=2&cursor={first_page['next']}").json()
    assert [each["number"] for each in second["items"]] == [1]
    diff = api.get("/policies/p/versions/1/diff/3").json()
    assert {each["field"] for each in diff["changes"]} == {"sources", "hooks"}
    assert "+- /srv" in diff["diff"]
    assert "canary-hook" not in str(diff) + str(versions)
    back = api.post("/policies/p/rollback", {"version": 1}).json()
    assert (back["version"], back["sources"]) == (4, ["/etc"])
    assert api.get("/policies/p/versions/1/diff/4").json()["changes"] == []
    from saveos.policies.models import Policy
    from saveos.policies.service import hooks_of
    from sqlalchemy import select

    with api.database.session() as session:
        policy = session.scalar(select(Policy).where(Policy.name == "p"))
        assert hooks_of(session, policy)["before"] == ["canary-hook-1"]
    assert api.get("/policies/p/versions/9").status_code == 404
    assert api.post("/policies/p/rollback", {"version": 9}).status_code == 404


def put(api, path, body):
    return api.call("PUT", path, json=body)


def source(api, host):
    found = api.get(f"/hosts/{host}").json()
    return found["policy_name"], found["policy_source"]


def test_the_hosts_own_choice_beats_its_groups_and_those_beat_the_default(api):
    for name in ("own", "a", "b"):
        api.made("/policies", {"name": name, "sources": ["/etc"]})
    api.made("/hosts", {"name": "web1"})
    for name in ("alpha", "beta"):
        api.made("/groups", {"name": name, "hosts": ["web1"]})
    assert source(api, "web1") == ("default", "default")
    assert put(api, "/groups/beta/policy", {"policy": "b"}).json()["hosts"] == 1
    assert source(api, "web1") == ("b", "group:beta")
    put(api, "/groups/alpha/policy", {"policy": "a"})
    assert source(api, "web1") == ("a", "group:alpha"), "equal priorities: by name"
    put(api, "/groups/beta/policy", {"policy": "b", "priority": 5})
    assert source(api, "web1") == ("b", "group:beta"), "the lower number wins"
    api.patch("/hosts/web1", {"policy": "own"})
    assert source(api, "web1") == ("own", "host")
    chain = api.get("/hosts/web1/policy").json()["chain"]
    assert [(each["source"], each["policy"], each["applies"]) for each in chain] == [
        ("host", "own", True),
        ("group:beta", "b", False),
        ("group:alpha", "a", False),
        ("default", "default", False),
    ]
    assert api.delete("/policies/own").status_code == 409
    assert api.delete("/policies/a").status_code == 409
    api.patch("/hosts/web1", {"policy": None})
    assert source(api, "web1") == ("b", "group:beta")
    api.patch("/groups/beta", {"name": "gamma"})
    assert source(api, "web1") == ("b", "group:gamma")
    api.patch("/groups/gamma", {"hosts": []})
    assert source(api, "web1") == ("a", "group:alpha")
    api.patch("/hosts/web1", {"groups": []})
    assert source(api, "web1") == ("default", "default")
    api.patch("/hosts/web1", {"groups": ["alpha", "gamma"]})
    assert source(api, "web1") == ("b", "group:gamma")
    api.delete("/groups/gamma")
    assert source(api, "web1") == ("a", "group:alpha")
    put(api, "/groups/alpha/policy", {"policy": None})
    api.patch("/policies/own", {"is_default": True})
    assert source(api, "web1") == ("own", "default")


def test_a_change_makes_hosts_drift_until_they_are_provisioned(api):
    from saveos.hosts.models import Host
    from sqlalchemy import select

    host = api.made("/hosts", {"name": "web1"})
    assert host["drift"] is False, "it was not provisioned at all yet"

    def provisioned():
        with api.database.session() as session:
            found = session.scalar(select(Host).where(Host.name == "web1"))
            found.state = "enrolled"
            from saveos.policies.fleet import role_variables
            from saveos.policies.precedence import record_applied

            told = role_variables(session, found.tenant_id, [found])[found.id]["agent_policy_version"]
            record_applied(session, found, uuid.UUID(told))

    def drift():
        listed = [each["name"] for each in api.get("/hosts?drift=true").json()["items"]]
        assert (listed == ["web1"]) is api.get("/hosts/web1").json()["drift"]
        assert bool(api.get("/hosts?drift=false").json()["items"]) is (not listed)
        return bool(listed)

    provisioned()
    assert drift() is False
    api.patch("/policies/default", {"grace_minutes": 90})
    assert drift() is False, "nothing of that is on the host"
    api.patch("/policies/default", {"excludes": ["*.tmp"]})
    assert drift() is True
    api.post("/policies/default/rollback", {"version": 2})
    assert drift() is False, "it has what that version says"
    api.made("/policies", {"name": "p", "sources": ["/srv"]})
    api.patch("/hosts/web1", {"policy": "p"})
    assert drift() is True
    provisioned()
    assert drift() is False
    api.patch("/hosts/web1", {"policy": "default"})
    api.patch("/policies/default", {"name": "usual"})
    assert api.delete("/policies/p").status_code == 204
    assert drift() is True


def test_what_a_host_would_get_is_rendered_without_secrets(api):
    api.made("/hosts", {"name": "vault", "is_agent": False, "is_storage_server": True, "address": "192.0.2.7"})
    api.made(
        "/policies",
        {
            "name": "p",
            "sources": ["/srv"],
            "hooks": {"before": ["canary-hook"]},
            "databases": [{"kind": "mongodb", "hostname": "db", "username": "u", "password": "canary-db"}],
        },
    )
    api.made("/hosts", {"name": "web1", "policy": "p"})
    answer = api.get("/hosts/web1/policy")
    assert "canary-" not in answer.text
    ((_, text),) = answer.json()["rendered"].items()
    import yaml

    config = yaml.safe_load(text)
    assert config["source_directories"] == ["/srv"]
    assert config["repositories"][0]["path"].startswith(
        "ssh://saveos-borg@192.0.2.7:22/srv/saveos/repositories/"
    )
    assert config["mongodb_databases"] == [
        {
            "name": "all",
            "hostname": "db",
            "username": "u",
            "password": "{credential file /etc/saveos/databases/1}",
        }
    ]
    assert answer.json()["variables"]["agent_databases"][0]["keep_password"] is True


def test_several_servers_make_several_repositories(api):
    for name in ("vault1", "vault2"):
        api.made("/hosts", {"name": name, "is_agent": False, "is_storage_server": True})
    api.made("/policies", {"name": "p", "sources": ["/etc"], "servers": ["vault1", "vault2"]})
    api.made("/hosts", {"name": "web1", "policy": "p"})
    assert {each["server"] for each in api.get("/repositories?host=web1").json()["items"]} == {
        "vault1",
        "vault2",
    }
    api.made("/hosts", {"name": "web2", "repository": {"server": "vault1"}})
    api.patch("/hosts/web2", {"policy": "p"})
    assert len(api.get("/repositories?host=web2").json()["items"]) == 2
    assert len(api.get("/hosts/web2/policy").json()["rendered"]) == 2


def test_a_second_server_costs_the_same_number_of_statements_whatever_the_fleet(api):
    from sqlalchemy import event

    for name in ("vault1", "vault2"):
        api.made("/hosts", {"name": name, "is_agent": False, "is_storage_server": True})
    counts = []

    def count(*_):
        counts[-1] += 1

    for size in (2, 8):
        api.made("/policies", {"name": f"p{size}", "sources": ["/etc"], "servers": ["vault1"]})
        for number in range(size):
            api.made("/hosts", {"name": f"web{size}-{number}", "policy": f"p{size}"})
        counts.append(0)
        event.listen(api.database.engine, "before_cursor_execute", count)
        assert api.patch(f"/policies/p{size}", {"servers": ["vault1", "vault2"]}).status_code == 200
        event.remove(api.database.engine, "before_cursor_execute", count)
        stores = api.get(f"/repositories?host=web{size}-1").json()["items"]
        assert [each["server"] for each in stores] == ["vault1", "vault2"]
    assert counts[0] == counts[1]


def test_the_next_runs_and_the_load_of_the_fleet(api):
    api.made("/policies", {"name": "p", "sources": ["/etc"], "schedule": "0 * * * *", "jitter_minutes": 60})
    api.made("/hosts", {"name": "web1", "policy": "p"})
    api.made("/hosts", {"name": "web2"})
    runs = api.get("/policies/p/runs?count=3").json()
    assert (len(runs["items"]), runs["hosts"], runs["zone"]) == (3, 1, "UTC")
    asked = {"schedule": "daily", "zone": "Asia/Tokyo", "jitter_minutes": 0, "policy": "p"}
    preview = api.post("/policies/preview", asked).json()
    assert (preview["schedule"], len(preview["items"]), len(preview["load"])) == ("0 0 * * *", 10, 48)
    assert all("T00:00+09:00" in each["local"] for each in preview["items"])
    assert sum(each["mine"] for each in preview["load"]) == pytest.approx(1)
    assert sum(each["hosts"] for each in preview["load"]) == pytest.approx(2)
    hourly = api.post(
        "/policies/preview", {"schedule": "0 * * * *", "jitter_minutes": 60, "policy": "p"}
    ).json()
    assert {each["mine"] for each in hourly["load"]} == {0.5}


def test_applying_a_whole_policy_twice_changes_it_once(api):
    asked = {"name": "p", "sources": ["/etc"], "schedule": "0 5 * * *"}
    assert api.post("/policies/apply", {"policy": asked, "dry_run": True}).json()["outcome"] == "made"
    assert api.get("/policies/p").status_code == 404
    assert api.post("/policies/apply", {"policy": asked}).json()["outcome"] == "made"
    api.patch("/policies/p", {"hooks": {"before": ["x"]}, "excludes": ["*.tmp"]})
    told = api.post("/policies/apply", {"policy": asked, "dry_run": True}).json()
    assert (told["outcome"], [each["field"] for each in told["changes"]]) == ("changed", ["excludes"])
    assert "-- '*.tmp'" in told["diff"]
    assert api.get("/policies/p").json()["version"] == 2
    assert api.post("/policies/apply", {"policy": asked}).json()["outcome"] == "changed"
    assert api.post("/policies/apply", {"policy": asked}).json()["outcome"] == "unchanged"
    after = api.get("/policies/p").json()
    assert (after["excludes"], after["hooks"]["before"], after["version"]) == ([], 1, 3)
    wrong = api.post("/policies/apply", {"policy": asked | {"sourcs": []}})
    assert (wrong.status_code, wrong.json()["field"]) == (422, "policy.sourcs")
