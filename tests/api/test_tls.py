"""The controller's CA over HTTP: anyone may have it, and there is none where the listener speaks plain HTTP."""

import pytest
from saveos.core import tls


@pytest.fixture
def database_kind():
    return "sqlite"


def test_there_is_none_on_plain_http(api):
    answer = api.get("/ca.pem", token="")
    assert answer.status_code == 404
    assert "SAVEOS_TLS" in answer.json()["detail"]


@pytest.fixture
def identity(installation, monkeypatch):
    monkeypatch.setenv("SAVEOS_TLS", "on")
    return tls.ensure(installation.home, ["controller.test"])


def test_anyone_gets_the_ca(identity, api):
    answer = api.get("/ca.pem", token="")
    assert answer.text == identity.ca_pem
    assert answer.headers["content-type"].startswith("text/plain")


def test_pins_need_a_right_and_hold_no_key(identity, api):
    assert api.get("/system/tls", token="").status_code == 401
    answer = api.get("/system/tls", token=api.token_of("viewer"))
    assert answer.json()["ca_pin"] == identity.ca_pin
    assert answer.json()["key_pin"] == identity.key_pin
    assert "PRIVATE" not in answer.text
