"""Hosts, groups, repositories and the inventory, as a caller sees them."""

import json
import subprocess
from datetime import timedelta

import pytest


def test_adding_a_host_makes_its_repository_on_the_only_storage_server(api, host_key):
    key = host_key()
    vault = api.made(
        "/hosts",
        {
            "name": "Vault",
            "address": "10.0.0.9",
            "is_agent": False,
            "is_storage_server": True,
            "ssh_host_keys": [key],
        },
    )
    assert (vault["name"], vault["protection"], vault["ssh_host_keys"]) == ("vault", "none", [key])
    assert api.get("/repositories").json()["items"] == []
    web = api.made("/hosts", {"name": "web1", "tags": ["paris"], "user": "backup"})
    assert (web["address"], web["policy_name"], web["state"], web["protection"]) == (
        "web1",
        "default",
        "pending",
        "never",
    )
    assert web["next_run_at"] is not None
    repository = api.get("/repositories", params={"host": "web1"}).json()["items"][0]
    assert (repository["server"], repository["kind"], repository["initialised_at"]) == ("vault", "ssh", None)


def test_a_machine_that_is_server_and_agent_keeps_its_archives_on_itself(api):
    api.made("/hosts", {"name": "box", "is_storage_server": True})
    assert api.get("/repositories").json()["items"][0]["server"] == "box"


def test_with_several_servers_one_must_be_named_and_nothing_is_half_done(api):
    for name in ("vault1", "vault2"):
        api.made("/hosts", {"name": name, "is_agent": False, "is_storage_server": True})
    answer = api.post("/hosts", {"name": "web1"})
    assert (answer.status_code, answer.json()["field"]) == (422, "repository.server")
    assert api.get("/hosts/web1").status_code == 404
    api.made("/hosts", {"name": "web1", "repository": {"server": "vault2", "quota": "100G"}})
    repository = api.get("/repositories").json()["items"][0]
    assert (repository["server"], repository["quota"]) == ("vault2", "100G")
    second = api.made("/repositories", {"host": "web1", "kind": "local", "path": "/mnt/disk"})
    assert (second["server"], second["path"]) == (None, "/mnt/disk")
    assert api.post("/repositories", {"host": "web1", "server": "vault2"}).status_code == 409
    assert api.patch(f"/repositories/{second['id']}", {"quota": "1T"}).json()["quota"] == "1T"
    assert api.delete(f"/repositories/{second['id']}").status_code == 204


def test_changing_a_host(api, host_key):
    api.made("/hosts", {"name": "web1"})
    api.made("/groups", {"name": "web"})
    api.made("/policies", {"name": "nightly", "sources": ["/srv"]})
    changed = api.patch(
        "/hosts/web1",
        {
            "port": 2222,
            "policy": "nightly",
            "groups": ["web"],
            "tags": ["b", "a"],
            "variables": {"agent_home": "/x"},
        },
    ).json()
    assert (changed["port"], changed["policy_name"], changed["groups"]) == (2222, "nightly", ["web"])
    assert changed["variables"] == {"agent_home": "/x"}
    assert api.patch("/hosts/web1", {}).json() == changed
    assert api.patch("/hosts/web1", {"state": "paused"}).status_code == 409  # not provisioned yet
    assert api.patch("/hosts/web1", {"name": "web2"}).json()["id"] == changed["id"]
    assert api.get("/hosts/web1").status_code == 404


def test_taking_a_host_out_ends_its_token_and_keeps_its_archives_and_adding_it_again_brings_it_back(api):
    api.made("/hosts", {"name": "box", "is_storage_server": True})
    host = api.get("/hosts/box").json()
    token = api.agent_token(host["id"])
    assert api.delete("/hosts/box").status_code == 204
    assert api.post("/agents/checkins", {"runs": []}, token=token).status_code == 401
    assert api.get("/hosts").json()["items"] == []
    assert [each["name"] for each in api.get("/hosts?state=decommissioned").json()["items"]] == ["box"]
    assert len(api.get("/repositories").json()["items"]) == 1
    assert api.patch("/hosts/box", {"port": 1}).status_code == 409
    again = api.made("/hosts", {"name": "box", "is_storage_server": True})
    assert (again["id"], again["state"]) == (host["id"], "pending")
    assert len(api.get("/repositories").json()["items"]) == 1


