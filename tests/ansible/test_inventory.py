"""The inventory plugin against the real application, as ansible-inventory and ansible-playbook read it."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
EVIL = "{{ lookup('pipe', 'touch /tmp/saveos-canary-plugin') }}"


@pytest.fixture
def database_kind() -> str:
    return "sqlite"


@pytest.fixture
def url(api: Any) -> Iterator[str]:
    """Address of the application on a real socket."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            answer = api.call("GET", self.path, token=token)
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class Ansible:
    """Ansible's commands in a directory with one inventory source; no SAVEOS_ setting but those given."""

    def __init__(self, directory: Path, url: str, token: str) -> None:
        self.directory = directory
        self.here = {"SAVEOS_URL": url, "SAVEOS_TOKEN": token}
        self.source("")

    def source(self, more: str) -> None:
        """Write the inventory source, with more options."""
        text = f"plugin: saveos.fleet.controller\n{more}"
        (self.directory / "fleet.controller.yml").write_text(text)

    def run(self, *words: str, code: int = 0, **here: str) -> str:
        """Run a command; return what it prints."""
        bare = {
            name: value for name, value in os.environ.items() if not name.startswith(("SAVEOS_", "ANSIBLE_"))
        }
        more = {
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"),
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        }
        more["ANSIBLE_INVENTORY_UNPARSED_FAILED"] = "1"
        ran = subprocess.run(
            [BIN / words[0], "-i", self.directory / "fleet.controller.yml", *words[1:]],
            env=bare | more | self.here | here,
            cwd=self.directory,
            text=True,
            capture_output=True,
            check=False,
        )
        output = f"{ran.stdout}\n{ran.stderr}"
        assert ran.returncode == code, output
        return ran.stdout if code == 0 else output

    def listing(self, **here: str) -> Any:
        """Return the whole inventory; it marks text that is never a template."""
        marked = self.run("ansible-inventory", "--list", **here)
        return json.loads(marked, object_hook=lambda item: item.get("__ansible_unsafe", item))


@pytest.fixture
def ansible(api: Any, url: str, tmp_path: Path, host_key: Any) -> Ansible:
    """Ansible's commands, and a fleet of one storage server and two agents of which one has hooks."""
    api.made("/groups", {"name": "web"})
    server = {"name": "vault", "address": "10.0.0.9", "is_agent": False, "is_storage_server": True}
    api.made("/hosts", server | {"ssh_host_keys": [host_key()]})
    policy = {"name": "p", "sources": ["/etc"], "excludes": [EVIL], "hooks": {"before": ["echo canary-hook"]}}
    api.made("/policies", policy)
    here = {"connection": "local", "address": "127.0.0.1"}
    api.made("/hosts", {"name": "web1", "groups": ["web"], "policy": "p", "tags": ["paris"]} | here)
    api.made("/groups", {"name": "db1"})  # a group may have the name of a host, in it or not
    api.made("/hosts", {"name": "db1", "groups": ["db1"], "variables": {"agent_home": EVIL}} | here)
    return Ansible(tmp_path, url, api.token)


def test_it_gives_what_the_controller_would(api: Any, ansible: Ansible) -> None:
    fleet = ansible.listing()
    hosts = fleet["_meta"]["hostvars"]
    assert fleet["web"]["hosts"] == ["web1"]
    assert fleet["agents"]["hosts"] == ["db1", "web1"]
    assert fleet["storage_servers"]["hosts"] == ["vault"]
    assert fleet["db1"]["hosts"] == ["db1"]
    assert hosts["web1"]["agent_excludes"] == [EVIL]
    assert hosts["web1"]["agent_repositories"][0]["server"] == "vault"
    assert hosts["web1"]["agent_controller_url"]
    key = api.get("/hosts/vault").json()
    assert f"HostKeyAlias={key['id']} -o StrictHostKeyChecking=yes" in hosts["vault"]["ansible_ssh_common_args"]
    assert "ansible_ssh_common_args" not in hosts["web1"]


def test_groups_can_be_made_of_what_the_controller_knows(ansible: Ansible) -> None:
    ansible.source(
        "keyed_groups: [{key: saveos_tags, prefix: tag}, {key: saveos_state, prefix: state}]\n"
        "groups: {servers: \"'storage_servers' in group_names\"}\n"
    )
    fleet = ansible.listing()
    assert fleet["tag_paris"]["hosts"] == ["web1"]
    assert fleet["state_pending"]["hosts"] == ["db1", "vault", "web1"]


def test_secrets_come_only_when_asked_for_and_allowed(api: Any, ansible: Ansible) -> None:
    assert "canary-hook" not in json.dumps(ansible.listing())
    assert ansible.listing()["_meta"]["hostvars"]["web1"]["agent_withheld"]
    ansible.source("secrets: true\n")
    hosts = ansible.listing()["_meta"]["hostvars"]
    assert hosts["web1"]["agent_hooks"]["before"] == ["echo canary-hook"]
    assert "agent_withheld" not in hosts["web1"]
    act = api.get("/audit").json()["items"][0]
    assert (act["action"], act["object"]) == ("read inventory", "secrets")
    refused = ansible.run("ansible-inventory", "--list", code=1, SAVEOS_TOKEN=api.token_of("operator"))
    assert "inventory:secrets" in refused
    far = ansible.run("ansible-inventory", "--list", code=1, SAVEOS_URL="http://controller.invalid")
    assert "only over HTTPS" in far


def test_a_wrong_token_and_a_controller_that_is_away_are_told(ansible: Ansible) -> None:
    wrong = ansible.run("ansible-inventory", "--list", code=1, SAVEOS_TOKEN="saveos_wrong")
    assert "the token is unknown or revoked" in wrong
    away = ansible.run("ansible-inventory", "--list", code=1, SAVEOS_URL="http://127.0.0.1:9")
    assert "does not answer" in away
    assert "saveos_" not in away


def test_a_playbook_sees_text_and_renders_no_template(ansible: Ansible) -> None:
    play = [
        {
            "hosts": "agents",
            "gather_facts": False,
            "tasks": [
                {"ansible.builtin.debug": {"msg": "{{ agent_home | default('') }} {{ agent_excludes }}"}}
            ],
        }
    ]
    (ansible.directory / "play.yml").write_text(json.dumps(play))
    said = ansible.run("ansible-playbook", "--check", "play.yml")
    assert "lookup('pipe'" in said
    assert not Path("/tmp/saveos-canary-plugin").exists()


def test_a_play_that_lacks_hooks_stops_before_it_changes_anything(ansible: Ansible) -> None:
    playbook = str(ROOT / "playbooks" / "agent.yml")
    said = ansible.run("ansible-playbook", playbook, "--check", "--limit", "web1", code=2)
    assert "withholds the hooks" in " ".join(said.split())
    assert "changed=0" in said
