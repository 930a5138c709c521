"""Enrolment over HTTP: each way in, and each refusal with its reason."""

import base64
import hashlib
import json
import secrets
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from saveos.core.clock import now
from saveos.enrolment import service
from saveos.enrolment.models import EnrolmentToken, Registration
from saveos.hosts.models import Host
from saveos.jobs.models import Job, JobHost
from sqlalchemy import select


@pytest.fixture
def new_token(api):
    """Return a function that makes an enrolment token and returns its description and secret."""

    def make(token=None, **asked):
        answer = api.post("/enrolment/tokens", {"name": "t", **asked}, token=token)
        assert answer.status_code == 201, answer.text
        made = answer.json()
        return made, unpack(made["token"])["s"]

    return make


def unpack(text):
    packed = text.removeprefix("saveos1.")
    return json.loads(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))


class Machine:
    """A machine that registers, as saveos-agent does."""

    def __init__(self, api, key, name="web1"):
        self.api, self.key, self.name, self.agent_token = api, key, name, secrets.token_urlsafe(32)

    def ask(self, secret, **changes):
        body = {
            "name": self.name,
            "address": "10.0.0.5",
            "ssh_host_keys": [self.key],
            "agent_public_key": self.key,
            "agent_token_sha256": hashlib.sha256(self.agent_token.encode()).hexdigest(),
            "os": "Debian GNU/Linux 12",
            "versions": {"saveos-agent": "0.1.0"},
        }
        return self.api.post("/agents/register", body | changes, token=secret)

    def asked(self, secret, **changes):
        answer = self.ask(secret, **changes)
        assert answer.status_code == 202, answer.text
        return answer.json()

    def ready(self, told):
        answer = self.api.post(f"/agents/register/{told['registration_id']}/ready", token=self.agent_token)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def look(self, told):
        answer = self.api.get(f"/agents/register/{told['registration_id']}", token=self.agent_token)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def machine(api, host_key):
    return lambda name="web1", key=None: Machine(api, key or host_key(), name)


def advance(api):
    with api.database.session(writes=True) as session:
        return service.advance(session)


def uses(api, made):
    return next(t for t in api.get("/enrolment/tokens").json()["items"] if t["id"] == made["id"])["uses"]


def provisioned(api, name, machine, *, error=""):
    """Do what a provisioning's end does to rows."""
    from saveos.accounts.service import set_agent_token
    from saveos.core.security import token_hash

    with api.database.session(writes=True) as session:
        host = session.scalars(select(Host).where(Host.name == name)).one()
        job = session.scalars(select(Job).order_by(Job.id.desc())).first()
        row = session.get_one(JobHost, (job.id, name))
        job.state, row.state, row.error = ("failed", "failed", error) if error else ("succeeded", "changed", "")
        if not error:
            host.state = "enrolled"
            set_agent_token(session, host.tenant_id, host.id, name, token_hash(machine.agent_token))


def test_a_token_is_shown_once_and_says_where_to_go(api, new_token):
    made, secret = new_token(max_uses=3, minutes=30, tags=["x"])
    assert unpack(made["token"]) == {"u": "http://controller.test", "p": "", "i": made["id"], "s": secret}
    assert made["command"].startswith(
        "curl -fsS http://controller.test/enrol.sh | SAVEOS_ENROLMENT_TOKEN=saveos1."
    )
    listed = api.get("/enrolment/tokens")
    assert secret not in listed.text and made["token"] not in listed.text
    assert secret not in api.get("/audit").text
    assert [(t["state"], t["uses"], t["max_uses"]) for t in listed.json()["items"]] == [("active", 0, 3)]
    for wrong in ({"policy": "none"}, {"groups": ["none"]}):
        assert api.post("/enrolment/tokens", {"name": "t", **wrong}).status_code == 422


def test_a_host_waits_is_approved_and_provisioned(api, new_token, machine):
    api.made("/groups", {"name": "web"})
    api.made("/policies", {"name": "p", "sources": ["/srv"]})
    made, secret = new_token(policy="p", groups=["web"], tags=["new"])
    web1 = machine()
    told = web1.asked(secret)
    assert (told["state"], told["ready"]) == ("waiting", False)
    assert told["controller_ssh_key"].startswith("ssh-ed25519 ")
    assert api.get("/hosts/web1").status_code == 404
    waiting = api.get("/enrolment/registrations?state=waiting").json()["items"]
    assert [(row["name"], row["address"], row["policy"]) for row in waiting] == [("web1", "10.0.0.5", "p")]
    assert waiting[0]["fingerprints"][0].startswith("ssh-ed25519 SHA256:")
    assert api.post("/enrolment/registrations/web1/approve").json()["state"] == "approved"
    host = api.get("/hosts/web1").json()
    assert (host["policy_name"], host["groups"], host["tags"]) == ("p", ["web"], ["new"])
    assert (host["ssh_host_keys"], host["state"]) == ([web1.key], "pending")
    assert advance(api) == 0, "the host does not let the controller in yet"
    assert web1.ready(told)["ready"] is True
    assert advance(api) == 1
    row = api.get("/enrolment/registrations/web1").json()
    job = api.get(f"/jobs/{row['job_id']}").json()
    assert (row["state"], job["operation"], job["trigger"]) == ("provisioning", "provision", "enrolment")
    assert advance(api) == 0
    provisioned(api, "web1", web1)
    assert advance(api) == 1
    assert web1.look(told)["state"] == "done"
    assert web1.asked(secret)["state"] == "done", "again is a no-op"
    assert uses(api, made) == 1
    acts = [(act["actor"], act["action"]) for act in api.get("/audit").json()["items"]]
    assert ("enrolment token t", "register host") in acts
    assert any(action == "approve registration" for _, action in acts)


