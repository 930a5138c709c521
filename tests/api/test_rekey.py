"""Rotation of the controller's SSH key: both are kept until every host moved."""

import json
import uuid

import pytest
from saveos.accounts import keys
from saveos.accounts.models import Tenant
from saveos.core.settings import Settings
from saveos.hosts.models import Host
from saveos.jobs import queue
from saveos.jobs.models import Job, JobHost
from saveos.maintenance import rekey, variables
from saveos.maintenance.operations import OPERATIONS
from saveos.runner import directory as directories


@pytest.fixture
def database_kind():
    return "sqlite"


@pytest.fixture
def hosts(api):
    """Two hosts that are reached by SSH, and one that is the controller's own machine."""
    made = []
    for name, connection in (("web1", "ssh"), ("web2", "ssh"), ("here", "local")):
        host = api.made("/hosts", {"name": name})
        with api.database.session() as session:
            row = session.get_one(Host, uuid.UUID(host["id"]))
            row.state, row.connection, row.ssh_host_keys = "enrolled", connection, ["ssh-ed25519 AAAA"]
            made.append((row.id, row.tenant_id))
    return [host for host, _ in made], made[0][1]


def ask(api, *names, **parameters):
    body = {"targets": {"hosts": list(names)} if names else {"all": True}, "parameters": parameters}
    answer = api.post("/maintenance/rekey", body)
    assert answer.status_code == 202, answer.text
    return uuid.UUID(answer.json()["id"])


def proves(api, job_id, host_id, key, mode="run"):
    """Take over what a host told, as the end of a play on it does."""
    with api.database.session() as session:
        session.get_one(Job, job_id).mode = mode
        row = session.get_one(Job, job_id) and JobHost(job_id=job_id, name="x", host_id=host_id)
        row.result = {"proven": key, "rekey": {"schema": 1, "state": "ok", "summary": {}, "findings": []}}
        rekey.moved(session, session.get_one(Job, job_id), row)


def held(api, tenant_id):
    """The bare public keys, present and former, and the former private one."""
    with api.database.session() as session:
        tenant = session.get_one(Tenant, tenant_id)
        private = keys.former_ssh_private_key(session, tenant_id)
        return rekey.bare(tenant.ssh_public_key), rekey.bare(tenant.former_ssh_public_key), private


def test_the_former_key_is_kept_until_the_last_host_moved(api, hosts):
    (web1, web2, _), tenant_id = hosts
    before, none, _ = held(api, tenant_id)
    with api.database.session() as session:
        private = keys.ssh_private_key(session, tenant_id)
    assert none == ""
    shown = api.get("/ssh-key").json()
    job = ask(api)
    new, former, kept = held(api, tenant_id)
    assert former == before != new and kept == private
    again = api.get("/ssh-key").json()
    assert again["public_key"].startswith(new) and again["fingerprint"] != shown["fingerprint"]
    assert again["made_at"] > shown["made_at"]
    proves(api, job, web1, new)
    own = {each["kind"]: each for each in api.get("/secrets/controller").json()}
    assert own["controller-ssh-key-former"]["waiting_hosts"] == ["web2"]
    assert own["controller-ssh-key-former"]["waiting"] == 1
    assert own["controller-ssh-key"]["waiting"] == 0
    later = ask(api)  # after a kill, or when the host is back: no third key
    assert held(api, tenant_id)[:2] == (new, former)
    proves(api, later, web2, new)
    assert held(api, tenant_id) == (new, "", b"")
    assert "controller-ssh-key-former" not in {each["kind"] for each in api.get("/secrets/controller").json()}


def test_only_the_key_in_force_counts_and_a_check_changes_nothing(api, hosts):
    (web1, web2, _), tenant_id = hosts
    before = held(api, tenant_id)[0]
    body = {"targets": {"all": True}, "mode": "check"}
    assert api.post("/maintenance/rekey", body).status_code == 202
    assert held(api, tenant_id)[1] == ""
    job = ask(api)
    new, former, _ = held(api, tenant_id)
    for host in (web1, web2):
        proves(api, job, host, before)
        proves(api, job, host, "")
        proves(api, job, host, new, mode="check")
    assert held(api, tenant_id)[:2] == (new, former)
    with api.database.session() as session:
        assert rekey.waiting(session, tenant_id) == (2, ["web1", "web2"])
        assert rekey.waiting(session, tenant_id, limit=1) == (2, ["web1"])


def test_a_young_key_and_hosts_taken_out_need_nothing(api, hosts):
    (web1, _, _), tenant_id = hosts
    before = held(api, tenant_id)[0]
    ask(api, older_than_days=30)
    assert held(api, tenant_id)[:2] == (before, "")
    job = ask(api, "web1")
    new = held(api, tenant_id)[0]
    assert api.delete("/hosts/web2").status_code == 204
    proves(api, job, web1, new)
    assert held(api, tenant_id)[:2] == (new, "")
    assert (
        api.post("/maintenance/rekey", {"targets": {"all": True}}, token=api.token_of("viewer")).status_code
        == 403
    )


def test_plays_try_the_new_key_first_and_the_former_second(api, hosts, tmp_path):
    _, tenant_id = hosts
    settings = Settings(home=tmp_path)
    ask(api, "web1")
    new, former, _ = held(api, tenant_id)
    with api.database.session() as session:
        (mine,) = queue.claim(session, "w", 30, 1)
        spec = variables.play(session, settings, OPERATIONS["rekey"], mine)
        assert spec.ssh_key.encode() == keys.ssh_private_key(session, tenant_id)
        assert spec.former_ssh_key.encode() == keys.former_ssh_private_key(session, tenant_id)
    (target,) = spec.targets
    assert target.variables["maintenance_new_key"] == new
    assert target.variables["maintenance_old_key"] == former
    assert "PRIVATE" not in repr(spec)
    directory, _ = directories.build(spec, tmp_path)
    told = json.loads((directory / "hosts.json").read_text())["all"]["hosts"]["web1"]
    assert (directory / "ssh_key").read_text() == spec.ssh_key
    assert (directory / "ssh_key_former").read_text() == spec.former_ssh_key
    assert told["ansible_ssh_private_key_file"]["__ansible_unsafe"] == str(directory / "ssh_key")
    second = told["ansible_ssh_extra_args"]["__ansible_unsafe"]
    assert second == f'-o IdentityFile="{directory}/ssh_key_former"'
    directories.remove(directory)
