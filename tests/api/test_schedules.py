"""Schedules as a caller sees them."""

import pytest

ASKED = {"name": "nightly", "operation": "health", "targets": {"all": True}, "cron": "30 2 * * *"}


@pytest.fixture
def schedule(api):
    return api.made("/schedules", ASKED | {"zone": "Europe/Paris"})


def test_an_installation_has_its_own_health_check_and_drills(api):
    checks, drills, guard, built_in = api.get("/schedules").json()["items"]
    assert (checks["operation"], checks["parameters"]["kind"]) == ("check", "data")
    assert (guard["name"], guard["operation"]) == ("guard hourly", "guard")
    assert (drills["name"], drills["operation"], drills["built_in"]) == ("drills weekly", "drill", True)
    assert (built_in["name"], built_in["built_in"], built_in["enabled"]) == ("health hourly", True, True)
    refused = api.delete("/schedules/health hourly")
    assert refused.status_code == 409
    assert "switch it off" in refused.json()["detail"]
    off = api.patch("/schedules/health hourly", {"enabled": False}).json()
    assert (off["enabled"], off["next_at"]) == (False, None)


def test_a_schedule_is_made_changed_and_deleted(api, schedule):
    assert schedule["cron"] == "30 2 * * *"
    assert schedule["next_at"]
    assert api.get("/schedules/nightly").json()["id"] == schedule["id"]
    changed = api.patch("/schedules/nightly", {"cron": "Mon..Fri *-*-* 12:00", "zone": "UTC", "name": "noon"})
    assert changed.json()["cron"] == "0 12 * * 1,2,3,4,5"
    assert changed.json()["next_at"].endswith("12:00:00Z")
    assert api.delete("/schedules/noon").status_code == 204
    assert api.get("/schedules/noon").status_code == 404


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("cron", {"cron": "61 * * * *"}),
        ("cron", {"cron": "0 0 31 2 *"}),
        ("zone", {"zone": "Mars/Olympus"}),
        ("name", {"name": "preview"}),
        ("name", {"name": "a/b"}),
        ("operation", {"operation": "explode"}),
        ("mode", {"operation": "backup", "mode": "check"}),
        ("targets", {"targets": {}}),
        ("targets.hosts", {"targets": {"hosts": ["gone"]}}),
        ("targets.groups", {"targets": {"groups": ["gone"]}}),
        ("parameters.size", {"parameters": {"size": 3}}),
        ("jitter_seconds", {"jitter_seconds": -1}),
        ("shell", {"shell": "rm"}),
    ],
)
def test_what_could_not_run_is_refused_with_its_field(api, field, wrong):
    answer = api.post("/schedules", ASKED | wrong)
    assert answer.status_code == 422, answer.text
    assert field in answer.text
    assert len(api.get("/schedules").json()["items"]) == 4  # its own, and no other


def test_a_taken_name_is_refused(api, schedule):
    assert api.post("/schedules", ASKED).status_code == 409
    assert api.patch("/schedules/nightly", {"name": "health hourly"}).status_code == 409


def test_a_schedule_runs_now_and_tells_its_history(api, schedule, host_key):
    refused = api.post("/schedules/nightly/run")
    assert refused.status_code == 422  # no host yet
    api.made("/hosts", {"name": "web1", "ssh_host_keys": [host_key()]})
    api.patch("/schedules/nightly", {"operation": "provision", "mode": "check"})
    job = api.post("/schedules/nightly/run")
    assert job.status_code == 202
    assert job.headers["Location"] == f"/api/v1/jobs/{job.json()['id']}"
    assert (job.json()["operation"], job.json()["mode"]) == ("provision", "check")
    (row,) = api.get("/schedules/nightly/history").json()["items"]
    assert (row["outcome"], row["job_id"]) == ("started", job.json()["id"])
    assert row["reason"].startswith("Asked for by admin")
    assert api.get("/schedules/nightly").json()["last_job_id"] == job.json()["id"]
    assert api.get("/schedules/nightly/history?outcome=failed").json()["items"] == []
    acts = [act["action"] for act in api.get("/audit").json()["items"]]
    assert acts[0] == "run schedule"
    assert "create schedule" in acts