def test_a_pre_approved_host_goes_on_by_itself(api, new_token, machine):
    _, secret = new_token(pre_approved=True)
    web1 = machine()
    told = web1.asked(secret)
    assert told["state"] == "approved"
    web1.ready(told)
    assert advance(api) == 1
    assert web1.look(told)["state"] == "provisioning"


def test_a_pre_approved_host_that_cannot_be_added_waits_with_the_reason(api, new_token, machine):
    policy = api.made("/policies", {"name": "p", "sources": ["/srv"]})
    _, secret = new_token(pre_approved=True, policy="p")
    assert api.delete(f"/policies/{policy['id']}").status_code == 204
    told = machine().asked(secret)
    assert (told["state"], "policy" in told["reason"]) == ("waiting", True)


def test_a_failed_provisioning_is_told_and_may_be_tried_again(api, new_token, machine):
    _, secret = new_token(pre_approved=True)
    web1 = machine()
    told = web1.asked(secret)
    web1.ready(told)
    advance(api)
    provisioned(api, "web1", web1, error="no space on the device")
    advance(api)
    assert (web1.look(told)["state"], web1.look(told)["reason"]) == ("failed", "no space on the device")
    assert web1.ready(told)["state"] == "approved"
    assert advance(api) == 1
    assert len(api.get("/jobs?operation=provision").json()["items"]) == 2


def test_a_refused_host_is_told_why_and_may_be_approved_later(api, new_token, machine):
    made, secret = new_token()
    web1 = machine()
    told = web1.asked(secret)
    assert api.post("/enrolment/registrations/web1/refuse", {"reason": "retired"}).status_code == 200
    assert (web1.look(told)["state"], web1.look(told)["reason"]) == ("refused", "retired")
    assert web1.asked(secret)["state"] == "refused", "the same token brings no second chance"
    _, other = new_token()
    assert web1.asked(other)["state"] == "waiting"
    assert api.post("/enrolment/registrations/web1/refuse", {}).status_code == 200
    assert api.post("/enrolment/registrations/web1/approve").json()["state"] == "approved"
    assert api.post("/enrolment/registrations/web1/approve").status_code == 409
    assert api.post("/enrolment/registrations/web1/refuse", {}).status_code == 409
    assert uses(api, made) == 1


def reason(answer):
    return answer.status_code, answer.json()["type"].rpartition(":")[2]


def test_each_refusal_has_its_reason_and_uses_nothing(api, new_token, machine):
    assert reason(machine().ask("saveos_enrol_made-up")) == (401, "enrolment-token-unknown")
    made, secret = new_token()
    assert api.delete(f"/enrolment/tokens/{made['id']}").status_code == 204
    assert reason(machine().ask(secret)) == (403, "enrolment-token-revoked")
    made, secret = new_token()
    with api.database.session() as session:
        session.get_one(EnrolmentToken, uuid.UUID(made["id"])).expires_at = now() - timedelta(seconds=1)
    assert reason(machine().ask(secret)) == (403, "enrolment-token-expired")
    made, secret = new_token()
    first = machine("first")
    first.asked(secret)
    assert reason(machine("second").ask(secret)) == (403, "enrolment-token-used")
    assert first.asked(secret)["state"] == "waiting", "the host that used it is not turned away"
    made, secret = new_token(max_uses=9)
    assert reason(machine("first").ask(secret)) == (409, "name-taken")
    api.made("/hosts", {"name": "web1"})
    assert reason(machine().ask(secret)) == (409, "name-taken")
    assert machine("Web 1").ask(secret).status_code == 422
    assert machine("web9").ask(secret, ssh_host_keys=["ssh-ed25519 AAAA"]).status_code == 422
    assert uses(api, made) == 0
    states = {t["state"] for t in api.get("/enrolment/tokens").json()["items"]}
    assert states == {"active", "revoked", "expired", "used"}


