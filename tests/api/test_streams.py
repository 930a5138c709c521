"""A job's stream while the job runs, over a real socket, and across a restart of the controller."""

import json
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from saveos.app import create_app
from saveos.core.settings import Settings
from saveos.hosts.models import Host
from saveos.maintenance.operations import OPERATIONS

PLAY = """
- hosts: agents
  gather_facts: false
  tasks:
    - name: begin
      ansible.builtin.debug: {{msg: begun}}
    - name: wait
      ansible.builtin.shell: test -e {0} || {{ touch {0}; exec sleep 60; }}
"""


@contextmanager
def serving() -> Iterator[str]:
    """Serve the application with its worker, as `saveos serve` does; yield its address."""
    app = create_app()
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/api/v1"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def client(installation: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """A client with the admin's token; `health` runs a small play that takes a minute, but the second time."""
    (tmp_path / "fleet/playbooks").mkdir(parents=True)
    (tmp_path / "fleet/ansible.cfg").write_text("[defaults]\n")
    (tmp_path / "fleet/playbooks/health.yml").write_text(PLAY.format(tmp_path / "again"))
    monkeypatch.setattr(Settings, "fleet_dir", property(lambda _self: tmp_path / "fleet"))
    monkeypatch.setitem(OPERATIONS, "health", replace(OPERATIONS["health"], on_result=None))
    monkeypatch.setenv("SAVEOS_LEASE_SECONDS", "9")
    with httpx.Client(headers={"Authorization": f"Bearer {installation.token}"}, timeout=30) as client:
        yield client


def follow(client: httpx.Client, url: str, after: int = 0) -> Iterator[tuple[str, int, Any]]:
    """Yield frames: event, id, data."""
    with client.stream("GET", url, headers={"Last-Event-ID": str(after)}) as answer:
        frame: dict[str, str] = {}
        for line in answer.iter_lines():
            if line.startswith(":"):
                continue
            if line:
                key, _, value = line.partition(": ")
                frame[key] = value
            elif frame:
                yield frame["event"], int(frame.get("id", 0)), json.loads(frame["data"])
                frame = {}


def enrolled(client: httpx.Client, url: str, database_url: str) -> None:
    host = client.post(f"{url}/hosts", json={"name": "web1", "connection": "local"}).json()
    from saveos.core.database import Database

    database = Database(database_url, b"")
    with database.session() as session:
        session.get_one(Host, uuid.UUID(host["id"])).state = "enrolled"
    database.close()


def test_stream_is_live_and_survives_a_restart(client: httpx.Client, installation: Any) -> None:
    with serving() as url:
        enrolled(client, url, installation.url)
        job = client.post(f"{url}/maintenance/health", json={"targets": {"hosts": ["web1"]}}).json()
        accepted = time.monotonic()
        last, states = 0, []
        for event, number, data in follow(client, f"{url}/jobs/{job['id']}/events"):
            if event == "state":
                states.append(data["state"])
            if event == "log":
                assert data["start"] == last + 1
                if not last:
                    print(f"accepted to first event: {time.monotonic() - accepted:.2f} s")
                last = number
                if "begun" in json.dumps(data):
                    break
        assert states[0] in ("queued", "running"), "the job was followed while it ran"
    with serving() as url:
        events, states, ended = [], [], False
        for event, _, data in follow(client, f"{url}/jobs/{job['id']}/events", last):
            ended = ended or event == "end"
            events += data["events"] if event == "log" else []
            states += [data["state"]] if event == "state" else []
        assert ended
        assert states[-1] == "succeeded"
        assert [each["n"] for each in events] == list(range(last + 1, last + 1 + len(events)))
        assert client.get(f"{url}/jobs/{job['id']}").json()["attempt"] == 2


def test_stream_of_a_canceled_job(client: httpx.Client, installation: Any) -> None:
    with serving() as url:
        enrolled(client, url, installation.url)
        job = client.post(f"{url}/maintenance/health", json={"targets": {"hosts": ["web1"]}}).json()
        states = []
        for event, _, data in follow(client, f"{url}/jobs/{job['id']}/events"):
            if event == "log" and "canceling" not in states:
                client.post(f"{url}/jobs/{job['id']}/cancel")
            states += [data["state"]] if event == "state" else []
        assert states[-1] == "canceled"