@pytest.mark.parametrize(
    "body, field, words",
    [
        ({"name": "web 1"}, "name", "letters"),
        ({"name": "-web"}, "name", "letters"),
        ({"name": "{{ 7*7 }}"}, "name", "letters"),
        ({"name": "w", "address": "-oProxyCommand=x"}, "address", "IP address"),
        ({"name": "w", "address": "a b"}, "address", "IP address"),
        ({"name": "w", "user": "root; id"}, "user", "login name"),
        ({"name": "w", "port": 0}, "port", "greater"),
        ({"name": "w", "port": "ssh"}, "port", "integer"),
        ({"name": "w", "ports": 22}, "ports", "no such field"),
        ({"name": "w", "groups": ["nope"]}, "groups", "no group nope"),
        ({"name": "w", "policy": "nope"}, "policy", "no policy nope"),
        ({"name": "w", "repository": {"server": "nope"}}, "repository.server", "no host nope"),
        ({"name": "w", "repository": {"kind": "local"}}, "repository.path", "path"),
        ({"name": "w", "repository": {"kind": "local", "path": "rel"}}, "repository.path", "absolute"),
        ({"name": "w", "repository": {"quota": "lots"}}, "repository.quota", "500G"),
        ({"name": "w", "is_agent": False}, "is_agent", "agent"),
        ({"name": "w", "variables": {"ansible_become_exe": "/bin/x"}}, "variables", "agent_"),
        ({"name": "w", "variables": {"agent_hooks": {}}}, "variables", "policy"),
        (
            {"name": "w", "variables": {"agent_databases": [{"kind": "mysql", "password": "hunter22"}]}},
            "variables",
            "password would be kept unsealed",
        ),
        ({"name": "w", "ssh_host_keys": ["not a key"]}, "ssh_host_keys", "ssh-ed25519"),
        ({"name": "w", "ssh_host_keys": ["|1|abc=|def= ssh-ed25519 AAAA"]}, "ssh_host_keys", "hashed"),
        ({"name": "w", "tags": ["a\nb"]}, "tags.0", "tag"),
        ({"name": "w\u0000"}, "", "NUL"),
    ],
)
def test_bad_hosts_are_refused_with_a_sentence_and_the_field(api, body, field, words):
    answer = api.post("/hosts", body)
    problem = answer.json()
    assert (answer.status_code, problem["type"]) == (422, "urn:saveos:problem:invalid"), answer.text
    assert problem.get("field", "") == field
    assert words in problem["detail"]
    assert api.get("/hosts").json()["items"] == []


def test_lists_filter_and_page(api):
    api.made("/groups", {"name": "web"})
    for n in range(7):
        body = {"name": f"web{n}", "tags": ["odd" if n % 2 else "even", "a_b"]}
        api.made("/hosts", body | ({"groups": ["web"]} if n < 3 else {}))
    api.made("/hosts", {"name": "db1", "address": "10.9.9.9"})

    def names(**filters):
        found, cursor = [], None
        while True:
            page = api.get(
                "/hosts", params={"limit": 2, **filters} | ({"cursor": cursor} if cursor else {})
            ).json()
            found += [host["name"] for host in page["items"]]
            cursor = page["next"]
            if cursor is None:
                return found

    assert names() == ["db1", *(f"web{n}" for n in range(7))]
    assert names(group="web") == ["web0", "web1", "web2"]
    assert names(tag="odd") == ["web1", "web3", "web5"]
    assert names(tag="a%b") == names(tag="od") == []
    assert names(q="10.9.9") == ["db1"]
    assert names(q="EVEN", group="web") == ["web0", "web2"]
    assert names(protection="late") == []
    assert names(protection="never") == names()
    assert names(state="enrolled") == []


def test_a_list_costs_the_same_number_of_queries_whatever_its_length(api):
    from sqlalchemy import event

    for n in range(12):
        api.made("/hosts", {"name": f"web{n:02}"})
    counts = []

    def count(*_):
        counts[-1] += 1

    event.listen(api.database.engine, "before_cursor_execute", count)
    for limit in (1, 12):
        counts.append(0)
        assert len(api.get("/hosts", params={"limit": limit}).json()["items"]) == limit
    event.remove(api.database.engine, "before_cursor_execute", count)
    assert counts[0] == counts[1]


@pytest.mark.parametrize("cursor", ["x", "W10", "WzFd", "W1tdXQ", "WyJcdTAwMDAiXQ", "%00", "WyJhIiwiYiJd"])
def test_a_made_up_cursor_is_refused(api, cursor):
    for path in ("/hosts", "/groups", "/repositories", "/archives", "/runs", "/users", "/tokens", "/audit"):
        answer = api.get(path, params={"cursor": cursor})
        assert (answer.status_code, answer.json().get("field")) == (422, "cursor"), path


def test_groups(api):
    api.made("/hosts", {"name": "web1"})
    api.made("/hosts", {"name": "web2"})
    assert api.made("/groups", {"name": "web", "hosts": ["web1"]})["hosts"] == 1
    assert api.post("/groups", {"name": "web"}).status_code == 409
    for name in ("all", "agents", "9a", "a-b", ""):
        assert api.post("/groups", {"name": name}).status_code == 422
    answer = api.patch("/groups/web", {"hosts": ["web1", "web9"]})
    assert (answer.status_code, answer.json()["field"]) == (422, "hosts")
    assert api.patch("/groups/web", {"name": "front", "hosts": ["web1", "web2"]}).json()["hosts"] == 2
    assert api.get("/hosts/web1").json()["groups"] == ["front"]
    assert api.delete("/groups/front").status_code == 204
    assert api.get("/hosts/web1").json()["groups"] == []


