"""The dashboard's forms about people and tokens, sent as a program sends them: rights hold as in the API."""

import re

import pytest


@pytest.fixture
def form(api):
    """Send a form of a page, as the admin or with a token; return the answer."""

    def send(path, token=None, **fields):
        headers = {"Authorization": f"Bearer {token or api.token}", "Accept": "text/html"}
        return api.client.post(path, data=fields, headers=headers, follow_redirects=False)

    return send


def logs_in(api, name, password):
    return api.post("/auth/login", {"name": name, "password": password}, token="").status_code == 200


def test_only_who_may_changes_people_and_a_mistyped_name_changes_nothing(api, form):
    ana = api.made("/users", {"name": "ana", "role": "admin", "password": "secret-word-1"})
    person = f"/team/{ana['id']}"
    for path in ("/team", f"{person}/role", f"{person}/switch", f"{person}/password"):
        refused = form(path, api.token_of("operator"), name="eve", role="admin", active="false")
        assert refused.status_code == 403, path
    assert form(f"{person}/password", name="an").status_code == 422
    assert form(f"{person}/switch", name="an", active="false").status_code == 422
    assert logs_in(api, "ana", "secret-word-1")
    reset = form(f"{person}/password", name="ana")
    assert (reset.status_code, reset.headers["cache-control"]) == (200, "no-store")
    password = re.search(r'id="one-time"[^>]*>([^<]+)<', reset.text)[1]
    assert logs_in(api, "ana", password) and not logs_in(api, "ana", "secret-word-1")
    assert form(f"{person}/switch", name="ana", active="false").status_code == 303
    assert not logs_in(api, "ana", password)
    trail = api.get("/audit?object=user:ana&action=change+user")
    assert [act["detail"] for act in trail.json()["items"]] == [{"active": False}, {"reset_password": True}]
    assert password not in trail.text
    me = api.get("/auth/me").json()["user_id"]
    last = form(f"/team/{me}/role", role="viewer")
    assert last.status_code == 422 and "last admin" in last.text
    assert form(f"/team/{api.other_tenant().id}/role", role="viewer").status_code == 404


def test_a_token_makes_none_wider_than_itself_and_admins_end_those_of_others(api, form):
    narrow = api.made("/tokens", {"name": "narrow", "scopes": ["tokens:own", "hosts:read"]})
    assert form("/settings/tokens", narrow["token"], name="wide").status_code == 403
    assert form("/settings/tokens", narrow["token"], name="wide", scopes="users:write").status_code == 403
    wide = api.made("/tokens", {"name": "wide"})
    assert form(f"/settings/tokens/{wide['id']}/rotate", narrow["token"]).status_code == 403
    viewer = api.token_of("viewer")
    asked = form("/settings/tokens", viewer, name="ci", scopes="users:write")
    assert asked.status_code == 422 and 'id="secret"' not in asked.text
    made = form("/settings/tokens", viewer, name="ci", scopes="jobs:read", days="30")
    token = re.search(r'id="secret"[^>]*>([^<]+)<', made.text)[1]
    assert api.get("/jobs", token=token).status_code == 200
    user = api.get("/auth/me", token=viewer).json()["user_id"]
    mine = next(each["id"] for each in api.get("/tokens").json()["items"] if each["name"] == "ci")
    assert form(f"/team/{user}/tokens/{mine}/revoke", viewer).status_code == 403
    assert form(f"/team/{user}/tokens/{mine}/revoke").status_code == 303
    assert api.get("/jobs", token=token).status_code == 401
    assert token not in api.get("/audit").text
