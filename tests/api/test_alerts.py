"""Alerts and channels over HTTP."""

import uuid
from datetime import timedelta

import pytest
from saveos.alerts import service
from saveos.alerts.delivery import deliver
from saveos.core.clock import now
from saveos.core.database import write_lock
from saveos.core.settings import get_settings
from saveos.hosts.models import Host

from tests.receivers import http

SECRET = "s3cr3t-canary"


@pytest.fixture
def receiver():
    with http() as got:
        yield got


@pytest.fixture
def local(installation, monkeypatch):
    """Alerts may be sent to this machine; to be asked for before `api`."""
    monkeypatch.setenv("SAVEOS_OUTGOING_ALLOW", "127.0.0.1")
    get_settings.cache_clear()


def late(api, *names):
    """Add hosts whose backup is overdue, and sweep."""
    with api.database.session() as session:
        for name in names:
            times = {
                "due_at": now() - timedelta(hours=1),
                "last_backup_at": now() - timedelta(days=2),
                "seen_at": now(),
            }
            session.add(Host(tenant_id=api.tenant_id, name=name, address=name, state="enrolled", **times))
    sweep(api)


def sweep(api):
    with api.database.session() as session:
        write_lock(session)
        service.sweep(session)


def alerts(api, **query):
    answer = api.get("/alerts", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


def test_an_alert_over_http(api):
    late(api, "web1")
    (alert,) = alerts(api)
    assert (alert["rule"], alert["title"], alert["severity"]) == ("overdue", "backup overdue", "warning")
    assert (alert["host"], alert["state"], alert["count"]) == ("web1", "open", 1)
    assert api.get(f"/alerts/{alert['id']}").json() == alert
    assert api.get(f"/alerts/{uuid.uuid4()}").status_code == 404
    assert api.get("/alerts/nonsense").status_code == 422


def test_filters_and_pages(api):
    late(api, *(f"web{number}" for number in range(5)))
    first = api.get("/alerts", params={"limit": 3}).json()
    rest = api.get("/alerts", params={"limit": 3, "cursor": first["next"]}).json()
    names = [alert["host"] for alert in first["items"] + rest["items"]]
    assert (sorted(names), rest["next"]) == ([f"web{number}" for number in range(5)], None)
    assert [alert["host"] for alert in alerts(api, host="web3")] == ["web3"]
    assert len(alerts(api, rule="overdue", severity="warning", state="open")) == 5
    for query in ({"rule": "failed"}, {"severity": "critical"}, {"state": "resolved"}):
        assert alerts(api, **query) == []
    assert api.get("/alerts", params={"host": "nobody"}).status_code == 404
    for query in ({"state": "odd"}, {"rule": "A;B"}, {"severity": "odd"}, {"cursor": "x"}, {"limit": 0}):
        assert api.get("/alerts", params=query).status_code == 422, query


def test_acknowledge_mute_unmute(api):
    late(api, "web1")
    path = f"/alerts/{alerts(api)[0]['id']}"
    acknowledged = api.post(f"{path}/acknowledge").json()
    assert acknowledged["state"] == "acknowledged"
    assert acknowledged["acknowledged_by"].startswith("admin")
    assert api.post(f"{path}/acknowledge").json() == acknowledged
    until = (now() + timedelta(hours=8)).isoformat()
    muted = api.post(f"{path}/mute", {"until": until}).json()
    assert (muted["state"], muted["muted_until"][:19]) == ("muted", until[:19])
    assert api.post(f"{path}/unmute").json()["state"] == "open"
    assert api.post(f"{path}/unmute").json()["state"] == "open"
    for bad in (
        {"until": (now() - timedelta(hours=1)).isoformat()},
        {"until": "2199-01-01T00:00:00Z"},
        {},
        {"until": 1, "x": 2},
    ):
        assert api.post(f"{path}/mute", bad).status_code == 422, bad
    trail = [(act["action"], act["object"], act["detail"]) for act in api.get("/audit").json()["items"]][:2]
    assert trail[1] == ("unmute alert", "alert:overdue:web1", {"state": "open"})


def test_a_resolved_alert_stays_resolved(api):
    late(api, "web1")
    path = f"/alerts/{alerts(api)[0]['id']}"
    with api.database.session() as session:
        session.query(Host).update({"due_at": now() + timedelta(days=1)})
    sweep(api)
    assert alerts(api) == []
    assert alerts(api, state="resolved")[0]["resolved_at"]
    for act, body in (
        ("acknowledge", None),
        ("mute", {"until": (now() + timedelta(1)).isoformat()}),
        ("unmute", None),
    ):
        answer = api.post(f"{path}/{act}", body)
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:saveos:problem:alert-resolved"), act


def test_a_channel_from_making_to_removal(local, api, receiver):
    url = f"http://user:{SECRET}@127.0.0.1:{receiver.port}/{SECRET}?key={SECRET}"
    made = api.made("/channels", {"name": "ops", "url": url, "severities": ["warning"]})
    assert (made["kind"], made["address"]) == ("json", f"json://127.0.0.1:{receiver.port}")
    sent = api.post("/channels/ops/test").json()
    assert (sent["kind"], sent["state"], sent["attempts"]) == ("test", "delivered", 1)
    assert receiver.requests[0][1] == f"/{SECRET}?key={SECRET}"
    late(api, "web1")
    assert deliver(api.database, get_settings()) == 1
    log = api.get("/channels/ops/deliveries").json()["items"]
    assert [(each["kind"], each["state"]) for each in log] == [("opened", "delivered"), ("test", "delivered")]
    assert log[0]["alert_id"] == alerts(api)[0]["id"]
    shown = api.get("/channels").json()["items"][0]
    assert (shown["last_state"], shown["enabled"]) == ("delivered", True)
    assert api.patch("/channels/ops", {"groups": ["web"]}).json()["field"] == "groups"
    api.made("/groups", {"name": "web"})
    changed = api.patch(
        "/channels/ops", {"name": "phone", "enabled": False, "rules": ["failed"], "groups": ["web"]}
    ).json()
    assert (changed["name"], changed["enabled"], changed["rules"], changed["groups"]) == (
        "phone",
        False,
        ["failed"],
        ["web"],
    )
    assert api.get(f"/channels/{made['id']}").json() == changed
    assert "phone" in api.delete("/groups/web").json()["detail"], "the channel would tell nothing, unnoticed"
    api.patch("/groups/web", {"name": "front"})
    assert api.get("/channels/phone").json()["groups"] == ["front"]
    everything = [
        api.get(path).text for path in ("/channels", "/channels/phone", "/channels/phone/deliveries", "/audit")
    ]
    assert SECRET not in "".join(everything)
    assert api.delete("/channels/phone").status_code == 204
    assert api.get("/channels/phone").status_code == 404
    acts = api.get("/audit").json()["items"]
    trail = [(act["action"], act["object"]) for act in acts if act["object"].startswith("channel:")][:4]
    assert trail == [
        ("delete channel", "channel:phone"),
        ("change channel", "channel:phone"),
        ("test channel", "channel:ops"),
        ("create channel", "channel:ops"),
    ]


def test_a_test_that_fails_says_why_and_is_not_tried_again(local, api, receiver):
    receiver.status = 418
    api.made("/channels", {"name": "ops", "url": f"http://127.0.0.1:{receiver.port}/{SECRET}"})
    sent = api.post("/channels/ops/test").json()
    assert (sent["state"], sent["attempts"]) == ("failed", 1)
    assert "418" in sent["error"]
    assert SECRET not in sent["error"]
    assert deliver(api.database, get_settings()) == 0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"url": f"http://127.0.0.1/{SECRET}"}, "url"),
        ({"url": f"http://169.254.169.254/{SECRET}"}, "url"),
        ({"url": f"file:///etc/{SECRET}"}, "url"),
        ({"url": f"slack://{SECRET}"}, "url"),
        ({"url": f"ntfy://example.org/{SECRET}?attach=file:///etc/passwd"}, "url"),
        ({"url": ""}, "url"),
        ({"url": "https://e.org/" + SECRET * 200}, "url"),
        ({"url": f"https://e.org/{SECRET}\u0000"}, ""),
        ({"severities": ["odd"]}, "severities.0"),
        ({"rules": ["A B"]}, "rules.0"),
        ({"rules": ["overdu"]}, "rules.0"),
        ({"groups": ["A B"]}, "groups.0"),
        ({"name": " "}, "name"),
        ({"extra": 1}, "extra"),
    ],
)
def test_what_cannot_be_a_channel_is_refused_without_repeating_its_url(api, body, field):
    answer = api.post("/channels", {"name": "ops", "url": "https://hooks.example.net/x"} | body)
    assert answer.status_code == 422
    assert answer.json().get("field", "") == field, answer.text
    assert SECRET not in answer.text
    assert api.get("/channels").json()["items"] == []