def test_ansible_reads_the_inventory_and_renders_no_template_in_it(api, tmp_path):
    api.made("/groups", {"name": "web"})
    api.made("/hosts", {"name": "vault", "address": "10.0.0.9", "is_agent": False, "is_storage_server": True})
    evil = "{{ lookup('pipe', 'touch /tmp/saveos-canary-inventory') }}"
    api.made(
        "/policies", {"name": "p", "sources": ["/etc"], "excludes": [evil], "hooks": {"before": ["canary"]}}
    )
    api.made("/hosts", {"name": "web1", "groups": ["web"], "policy": "p", "variables": {"agent_home": evil}})
    answer = api.get("/inventory")
    assert "canary" not in answer.text.replace("saveos-canary-inventory", "")
    script = tmp_path / "inventory.sh"
    (tmp_path / "fleet.json").write_text(answer.text)
    script.write_text(f"#!/bin/sh\ncat {tmp_path}/fleet.json\n")
    script.chmod(0o700)
    command = [
        "ansible",
        "-i",
        str(script),
        "web1",
        "-c",
        "local",
        "-m",
        "ansible.builtin.debug",
        "-a",
        "var=agent_home",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert "lookup('pipe'" in done.stdout, done.stdout + done.stderr
    listing = subprocess.run(
        ["ansible-inventory", "-i", str(script), "--list"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    fleet = json.loads(listing.stdout)
    assert fleet["web"]["hosts"] == ["web1"] and fleet["storage_servers"]["hosts"] == ["vault"]
    assert fleet["_meta"]["hostvars"]["web1"]["agent_repositories"][0]["server"] == "vault"
    from pathlib import Path

    assert not Path("/tmp/saveos-canary-inventory").exists()


def test_a_late_host_is_found(api):
    from saveos.core.clock import now
    from saveos.hosts.models import Host
    from sqlalchemy import update

    api.made("/hosts", {"name": "web1"})
    with api.database.session() as session:
        at = now()
        values = {"last_backup_at": at - timedelta(days=2), "due_at": at - timedelta(hours=2), "seen_at": at}
        session.execute(update(Host).values(last_run_state="succeeded", **values))
    assert api.get("/hosts/web1").json()["protection"] == "late"
    assert len(api.get("/hosts?protection=late").json()["items"]) == 1


def test_a_storage_server_known_by_loopback_is_refused_until_its_address_is_named(api):
    api.made("/hosts", {"name": "here", "address": "127.0.0.1", "is_storage_server": True, "is_agent": False})
    far = {"name": "far", "address": "10.9.8.7", "repository": {"kind": "ssh", "server": "here"}}
    refused = api.post("/hosts", far)
    assert refused.status_code == 422
    assert "--reached-at" in refused.json()["detail"]
    assert api.get("/hosts/far").status_code == 404  # nothing half-made
    assert api.patch("/hosts/here", {"variables": {"server_address": "10.9.8.1"}}).status_code == 200
    assert api.post("/hosts", far).status_code == 201


def test_a_further_tenants_server_has_a_user_of_its_own_and_a_provisioned_one_keeps_its(api):
    server = {"name": "vault", "is_agent": False, "is_storage_server": True, "address": "192.0.2.7"}
    api.made("/hosts", server)
    other = api.other_tenant()
    assert api.post("/hosts", server, token=other.token).status_code == 201
    assert api.post("/hosts", {"name": "web1"}, token=other.token).status_code == 201

    def tenant(token=""):
        fleet = api.get("/inventory", **({"token": token} if token else {})).json()
        return fleet["_meta"]["hostvars"]["vault"].get("server_tenant", "")

    def address():
        return str(api.get("/hosts/web1/policy", token=other.token).json()["rendered"])

    assert tenant() == ""
    name = tenant(other.token)
    assert name.startswith("other-")
    assert "ssh://saveos-borg-other-" in address() and "/srv/saveos/tenants/other-" in address()

    from saveos.hosts.service import get_host

    def told(**facts):
        with api.database.session() as session:
            get_host(session, other.id, "vault").facts = {"server": facts}

    told(user="saveos-borg", root="/srv/saveos")  # by a release that knew one user only
    assert tenant(other.token) == ""
    assert "ssh://saveos-borg@192.0.2.7:22/srv/saveos/repositories/" in address()
    told(tenant=name)
    assert tenant(other.token) == name
