"""A tenant's keys: sealed at rest, bound to their place, usable by ssh."""

import subprocess

import pytest
from saveos.accounts import keys
from saveos.accounts.models import Tenant
from saveos.core.database import Database, new_id
from saveos.core.errors import NotFound
from saveos.core.security import CannotOpen


def test_the_ssh_key_pair_fits_and_its_private_part_is_stored_sealed(session, tenant_id, tmp_path):
    private = keys.ssh_private_key(session, tenant_id)
    path = tmp_path / "id"
    path.touch(mode=0o600)
    path.write_bytes(private)
    shown = subprocess.run(["ssh-keygen", "-y", "-f", path], capture_output=True, text=True, check=True).stdout
    tenant = session.get_one(Tenant, tenant_id)
    assert tenant.ssh_public_key.split()[:2] == shown.split()[:2]
    assert tenant.ssh_public_key.endswith("saveos:default")
    assert b"OPENSSH" not in tenant.ssh_private_key


def test_a_sealed_value_opens_only_in_its_place(session, tenant_id):
    row = new_id()
    sealed = keys.seal_for(session, tenant_id, ("policies", row, "hooks"), b"word")
    assert b"word" not in sealed
    assert keys.unseal_for(session, tenant_id, ("policies", row, "hooks"), sealed) == b"word"
    other = keys.make_tenant(session, "other").id
    places = [
        (tenant_id, ("policies", new_id(), "hooks")),
        (tenant_id, ("policies", row, "overrides")),
        (tenant_id, ("hosts", row, "hooks")),
        (other, ("policies", row, "hooks")),
    ]
    for tenant, where in places:
        with pytest.raises(CannotOpen):
            keys.unseal_for(session, tenant, where, sealed)


def test_another_installations_key_opens_nothing(installation, tenant_id):
    database = Database(installation.url, b"another key of thirty-two bytes!")
    with database.session() as session:
        with pytest.raises(CannotOpen):
            keys.data_key(session, tenant_id)
        with pytest.raises(NotFound):
            keys.data_key(session, new_id())
    database.close()