def test_a_changed_url_is_judged_too(api):
    made = api.made("/channels", {"name": "ops", "url": "https://hooks.example.net/x"})
    answer = api.patch("/channels/ops", {"url": "http://192.168.1.1/x"})
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:saveos:problem:address-refused")
    assert api.get("/channels/ops").json() == made
    api.made("/channels", {"name": "two", "url": "https://hooks.example.net/x"})
    assert api.patch("/channels/two", {"name": "ops"}).status_code == 409
    assert api.post("/channels", {"name": "ops", "url": "https://hooks.example.net/x"}).status_code == 409


def test_who_may_do_what(api):
    late(api, "web1")
    api.made("/channels", {"name": "ops", "url": "https://hooks.example.net/x"})
    path = f"/alerts/{alerts(api)[0]['id']}/acknowledge"
    viewer, operator = api.token_of("viewer"), api.token_of("operator")
    for url in ("/alerts", "/channels", "/channels/ops/deliveries"):
        assert api.get(url, token=viewer).status_code == 200
        assert api.get(url, token="").status_code == 401
    assert api.post(path, token=viewer).status_code == 403
    assert api.post(path, token=operator).status_code == 200
    for method, url in (
        ("POST", "/channels"),
        ("PATCH", "/channels/ops"),
        ("DELETE", "/channels/ops"),
        ("POST", "/channels/ops/test"),
    ):
        body = {"name": "x", "url": "https://e.org"} if method != "DELETE" else None
        assert api.call(method, url, json=body, token=operator).status_code == 403, url


def test_another_tenant_sees_and_changes_nothing(api):
    late(api, "web1")
    made = api.made("/channels", {"name": "ops", "url": "https://hooks.example.net/x"})
    alert = alerts(api)[0]
    token = api.other_tenant().token
    assert (
        api.get("/alerts", token=token).json()["items"]
        == api.get("/channels", token=token).json()["items"]
        == []
    )
    until = {"until": (now() + timedelta(1)).isoformat()}
    for method, path, body in (
        ("GET", f"/alerts/{alert['id']}", None),
        ("POST", f"/alerts/{alert['id']}/acknowledge", None),
        ("POST", f"/alerts/{alert['id']}/mute", until),
        ("POST", f"/alerts/{alert['id']}/unmute", None),
        ("GET", f"/channels/{made['id']}", None),
        ("PATCH", f"/channels/{made['id']}", {"enabled": False}),
        ("POST", f"/channels/{made['id']}/test", None),
        ("GET", f"/channels/{made['id']}/deliveries", None),
        ("DELETE", f"/channels/{made['id']}", None),
    ):
        assert api.call(method, path, json=body, token=token).status_code == 404, path
    assert (alerts(api)[0], api.get("/channels/ops").json()) == (alert, made)
