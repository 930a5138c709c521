"""The recovery key over HTTP: who may set it, what is shown, what is never shown."""

import pytest
from saveos.core import sealing


@pytest.fixture
def database_kind():
    return "sqlite"


def test_offline_key_is_set_once_and_shown_to_all(api):
    public, private = sealing.new_pair()
    assert api.get("/recovery").json()["key"] is None
    made = api.post("/recovery", {"public_key": public})
    assert made.status_code == 201
    assert api.post("/recovery", {"public_key": public}).status_code == 200
    assert api.post("/recovery", {"public_key": sealing.new_pair()[0]}).status_code == 409
    seen = api.get("/recovery", token=api.token_of("viewer")).json()
    assert (seen["key"]["mode"], seen["key"]["fingerprint"]) == ("offline", sealing.fingerprint(public))
    assert api.post("/recovery/private-key").status_code == 404
    assert private not in api.get("/audit").text


def test_only_an_admin_sets_or_reveals(api):
    public, private = sealing.new_pair()
    body = {"public_key": public, "mode": "managed", "private_key": private}
    operator = api.token_of("operator")
    assert api.post("/recovery", body, token=operator).status_code == 403
    assert api.post("/recovery", body).status_code == 201
    assert api.get("/recovery", token=operator).json()["key"]["mode"] == "managed"
    assert private not in api.get("/recovery").text
    assert api.post("/recovery/private-key", token=operator).status_code == 403
    assert api.post("/recovery/private-key").json()["private_key"] == private
    trail = api.get("/audit").text
    assert "reveal private key" in trail
    assert private not in trail
    assert api.get("/recovery", token=api.other_tenant().token).json()["key"] is None


def test_replacing_retires(api):
    api.made("/recovery", {"public_key": sealing.new_pair()[0]})
    second = sealing.new_pair()[0]
    api.made("/recovery", {"public_key": second, "replace": True})
    seen = api.get("/recovery").json()
    assert seen["key"]["public_key"] == second
    assert len(seen["retired"]) == 1
