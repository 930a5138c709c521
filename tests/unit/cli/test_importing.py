"""Ansible inventories as hosts: which, with what keys, and how one that is there differs."""

import json
import subprocess

import pytest
from saveos.cli import importing
from saveos.cli.errors import CommandError
from saveos.cli.hosts import differs

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHyQkzk7mYIRR4zJ4F8kQmtiYyTjTaQ9LkI5ZJ4Hh0Qx"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC5b0nVv6E9WnHc1lYvUQ2s0mMY6d7J1p8Xr4tTz9QwE"
TOLD = {
    "_meta": {
        "hostvars": {
            "web1": {"ansible_host": "10.0.0.1", "ansible_port": "2222", "saveos_ssh_host_keys": KEY},
            "vault": {"ansible_user": "admin", "saveos_ssh_host_keys": [KEY, OTHER]},
        }
    },
    "all": {"children": ["agents", "storage_servers", "ungrouped"]},
    "agents": {"children": ["web"]},
    "web": {"hosts": ["web1"], "children": ["agents"]},
    "storage_servers": {"hosts": ["vault"]},
    "ungrouped": {"hosts": ["stray"]},
}


def test_groups_say_what_a_host_is():
    assert importing.chosen(TOLD, "") == ["stray", "vault", "web1"]
    assert importing.chosen(TOLD, "agents") == ["web1"]
    web1, vault, stray = (importing.asked_for(TOLD, name, "") for name in ("web1", "vault", "stray"))
    assert (web1["address"], web1["port"], web1["user"]) == ("10.0.0.1", 2222, "root")
    assert (web1["is_agent"], web1["is_storage_server"], web1["ssh_host_keys"]) == (True, False, [KEY])
    assert (vault["is_agent"], vault["is_storage_server"], vault["user"]) == (False, True, "admin")
    assert vault["ssh_host_keys"] == [KEY, OTHER]
    assert (stray["address"], stray["is_agent"], stray["ssh_host_keys"]) == ("stray", True, [])
    with pytest.raises(CommandError, match="no group db"):
        importing.chosen(TOLD, "db")


def test_keys_come_from_known_hosts_hashed_or_not(tmp_path):
    known = tmp_path / "known_hosts"
    known.write_text(f"stray {KEY}\n[stray]:2200 {OTHER}\nelsewhere {OTHER}\n")
    assert importing.asked_for(TOLD, "stray", str(known))["ssh_host_keys"] == [KEY]
    told = TOLD | {"_meta": {"hostvars": {"stray": {"ansible_port": 2200}}}}
    assert importing.asked_for(told, "stray", str(known))["ssh_host_keys"] == [OTHER]
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", known], check=True, capture_output=True)
    assert "stray" not in known.read_text()
    assert importing.asked_for(TOLD, "stray", str(known))["ssh_host_keys"] == [KEY]
    with pytest.raises(CommandError, match="is no file"):
        importing.asked_for(TOLD, "stray", str(tmp_path / "none"))


def test_an_inventory_is_read_by_ansible_itself(tmp_path):
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(
        "agents:\n  hosts:\n    web[1:2]:\n  vars:\n    ansible_user: deploy\n    saveos_ssh_host_keys: k\n"
    )
    told = importing.read_inventory(str(inventory))
    assert importing.chosen(told, "") == ["web1", "web2"]
    assert importing.asked_for(told, "web2", "")["user"] == "deploy"
    (tmp_path / "told.json").write_text(json.dumps(told))
    assert importing.chosen(importing.read_inventory(str(tmp_path / "told.json")), "agents") == ["web1", "web2"]
    (tmp_path / "other.json").write_text("[]")
    for wrong, sentence in (("other.json", "no _meta"), ("absent.yml", "no inventory")):
        with pytest.raises(CommandError, match=sentence):
            importing.read_inventory(str(tmp_path / wrong))


def test_a_host_that_is_there_differs_in_words():
    asked = importing.asked_for(TOLD, "web1", "")
    known = asked | {"ssh_host_keys": [OTHER, KEY]}
    assert differs(known, asked) == ""
    assert differs(known, asked | {"ssh_host_keys": [f"web1,10.0.0.1 {KEY} comment"]}) == ""
    assert differs(known | {"address": "10.0.0.9"}, asked) == "with the address 10.0.0.9"
    assert differs(known | {"is_storage_server": True}, asked) == "as a storage server"
    assert "other SSH host keys" in differs(known | {"ssh_host_keys": [OTHER]}, asked)
    assert "other SSH host keys" in differs(known, asked | {"ssh_host_keys": [f"elsewhere {KEY}"]})
