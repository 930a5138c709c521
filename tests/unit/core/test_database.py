"""Units of work: writers that read first wait for each other instead of failing."""

import threading

from saveos.accounts.models import Tenant
from saveos.core.database import lookup, new_id
from sqlalchemy import select


def test_writers_that_read_first_wait_for_each_other(database, tenant_id):
    errors = []

    def work():
        try:
            for _ in range(10):
                with database.session(writes=True) as session:
                    tenant = session.scalar(select(Tenant).where(Tenant.id == tenant_id).with_for_update())
                    tenant.ssh_public_key += "x"
        except Exception as error:  # noqa: BLE001 - the test judges it
            errors.append(error)

    with database.session() as session:
        before = session.get_one(Tenant, tenant_id).ssh_public_key
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    with database.session() as session:
        assert session.get_one(Tenant, tenant_id).ssh_public_key == before + "x" * 40


def test_ids_sort_by_time():
    ids = [new_id() for _ in range(1000)]
    assert ids == sorted(ids) and len(set(ids)) == 1000


def test_a_row_is_found_by_its_id_and_by_a_name_that_looks_like_one(database, tenant_id):
    with database.session() as session:
        tenant = session.get_one(Tenant, tenant_id)
        tenant.name = new_id().hex
        session.flush()
        for ref in (tenant.id, str(tenant.id), tenant.id.hex, tenant.name):
            assert lookup(session, select(Tenant), Tenant, ref) is tenant
        for ref in ("none", "a\x00", new_id()):
            assert lookup(session, select(Tenant), Tenant, ref) is None
        session.rollback()