def test_preview_shows_the_zones_clock(api):
    found = api.get(
        "/schedules/preview", params={"cron": "30 2 * * *", "zone": "Europe/Paris", "count": 400}
    ).json()
    assert found["status"] == 422
    found = api.get("/schedules/preview", params={"cron": "daily", "zone": "Asia/Tokyo", "count": 3}).json()
    assert [text[10:] for text in found["local"]] == ["T00:00+09:00"] * 3
    assert [text[10:] for text in found["runs"]] == ["T15:00:00Z"] * 3
    wrong = api.get("/schedules/preview", params={"cron": "* *"})
    assert (wrong.status_code, wrong.json()["field"]) == (422, "cron")


def test_a_schedule_needs_its_operations_right(api, schedule):
    viewer, operator = api.token_of("viewer"), api.token_of("operator")
    assert api.post("/schedules", ASKED | {"name": "x"}, token=viewer).status_code == 403
    assert api.get("/schedules", token=viewer).status_code == 200
    assert api.post("/schedules", ASKED | {"name": "x"}, token=operator).status_code == 201
    narrow = api.made("/tokens", {"name": "narrow", "scopes": ["schedules:write"]})["token"]
    answer = api.post("/schedules", ASKED | {"name": "y"}, token=narrow)
    assert (answer.status_code, "jobs:write" in answer.text) == (403, True)
    assert api.post("/schedules/nightly/run", token=narrow).status_code == 403
    assert api.patch("/schedules/nightly", {"jitter_seconds": 5}, token=narrow).status_code == 403


def test_a_file_makes_schedules_so_and_a_second_time_changes_nothing(api, schedule):
    wanted = [ASKED | {"cron": "0 3 * * *", "zone": "Europe/Paris"}, ASKED | {"name": "noon", "enabled": False}]
    body = {"schedules": wanted, "prune": True}
    api.made("/schedules", ASKED | {"name": "old"})

    def names():
        return {each["name"] for each in api.get("/schedules").json()["items"] if not each["built_in"]}

    told = api.post("/schedules/apply", body | {"dry_run": True}).json()
    assert told == [
        {"name": "nightly", "outcome": "updated", "changed": ["cron"]},
        {"name": "noon", "outcome": "created", "changed": []},
        {"name": "old", "outcome": "removed", "changed": []},
    ]
    assert names() == {"nightly", "old"} and api.get("/schedules/nightly").json()["cron"] == "30 2 * * *"
    assert api.post("/schedules/apply", body).json() == told
    assert names() == {"nightly", "noon"}
    changed = api.get("/schedules/nightly").json()
    assert (changed["id"], changed["cron"]) == (schedule["id"], "0 3 * * *") and changed["next_at"]
    again = api.post("/schedules/apply", body).json()
    assert [each["outcome"] for each in again] == ["unchanged", "unchanged"]
    assert len([each for each in api.get("/schedules").json()["items"] if each["built_in"]]) == 4


def test_a_file_is_taken_as_a_whole_or_not_at_all(api):
    wrong = ASKED | {"name": "wrong", "operation": "explode"}
    answer = api.post("/schedules/apply", {"schedules": [ASKED, wrong]})
    assert answer.status_code == 422
    assert answer.json()["field"] == "schedules.1.operation" and "wrong: " in answer.text
    assert api.get("/schedules/nightly").status_code == 404
    assert "named twice" in api.post("/schedules/apply", {"schedules": [ASKED, ASKED]}).text
    token = api.token_of("viewer")
    assert api.post("/schedules/apply", {"schedules": []}, token=token).status_code == 403
    other = api.other_tenant().token
    assert api.post("/schedules/apply", {"schedules": [], "prune": True}, token=other).json() == []
