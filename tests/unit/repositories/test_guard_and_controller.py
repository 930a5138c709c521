"""The controller's word to the real guard, its report to the controller, and the real Borg."""

import json
import os
import subprocess
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from saveos.alerts import service as alerts
from saveos.archives import retention
from saveos.archives.models import Archive
from saveos.core.clock import now
from saveos.core.database import write_lock
from saveos.hosts.models import Host
from saveos.jobs.models import Job, JobHost
from saveos.maintenance import guard as handlers
from saveos.repositories import guard, rules
from saveos.repositories.models import GuardState, Repository

from tests.guarded import REPOSITORY, Storage

CHECKOUT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def borg(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = os.environ.get("SAVEOS_TEST_BORG")
    bundle = CHECKOUT / ".build/bundle" / f"saveos-bundle-{os.uname().machine}.tar.gz"
    if directory is None and bundle.exists():
        unpacked = tmp_path_factory.mktemp("bundle")
        subprocess.run(["tar", "-xzf", bundle, "-C", unpacked], check=True)
        directory = str(unpacked)
    if directory is None:
        sentence = "no agent bundle in .build/bundle: build it with scripts/bundle.py"
        pytest.fail(sentence) if os.environ.get("CI") else pytest.skip(sentence)
    return f"{directory}/borg"


@pytest.fixture
def database_kind() -> str:
    """One database: what differs between them is tested elsewhere."""
    return "sqlite"


class Pair:
    """A controller's rows about one host, and the storage server that holds its repository."""

    def __init__(self, database: Any, tenant_id: uuid.UUID, add_host: Any, storage: Storage) -> None:
        self.database, self.tenant_id, self.storage = database, tenant_id, storage
        self.server = add_host("vault", is_agent=False, is_storage_server=True)
        self.host = add_host("web1", variables={"agent_retention": storage.retention})
        with database.session() as session:
            row = Repository(tenant_id=tenant_id, host_id=self.host.id, server_id=self.server.id)
            row.initialised_at = now()
            session.add(row)
        self.id = row.id

    def back_up(self, name: str) -> None:
        """The host makes an archive and tells the controller of it."""
        made = self.storage.back_up(name)
        at = datetime.fromisoformat(made["at"]).astimezone(UTC)
        fields = {"started_at": at, "files": made["files"], "original_size": made["size"], "name": name}
        owner = {"tenant_id": self.tenant_id, "host_id": self.host.id, "repository_id": self.id}
        with self.database.session() as session:
            session.add(Archive(borg_id=made["id"], **owner, **fields))

    def guard(self) -> GuardState:
        """The operation `guard`, without Ansible: told, run, report."""
        self.storage.wait()
        with self.database.session() as session:
            word = json.loads(retention.told(session, session.get_one(Host, self.server.id)))
        word["repositories"] = {REPOSITORY: word["repositories"][str(self.id)]}
        self.storage.guard.tell(self.storage.settings, word, self.storage.time)
        report = json.loads(
            json.dumps(self.storage.guard.run(self.storage.settings, [], self.storage.time, True))
        )
        report["repositories"][0]["id"] = str(self.id)
        with self.database.session() as session:
            row = JobHost(name="vault", host_id=self.server.id, result={"guard": report}, state="ok")
            handlers.guarded(session, Job(tenant_id=self.tenant_id, operation="guard", parameters={}), row)
        with self.database.session() as session:
            return session.get_one(GuardState, self.id)

    def approve(self, state: GuardState) -> None:
        with self.database.session() as session:
            repository = session.get_one(Repository, self.id)
            for reason in state.reasons:
                if reason["holds"]:
                    asked = {"reason": reason["code"], "digest": state.digest, "days": 1, "note": ""}
                    guard.approve(session, repository, **asked, by="ann")

    def alerts(self) -> dict[str, str]:
        with self.database.session() as session:
            write_lock(session)
            alerts.sweep(session, now(), rules.FAMILIES)
            rows = alerts.list_alerts(session, self.tenant_id, state="open", limit=50)
            return {row.rule: row.summary for row in rows}


@pytest.fixture
def pair(
    installation: Any, database: Any, tenant_id: uuid.UUID, add_host: Any, tmp_path: Path, borg: str
) -> Pair:
    return Pair(database, tenant_id, add_host, Storage(tmp_path / "server", borg))


def test_what_is_wiped_is_held_alerted_and_freed_only_when_approved(pair: Pair) -> None:
    for number in range(3):
        pair.storage.write(f"file{number}", number)
        pair.back_up(f"a{number}")
    before = pair.guard()
    assert before.state in ("ok", "compacted"), before.reasons
    assert (before.archives_expected, before.keyless_state) == (3, "ok")
    assert before.copies

    pair.storage.client("delete", pair.storage.url, "a0", "a1")
    held = pair.guard()
    assert held.state == "held", held.reasons
    (vanished,) = [each for each in held.reasons if each["code"] == "vanished"]
    assert {each["name"] for each in vanished["would_destroy"]} == {"a0", "a1"}
    assert "guard_held" in pair.alerts()
    assert pair.guard().digest == held.digest  # it waits, and shows the same

    pair.approve(held)
    freed = pair.guard()
    assert freed.state in ("approved", "compacted"), freed.reasons
    assert "guard_held" not in pair.alerts()
    assert pair.storage.names() == {"a2"}
    assert any(copy["good"] for copy in freed.copies)  # what was freed can still be brought back


def test_what_a_person_deletes_through_the_controller_is_no_hold(pair: Pair) -> None:
    for number in range(3):
        pair.storage.write(f"file{number}", number)
        pair.back_up(f"a{number}")
    assert pair.guard().state in ("ok", "compacted")
    pair.storage.client("delete", pair.storage.url, "a0")
    with pair.database.session() as session:
        archive = session.query(Archive).where(Archive.name == "a0").one()
        archive.removed_why, archive.removed_at, archive.gone_at = "request", now(), now()
    after = pair.guard()
    assert "vanished" not in {each["code"] for each in after.reasons}, after.reasons
