"""Policies, as a caller sees them."""

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
        ({"sources": ["/etc"], "schedule": "often"}, "schedule", "five fields"),
        ({"sources": ["/etc"], "schedule": "61 2 * * *"}, "schedule", "0 to 59"),
        ({"sources": ["/etc"], "schedule": "0 0 30 2 *"}, "schedule", "never"),
        ({"sources": ["/etc"], "schedule": "0 0 1 * 1"}, "schedule", "not both"),
        ({"sources": ["/etc"], "retention": {}}, "retention", "keep nothing"),
        ({"sources": ["/etc"], "retention": {"keep_within": "soon"}}, "retention.keep_within", "pattern"),
        ({"sources": ["/etc"], "compression": "zip"}, "compression", "Borg"),
        ({"sources": ["/etc"], "overrides": {"commands": []}}, "overrides", "hooks"),
        ({"sources": ["/etc"], "hooks": {"sometimes": []}}, "hooks.sometimes", "extra"),
    ],
)
def test_bad_policies_are_refused(api, body, field, words):
    answer = api.post("/policies", {"name": "p"} | body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["field"] == field
    assert words in answer.json()["detail"]
