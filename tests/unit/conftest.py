"""Jobs in rows, and a worker with small playbooks of the test's own on local connections."""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from saveos.core.feed import Feed
from saveos.core.settings import Settings
from saveos.hosts.models import Host
from saveos.jobs import dispatch, service
from saveos.jobs.models import FINAL, Job, JobHost
from saveos.jobs.service import Member
from saveos.maintenance.operations import OPERATIONS
from saveos.worker import Worker


@pytest.fixture
def add_host(database: Any, tenant_id: uuid.UUID) -> Callable[..., Host]:
    """Return a function that adds an enrolled local agent."""

    def add(name: str, **changes: Any) -> Host:
        fields = {"address": "127.0.0.1", "connection": "local", "state": "enrolled"} | changes
        with database.session() as session:
            host = Host(tenant_id=tenant_id, name=name, **fields)
            session.add(host)
        return host

    return add


@pytest.fixture
def enqueue(database: Any, tenant_id: uuid.UUID) -> Callable[..., uuid.UUID]:
    """Return a function that queues a job on hosts."""

    def queue(hosts: Sequence[Host], operation: str = "health", **changes: Any) -> uuid.UUID:
        fields: dict[str, Any] = {
            "resources": [f"host:{host.id}" for host in hosts],
            "targets": {"hosts": [host.name for host in hosts]},
            "parameters": {},
            "timeout": 60,
        }
        with database.session() as session:
            members = [Member(host.id, host.name) for host in hosts]
            job = service.enqueue(
                session, tenant_id, operation=operation, members=members, **(fields | changes)
            )
            return job.id

    return queue


class Jobs:
    """What tests ask about jobs."""

    def __init__(self, database: Any, tenant_id: uuid.UUID) -> None:
        self.database = database
        self.tenant_id = tenant_id

    def get(self, job_id: uuid.UUID) -> Job:
        with self.database.session() as session:
            return service.get_job(session, self.tenant_id, job_id)

    def hosts(self, job_id: uuid.UUID) -> list[JobHost]:
        with self.database.session() as session:
            return service.list_hosts(session, service.get_job(session, self.tenant_id, job_id))

    def wait(self, job_id: uuid.UUID, *states: str, timeout: float = 60) -> Job:
        end = time.monotonic() + timeout
        while (job := self.get(job_id)).state not in (states or FINAL):
            assert time.monotonic() < end, f"{job.operation} is still {job.state}: {job.blocked_by}"
            time.sleep(0.05)
        return job

    def log(self, job_id: uuid.UUID) -> str:
        from saveos.jobs import logs

        with self.database.session() as session:
            return logs.as_text(logs.read(session, job_id, 1, 5000))

    def cancel(self, job_id: uuid.UUID, who: str = "ann") -> Job:
        with self.database.session(writes=True) as session:  # as a route does
            return service.cancel(session, self.tenant_id, job_id, who)


@pytest.fixture
def jobs(database: Any, tenant_id: uuid.UUID) -> Jobs:
    return Jobs(database, tenant_id)


@pytest.fixture
def playbooks(tmp_path: Path) -> Path:
    """Directory of playbooks that the test's operations run; see `use_play`."""
    path = tmp_path / "fleet" / "playbooks"
    path.mkdir(parents=True)
    (path.parent / "ansible.cfg").write_text("[defaults]\ngathering = explicit\n")
    return path


@pytest.fixture
def settings(installation: Any, playbooks: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(Settings, "fleet_dir", property(lambda _self: playbooks.parent))
    return Settings(lease_seconds=9)


@pytest.fixture
def use_play(playbooks: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that gives an operation a playbook of the test's own."""

    def use(operation: str, *tasks: str, stop: Sequence[str] = (), **changes: Any) -> None:
        body = "- hosts: agents\n  gather_facts: false\n  tasks:\n"
        names = [(f"{operation}.yml", tasks), (f"{operation}-stop.yml", stop)]
        for name, each in names:
            lines = ("    - " + task.strip().replace("\n", "\n      ") for task in each)
            (playbooks / name).write_text(body + "\n".join(lines) + "\n")
        fields = {"playbook": names[0][0], "stop_playbook": names[1][0] if stop else ""}
        monkeypatch.setitem(OPERATIONS, operation, replace(OPERATIONS[operation], **(fields | changes)))

    return use


@pytest.fixture
def start_worker(database: Any, settings: Settings) -> Iterator[Callable[..., Worker]]:
    """Return a function that starts a worker, stopped at the test's end."""
    bell, listener = dispatch.connect(database, Feed())
    workers: list[Worker] = []

    def start() -> Worker:
        worker = Worker(settings, database, bell)
        worker.start()
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.stop()
    if listener:
        listener.close()
