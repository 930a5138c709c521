"""Secrets over HTTP: hosts hand in escrow and new tokens, people see kinds and ages, nobody a value."""

import base64
import hashlib
import uuid

import pytest
from saveos.core import sealing
from saveos.core.security import token_hash
from saveos.hosts.models import Host
from saveos.jobs.models import Job, JobHost
from saveos.maintenance import secrets
from sqlalchemy import select


@pytest.fixture
def database_kind():
    return "sqlite"


@pytest.fixture
def host(api):
    api.made("/hosts", {"name": "vault", "is_agent": False, "is_storage_server": True})
    made = api.made("/hosts", {"name": "web1"})
    store = api.get("/repositories?host=web1").json()["items"][0]["id"]
    return {"id": made["id"], "token": api.agent_token(made["id"]), "repository": store}


def escrow_of(api, host, text):
    public, _ = sealing.new_pair()
    key = api.made("/recovery", {"public_key": public, "replace": True})
    sealed = f"sealed {text}".encode()  # nobody here opens it
    body = {"repository_id": host["repository"], "recovery_key": key["fingerprint"], "url": "ssh://a@b/c"}
    return body | {"sealed": base64.b64encode(sealed).decode()}, sealed


def test_an_escrow_is_acknowledged_by_the_digest_of_what_is_kept(api, host):
    body, sealed = escrow_of(api, host, "one")
    answer = api.post("/agents/escrow", body, token=host["token"])
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"digest": hashlib.sha256(sealed).hexdigest()}
    assert api.post("/agents/escrow", body, token=host["token"]).json() == answer.json()
    assert api.get("/recovery").json()["repositories"] == {"fresh": 1, "stale": 0}


def test_an_escrow_of_another_host_or_key_is_refused(api, host):
    body, _ = escrow_of(api, host, "one")
    other = api.made("/hosts", {"name": "web2"})
    assert api.post("/agents/escrow", body, token=api.agent_token(other["id"])).status_code == 404
    wrong = body | {"recovery_key": "0" * 64}
    assert api.post("/agents/escrow", wrong, token=host["token"]).status_code == 422
    assert api.post("/agents/escrow", body | {"sealed": "!"}, token=host["token"]).status_code == 422
    for url in ("ssh://a@b/c';id;'", "ssh://-oProxyCommand=id/c", "ssh://a@b/c\nd", "ssh://a@-b/c", "x"):
        assert api.post("/agents/escrow", body | {"url": url}, token=host["token"]).status_code == 422, url
    keys = ["ssh-ed25519 AAAA\nvault ssh-ed25519 BBBB"]
    assert api.post("/agents/escrow", body | {"host_keys": keys}, token=host["token"]).status_code == 422
    assert api.post("/agents/escrow", body).status_code == 403
    assert api.get("/recovery").json()["repositories"] == {"fresh": 0, "stale": 0}


def test_a_new_token_counts_beside_the_old_one_until_it_is_used(api, host):
    new = "a-new-token-of-the-host"
    told = {"token_sha256": token_hash(new)}
    alive = {"runs": []}
    assert api.post("/agents/token", told, token=host["token"]).status_code == 204
    assert [api.post("/agents/checkins", alive, token=each).status_code for each in (host["token"], new)] == [
        200,
        200,
    ]
    assert api.post("/agents/token", told, token=new).status_code == 204
    assert [api.post("/agents/checkins", alive, token=each).status_code for each in (host["token"], new)] == [
        401,
        200,
    ]
    assert api.post("/agents/token", told, token=new).status_code == 204


def test_a_token_of_another_host_is_not_taken_over(api, host):
    other = api.made("/hosts", {"name": "web2"})
    theirs = api.agent_token(other["id"])
    assert (
        api.post("/agents/token", {"token_sha256": token_hash(theirs)}, token=host["token"]).status_code == 409
    )
    assert api.post("/agents/checkins", {"runs": []}, token=theirs).status_code == 200


def told(api, host, *held, identity=None):
    """Take a result of the operation over, as a job's end does."""
    with api.database.session() as session:
        job = Job(tenant_id=secrets_tenant(session, host), operation="secrets", mode="run")
        session.add(job)
        session.flush()
        result = {"secrets": {"schema": 1, "state": "ok", "summary": {}, "findings": [], "held": list(held)}}
        result |= {"identity": identity} if identity else {}
        secrets.told(
            session, job, JobHost(job_id=job.id, name="web1", host_id=uuid.UUID(host["id"]), result=result)
        )


