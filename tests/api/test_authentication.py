"""Nothing but the probes and the log-in answers without a credential; generated from the OpenAPI document."""

import pytest
from saveos.accounts import throttle
from saveos.dashboard import acts


@pytest.mark.parametrize("credential", ["", "unknown", "cookie"])
def test_every_route_refuses_a_caller_without_a_valid_credential(api, routes, credential):
    api.client.cookies.clear()
    if credential == "cookie":
        api.client.cookies.set("saveos_session", "made-up")
    token = "saveos_made_up" if credential == "unknown" else ""
    closed = [route for route in routes if not route.open]
    assert len(closed) > 30
    for route in closed:
        answer = api.call(route.method, route.url(), token=token, json={} if route.has_body else None)
        assert answer.status_code == 401, f"{route}: {answer.status_code} {answer.text}"
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/docs", "/openapi.json"])
def test_the_reference_needs_a_credential(api, path):
    assert api.get(path, token="").status_code == 401
    assert api.get(path).status_code == 200


def test_probes_answer_anyone(api):
    for path in ("/health", "/api/v1/health"):
        answer = api.get(path, token="")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_log_in_and_the_one_time_password(api, installation):
    password = (installation.home / "admin-password").read_text().strip()
    origin = {"Origin": "http://controller.test"}
    answer = api.post("/auth/login", {"name": "admin", "password": password}, token="")
    assert answer.status_code == 200
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Path=/" in cookie
    refused = api.get("/hosts", token="")
    assert (refused.status_code, refused.json()["type"]) == (403, "urn:saveos:problem:password-change-needed")
    change = {"current": password, "new": "a better secret"}
    assert api.post("/auth/password", change, token="", headers=origin).status_code == 204
    assert api.get("/hosts", token="").status_code == 200
    assert not (installation.home / "admin-password").exists(), "it opens nothing any more"
    assert api.post("/auth/logout", token="", headers=origin).status_code == 204
    assert api.get("/hosts", token="").status_code == 401
    assert api.post("/auth/login", {"name": "admin", "password": password}, token="").status_code == 401


def test_the_answer_to_a_wrong_log_in_does_not_say_what_was_wrong(api):
    answers = [
        api.post("/auth/login", {"name": name, "password": "wrong"}, token="").json()
        for name in ("admin", "nobody")
    ]
    for answer in answers:
        answer.pop("request_id")
    assert answers[0] == answers[1]


def test_log_in_is_limited(api):
    for _ in range(10):
        assert api.post("/auth/login", {"name": "x", "password": "y"}, token="").status_code == 401
    answer = api.post("/auth/login", {"name": "x", "password": "y"}, token="")
    assert (answer.status_code, answer.json()["type"]) == (429, "urn:saveos:problem:too-many-requests")
    noted = [act["action"] for act in api.get("/audit").json()["items"]]
    assert noted == ["limit log in", *["fail log in"] * 10], "what is refused is not noted each time"


@pytest.mark.both_engines
def test_failed_log_ins_and_log_outs_are_in_the_audit_trail(api, monkeypatch):
    monkeypatch.setattr(throttle, "NOTES", 4)
    origin = {"Origin": "http://controller.test"}
    api.made("/users", {"name": "ann", "role": "viewer", "password": "secret-word-1"})
    assert api.client.post("/login", data={"name": "ann", "password": "wrong-1"}).status_code == 401
    assert api.post("/auth/login", {"name": "secret-word-1", "password": ""}, token="").status_code == 401
    assert api.post("/auth/login", {"name": "ann", "password": "secret-word-1"}, token="").status_code == 200
    change = {"current": "wrong-2", "new": "a better secret"}
    assert api.post("/auth/password", change, token="", headers=origin).status_code == 422
    assert api.client.post("/logout", headers=origin, follow_redirects=False).status_code == 303
    for _ in range(3):
        assert api.post("/auth/login", {"name": "ann", "password": "wrong-3"}, token="").status_code == 401
    told = api.get("/audit?address=testclient")
    assert [(act["action"], act["actor"], act["object"]) for act in told.json()["items"]] == [
        ("limit log in", "ann", "user:ann"),  # of the notes: what failed after it is not noted
        ("fail log in", "ann", "user:ann"),
        ("log out", "ann", "user:ann"),
        ("fail change password", "ann", "user:ann"),
        ("log in", "ann", "user:ann"),
        ("fail log in", "unknown user", ""),
        ("fail log in", "ann", "user:ann"),
        ("create user", "admin (token tests)", "user:ann"),
    ]
    assert "secret-word-1" not in told.text and "wrong" not in told.text
    named = {act["action"] for act in told.json()["items"]}
    assert named <= set(acts.LABELS)
    assert len(api.get("/audit?action=fail+log+in&actor=ann").json()["items"]) == 2


@pytest.mark.parametrize(
    "headers, status",
    [
        ({}, 403),
        ({"Origin": "http://evil.test"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://controller.test"}, 403),
        ({"Origin": "http://controller.test"}, 201),
        ({"Sec-Fetch-Site": "same-origin"}, 201),
    ],
)
def test_a_cookie_writes_only_from_our_own_pages(api, headers, status):
    api.made("/users", {"name": "ann", "role": "admin", "password": "secret-word-1"})
    assert api.post("/auth/login", {"name": "ann", "password": "secret-word-1"}, token="").status_code == 200
    assert api.post("/groups", {"name": "web"}, token="", headers=headers).status_code == status


def test_log_in_from_another_site_is_refused(api):
    body = {"name": "admin", "password": "whatever"}
    answer = api.post("/auth/login", body, token="", headers={"Origin": "http://evil.test"})
    assert answer.status_code == 403


def test_a_revoked_an_expired_and_a_retired_users_token_end_at_once(api):
    from datetime import timedelta

    from saveos.accounts.models import Token
    from saveos.core.clock import now
    from sqlalchemy import select

    made = api.made("/tokens", {"name": "ci", "scopes": ["hosts:read"], "expires_in_days": 1})
    assert api.get("/hosts", token=made["token"]).status_code == 200
    assert api.get("/jobs", token=made["token"]).status_code in (403, 404)
    with api.database.session() as session:
        row = session.scalar(select(Token).where(Token.name == "ci"))
        assert made["token"] not in (row.hash, row.name)
        row.expires_at = now() - timedelta(seconds=1)
    assert api.get("/hosts", token=made["token"]).status_code == 401
    other = api.made("/tokens", {"name": "ci2"})
    assert api.delete(f"/tokens/{other['id']}").status_code == 204
    assert api.get("/hosts", token=other["token"]).status_code == 401
    viewer = api.token_of("viewer")
    user = api.get("/auth/me", token=viewer).json()["user"]
    assert api.patch(f"/users/{user['id']}", {"active": False}).status_code == 200
    assert api.get("/hosts", token=viewer).status_code == 401


def test_the_use_of_a_token_is_noted_at_most_once_a_minute(api):
    first = api.get("/tokens").json()["items"][0]["last_used_at"]
    assert first is not None
    assert api.get("/tokens").json()["items"][0]["last_used_at"] == first


def test_a_token_has_no_more_rights_than_its_maker(api):
    operator = api.token_of("operator")
    assert api.post("/tokens", {"name": "x", "scopes": ["hosts:write"]}, token=operator).status_code == 422
    narrow = api.post("/tokens", {"name": "n", "scopes": ["hosts:read", "tokens:own"]}, token=operator).json()
    wider = api.post("/tokens", {"name": "w", "scopes": ["*"]}, token=narrow["token"])
    assert wider.status_code == 403