def test_a_known_host_key_is_not_provisioned_under_a_second_name(api, new_token, machine, host_key):
    key = host_key()
    api.made("/hosts", {"name": "db1", "address": "10.0.0.9", "ssh_host_keys": [key]})
    _, secret = new_token(max_uses=9, pre_approved=True)
    assert reason(machine("evil", key).ask(secret)) == (409, "host-key-known")
    told = machine("db1", key).asked(secret)
    assert told["state"] == "approved"
    assert api.get("/hosts/db1").json()["address"] == "10.0.0.9", "what an admin said of it stays"


def test_a_cloned_machine_is_told_so(api, new_token, machine, host_key):
    _, secret = new_token(max_uses=9)
    web1 = machine()
    web1.asked(secret)
    clone = Machine(api, host_key(), "web2")
    clone.agent_token = web1.agent_token
    assert reason(clone.ask(secret)) == (409, "cloned")


def test_an_enrolled_host_is_there_already(api, new_token, machine):
    """Pushed by an admin, then told to enrol itself: nothing is used, nothing changes."""
    web1 = machine()
    host = api.made("/hosts", {"name": "web1", "ssh_host_keys": [web1.key]})
    web1.agent_token = api.agent_token(host["id"])
    with api.database.session() as session:
        session.get_one(Host, uuid.UUID(host["id"])).state = "enrolled"
    made, secret = new_token()
    assert web1.asked(secret)["state"] == "done"
    assert uses(api, made) == 0
    reinstalled = machine("web1", web1.key)
    _, secret = new_token(pre_approved=True)
    assert reinstalled.asked(secret)["state"] == "waiting", "a person looks at one that comes back changed"


def test_a_host_that_was_taken_out_may_ask_anew(api, new_token, machine):
    _, secret = new_token(pre_approved=True)
    web1 = machine()
    told = web1.asked(secret)
    web1.ready(told)
    advance(api)
    provisioned(api, "web1", web1)
    advance(api)
    assert api.delete("/hosts/web1").status_code == 204
    assert reason(web1.ask(secret)) == (403, "enrolment-token-used")
    _, other = new_token(pre_approved=True)
    assert web1.asked(other)["state"] == "waiting"
    assert (
        api.post("/enrolment/registrations/web1/approve").json()["host_id"]
        == api.get("/hosts/web1").json()["id"]
    )


def test_a_token_of_another_tenant_is_foreign(api, new_token, machine):
    other = api.other_tenant()
    _, secret = new_token(token=other.token, max_uses=9)
    _, own = new_token()
    web1 = machine()
    web1.asked(own)
    assert reason(web1.ask(secret)) == (409, "enrolment-foreign")
    host = api.made("/hosts", {"name": "web2"})
    web2 = machine("web2")
    web2.agent_token = api.agent_token(host["id"])
    assert reason(web2.ask(secret)) == (409, "enrolment-foreign")
    assert machine("web3").asked(secret)["state"] == "waiting"
    assert [row["name"] for row in api.get("/enrolment/registrations").json()["items"]] == ["web1"]
    assert api.post("/enrolment/registrations/web3/approve").status_code == 404
    rows = api.get("/enrolment/registrations", token=other.token).json()["items"]
    assert api.get(f"/enrolment/registrations/{rows[0]['id']}").status_code == 404
    tokens = api.get("/enrolment/tokens", token=other.token).json()["items"]
    assert api.delete(f"/enrolment/tokens/{tokens[0]['id']}").status_code == 404


def test_a_registration_answers_only_its_own_host(api, new_token, machine):
    _, secret = new_token(max_uses=9)
    told, web2 = machine().asked(secret), machine("web2")
    path = f"/agents/register/{told['registration_id']}"
    for token in (secret, web2.agent_token, api.token, ""):
        assert api.get(path, token=token).status_code == 401
        assert api.post(f"{path}/ready", token=token).status_code == 401


def test_of_a_hundred_uses_at_once_exactly_one_wins(api, new_token, machine):
    made, secret = new_token()
    machines = [machine(f"web{n}") for n in range(100)]
    with ThreadPoolExecutor(32) as pool:
        statuses = list(pool.map(lambda each: each.ask(secret).status_code, machines))
    assert sorted(statuses) == [202] + [403] * 99
    assert uses(api, made) == 1
    with api.database.session() as session:
        assert len(session.scalars(select(Registration)).all()) == 1


def test_one_host_that_asks_many_times_at_once_is_one(api, new_token, machine):
    made, secret = new_token(max_uses=50)
    web1 = machine()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: web1.ask(secret), range(32)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["registration_id"] for answer in answers}) == 1
    assert uses(api, made) == 1


def test_the_script_carries_the_agent_s_hash_and_no_secret(api):
    script, agent = api.get("/enrol.sh", token=""), api.get("/enrol/saveos-agent", token="")
    assert script.text.startswith("#!/bin/sh\n") and "\nurl=http://controller.test\n" in script.text
    assert hashlib.sha256(agent.content).hexdigest() in script.text
    assert "$$" not in script.text
    assert subprocess.run(["sh", "-n"], input=script.text, text=True, check=False).returncode == 0