def secrets_tenant(session, host):
    return session.get_one(Host, uuid.UUID(host["id"])).tenant_id


def test_ages_are_listed_and_a_rotation_is_noticed(api, host):
    passphrase = {"kind": "passphrase", "subject": host["repository"], "made_at": "2026-01-01T00:00:00Z"}
    key = {"kind": "ssh-key", "subject": "", "made_at": "2026-01-02T00:00:00Z", "private": False}
    told(api, host, passphrase, key, identity={"public_key": "ssh-ed25519 AAAA", "next_public_key": "x"})
    items = {each["kind"]: each for each in api.get("/secrets").json()["items"]}
    assert items["passphrase"]["escrow"] == "none" and items["passphrase"]["rotated_at"] is None
    assert items["ssh-key"]["private"] is False and items["ssh-key"]["host"] == "web1"
    body, _ = escrow_of(api, host, "one")
    assert api.post("/agents/escrow", body, token=host["token"]).status_code == 200
    told(api, host, passphrase | {"made_at": "2026-11-01T00:00:00Z", "open": True})
    [again] = api.get("/secrets").json()["items"]
    assert again["rotated_at"] == "2026-11-01T00:00:00Z" and again["open"] and again["escrow"] == "fresh"
    assert api.get("/secrets?kind=ssh-key").json()["items"] == []
    assert api.get("/secrets?host=nobody").status_code == 404
    assert len(api.get("/secrets?host=web1&limit=1").json()["items"]) == 1


def test_the_controllers_own_keys_are_listed_without_values(api, host):
    escrow_of(api, host, "one")
    answer = api.get("/secrets/controller")
    kinds = {each["kind"]: each for each in answer.json()}
    assert {"installation-key", "controller-ssh-key", "recovery-key"} <= set(kinds)
    assert kinds["controller-ssh-key"]["fingerprint"].startswith("SHA256:")
    assert "PRIVATE" not in answer.text
    for role in ("viewer", "operator"):
        assert api.get("/secrets", token=api.token_of(role)).status_code == 403
        assert api.get("/secrets/controller", token=api.token_of(role)).status_code == 403


def test_another_tenant_sees_none(api, host):
    told(api, host, {"kind": "ssh-key", "made_at": "2026-01-02T00:00:00Z"})
    other = api.other_tenant().token
    assert api.get("/secrets", token=other).json()["items"] == []


def test_the_operation_is_started_over_http(api, host):
    with api.database.session() as session:
        for row in session.scalars(select(Host)):
            row.state, row.connection = "enrolled", "local"
    body = {"targets": {"hosts": ["web1"]}, "parameters": {"rotate": "passphrase", "older_than_days": 90}}
    job = api.post("/maintenance/secrets", body)
    assert job.status_code == 202, job.text
    assert job.json()["parameters"]["rotate"] == "passphrase"
    bad = {"targets": {"hosts": ["web1"]}, "parameters": {"rotate": "everything"}}
    assert api.post("/maintenance/secrets", bad).status_code == 422


def test_an_api_token_gets_a_successor_and_ends_after_the_overlap(api):
    old = api.made("/tokens", {"name": "ci", "scopes": ["jobs:read", "tokens:own"], "expires_in_days": 30})
    new = api.made(f"/tokens/{old['id']}/rotate", {"overlap_hours": 1})
    assert (new["name"], new["scopes"]) == ("ci", ["jobs:read", "tokens:own"]) and new["token"] != old["token"]
    assert [api.get("/jobs", token=each["token"]).status_code for each in (old, new)] == [200, 200]
    at_once = api.made(f"/tokens/{new['id']}/rotate", {"overlap_hours": 0})
    assert [api.get("/jobs", token=each["token"]).status_code for each in (new, at_once)] == [401, 200]
    whole = api.made("/tokens", {"name": "all"})
    narrow = api.post(f"/tokens/{whole['id']}/rotate", token=at_once["token"])
    assert narrow.status_code == 403, "a narrow token must not turn into a wide one"
    assert api.post(f"/tokens/{whole['id']}/rotate", token=api.other_tenant().token).status_code == 404
    assert new["token"] not in api.get("/audit").text
