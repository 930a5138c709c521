"""What a play of validation is told: declared repositories of servers, and parameters that are bounded."""

from typing import Any

import pytest
from pydantic import ValidationError
from saveos.jobs import queue
from saveos.maintenance import variables
from saveos.maintenance.operations import OPERATIONS
from saveos.maintenance.parameters import ValidationParameters
from saveos.repositories.models import Repository


def told(database: Any, settings: Any) -> dict[str, dict[str, Any]]:
    """Return the variables of each target of the queued job."""
    with database.session() as session:
        (mine,) = queue.claim(session, "w", 30, 1)
    with database.session() as session:
        spec = variables.play(session, settings, OPERATIONS[mine.operation], mine)
    return {target.name: target.variables for target in spec.targets}


@pytest.mark.parametrize("operation", ["validation", "health"])
def test_a_server_is_told_every_repository_that_lives_there(
    database: Any, settings: Any, add_host: Any, enqueue: Any, tenant_id: Any, operation: str
) -> None:
    vault = add_host("vault", is_storage_server=True, is_agent=False)
    hosts = [
        add_host("web1", agent_public_key="k1"),
        add_host("web2"),
        add_host("gone", state="decommissioned"),
    ]
    with database.session() as session:
        stores = [
            Repository(tenant_id=tenant_id, host_id=host.id, server_id=vault.id, quota="5G") for host in hosts
        ]
        stores.append(Repository(tenant_id=tenant_id, host_id=hosts[0].id, kind="local", path="/srv/x"))
        session.add_all(stores)
    enqueue([vault, hosts[0]], operation)
    found = told(database, settings)
    if operation != "validation":
        assert "maintenance_declared" not in found["vault"]
        return
    declared = {each["id"]: each for each in found["vault"]["maintenance_declared"]}
    assert set(declared) == {str(store.id) for store in stores[:2]}
    first = {"id": str(stores[0].id), "quota": "5G", "public_key": "k1", "append_only": True}
    assert declared[str(stores[0].id)] == first
    assert declared[str(stores[1].id)]["public_key"] == ""
    assert "maintenance_declared" not in found["web1"]


@pytest.mark.parametrize(
    "bad",
    [
        {"roots": ["/"]},
        {"roots": ["/proc/1"]},
        {"roots": ["srv"]},
        {"roots": ["/srv/../etc"]},
        {"kinds": []},
        {"kinds": ["secrets"]},
        {"names": ["a b"]},
        {"names": ["-x"]},
        {"fixes": ["Everything!"]},
        {"certificates": ["cert.pem"]},
        {"unknown": 1},
    ],
)
def test_bad_parameters_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ValidationParameters.model_validate(bad)


def test_parameters_have_defaults_and_take_what_fix_buttons_send() -> None:
    found = ValidationParameters.model_validate({"fixes": ["all", "env-permissions:/srv/a b/.env"]})
    assert (found.kinds, found.roots[0]) == (["config", "setup", "compose"], "/srv")
