"""What pages read, where a hostile host could have a say."""

import uuid
from typing import Any

from saveos.accounts.keys import make_tenant
from saveos.archives.models import Archive
from saveos.checkins.models import Run
from saveos.core.clock import now
from saveos.dashboard import queries
from saveos.hosts.models import Host
from saveos.jobs.models import Job
from saveos.repositories.models import Repository


def test_archives_of_a_job_are_the_tenants_own(
    database: Any, tenant_id: Any, add_host: Any, enqueue: Any
) -> None:
    """A host of another tenant says that its run belongs to our job."""
    mine = add_host("web1")
    job_id = enqueue([mine], "backup")
    with database.session() as session:
        other = make_tenant(session, "other").id
        theirs = Host(tenant_id=other, name="evil", address="127.0.0.1")
        session.add(theirs)
    with database.session() as session:
        for number, host in enumerate((mine, theirs)):
            store = Repository(tenant_id=host.tenant_id, host_id=host.id, kind="local", path="/r")
            run = Run(
                id=uuid.uuid4(),
                tenant_id=host.tenant_id,
                host_id=host.id,
                kind="backup",
                trigger="job",
                job_id=job_id,
                state="succeeded",
                started_at=now(),
                finished_at=now(),
            )
            session.add_all([store, run])
            session.flush()
            session.add(
                Archive(
                    tenant_id=host.tenant_id,
                    host_id=host.id,
                    repository_id=store.id,
                    run_id=run.id,
                    borg_id=str(number) * 64,
                    name="a",
                    started_at=now(),
                )
            )
    with database.session() as session:
        assert set(queries.job_archives(session, session.get_one(Job, job_id))) == {mine.id}
