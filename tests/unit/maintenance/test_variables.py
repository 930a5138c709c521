"""Hosts as a play sees them."""

import json
import uuid
from typing import Any

from saveos.core import sealing, tls
from saveos.jobs import queue
from saveos.jobs.models import JobHost
from saveos.maintenance import variables
from saveos.maintenance.operations import OPERATIONS
from saveos.policies import service as policies
from saveos.policies.schemas import PolicyIn
from saveos.secrets import service as secrets
from sqlalchemy import event, update


def play(database: Any, settings: Any, *, stop: bool = False) -> Any:
    with database.session() as session:
        (mine,) = queue.claim(session, "w", 30, 1)
    return again(database, settings, mine, stop=stop)


def again(database: Any, settings: Any, mine: Any, *, stop: bool = False) -> Any:
    with database.session() as session:
        return variables.play(session, settings, OPERATIONS[mine.operation], mine, stop=stop)


def test_run_id_is_the_same_for_every_attempt(
    database: Any, settings: Any, add_host: Any, enqueue: Any
) -> None:
    host = add_host(
        "web1", address="192.0.2.1", connection="ssh", ssh_host_keys=["ssh-ed25519 AAAA"], port=2222
    )
    job_id = enqueue([host], "backup", parameters={})
    (target,) = play(database, settings).targets
    assert target.variables["maintenance_run_id"] == str(uuid.uuid5(job_id, str(host.id)))
    assert target.variables["maintenance_job_id"] == str(job_id)
    assert target.variables["maintenance_trigger"] == "job"
    assert (target.address, target.port, target.groups) == ("192.0.2.1", 2222, ("agents",))
    assert target.host_keys == ("ssh-ed25519 AAAA",)


def test_hooks_are_secrets_and_only_of_provision(
    database: Any, settings: Any, add_host: Any, enqueue: Any, tenant_id: Any
) -> None:
    with database.session() as session:
        asked = PolicyIn.model_validate({"name": "p", "sources": ["/etc"], "hooks": {"before": ["c4n4ry"]}})
        policy = policies.create_policy(session, tenant_id, asked)
    host = add_host("web1", policy_id=policy.id)
    enqueue([host], "provision")
    spec = play(database, settings)
    assert spec.targets[0].secrets["agent_hooks"]["before"] == ["c4n4ry"]
    assert spec.targets[0].variables["agent_sources"] == ["/etc"]
    assert "c4n4ry" not in json.dumps(spec.targets[0].variables)
    assert "c4n4ry" not in repr(spec)
    other = add_host("web2", policy_id=policy.id)
    enqueue([other], "health")
    assert play(database, settings).targets[0].secrets == {}


def test_parameters_become_variables(database: Any, settings: Any, add_host: Any, enqueue: Any) -> None:
    parameters = {"archive": "a", "repository_id": None, "path": "/etc"}
    enqueue([add_host("web1")], "browse", parameters=parameters)
    found = play(database, settings).targets[0].variables
    assert (found["maintenance_archive"], found["maintenance_path"]) == ("a", "/etc")
    assert "maintenance_repository_id" not in found


def test_stop_is_for_hosts_that_are_not_done(database: Any, settings: Any, add_host: Any, enqueue: Any) -> None:
    enqueue([add_host("web1"), add_host("web2")], "backup")
    with database.session() as session:
        (mine,) = queue.claim(session, "w", 30, 1)
        session.execute(update(JobHost).where(JobHost.name == "web1").values(state="changed"))
    spec = again(database, settings, mine, stop=True)
    assert [target.name for target in spec.targets] == ["web2"]
    assert (spec.phase, spec.playbook.name) == ("stop", "stop.yml")
    with database.session() as session:
        session.execute(update(JobHost).values(state="changed"))
    assert again(database, settings, mine, stop=True) is None


def test_supervisor_gives_up_before_the_lease_ends(
    database: Any, settings: Any, add_host: Any, enqueue: Any
) -> None:
    enqueue([add_host("web1")])
    spec = play(database, settings)
    assert spec.lease + spec.grace < settings.lease_seconds


def test_agents_are_told_whom_to_trust_and_to_seal_to(
    database: Any, settings: Any, add_host: Any, enqueue: Any, tenant_id: Any
) -> None:
    enqueue([add_host("web1")])
    found = play(database, settings).targets[0].variables
    assert (found["agent_controller_ca"], found["agent_recovery_public_key"]) == ("", "")
    ours = settings.model_copy(update={"tls": "on"})
    identity = tls.ensure(settings.home, ["controller.test"])
    public = sealing.new_pair()[0]
    with database.session() as session:
        secrets.init_recovery(session, tenant_id, public)
    enqueue([add_host("web2")])
    found = play(database, ours).targets[0].variables
    assert found["agent_controller_ca"] == identity.ca_pem
    assert found["agent_recovery_public_key"] == public


def test_the_number_of_statements_does_not_grow_with_the_hosts(
    database: Any, settings: Any, add_host: Any, enqueue: Any
) -> None:
    counts = []

    def count(*_: Any) -> None:
        counts[-1] += 1

    for hosts in (2, 12):
        enqueue([add_host(f"web{hosts}-{n}", is_storage_server=True) for n in range(hosts)], "provision")
        with database.session() as session:
            (mine,) = queue.claim(session, "w", 30, 1)
        counts.append(0)
        event.listen(database.engine, "before_cursor_execute", count)
        assert len(again(database, settings, mine).targets) == hosts
        event.remove(database.engine, "before_cursor_execute", count)
    assert counts[0] == counts[1]
