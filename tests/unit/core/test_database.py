"""Units of work: writers that read first wait for each other instead of failing."""

import threading

from saveos.accounts.models import Tenant
from saveos.core.database import new_id
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
