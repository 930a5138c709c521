"""Guard, check and undo: what their results mean, and what their plays are told.

A storage server speaks only of repositories that it holds, a host only of its own.
"""

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from saveos.archives.models import Archive
from saveos.archives.retention import told
from saveos.archives.schemas import LivingIn
from saveos.archives.service import mark_living
from saveos.core.database import touch
from saveos.core.errors import Invalid
from saveos.hosts.models import Host
from saveos.hosts.service import record_seen
from saveos.jobs.models import Job, JobHost
from saveos.maintenance.results import host_of, parsed
from saveos.repositories.guard import Checked, GuardReport, RepositoryChecked, record_checks, record_guard
from saveos.repositories.models import Repository


def guarded(session: Session, job: Job, row: JobHost) -> None:
    """Keep a guard's report."""
    found, server = row.result.get("guard"), host_of(session, row)
    if server is None or not isinstance(found, dict) or not server.is_storage_server:
        return
    partial = bool(job.parameters.get("repositories"))
    record_guard(session, server, parsed(GuardReport, found), partial=partial)
    record_seen(server)
    touch(session, server.tenant_id, "hosts")


def checked(session: Session, job: Job, row: JobHost) -> None:
    """Keep what a check found, and of each archive that it names."""
    found, host = row.result.get("check"), host_of(session, row)
    if host is None or not isinstance(found, dict) or job.mode == "check":
        return
    result = parsed(Checked, found)
    query = select(Repository.id).where(Repository.tenant_id == host.tenant_id)
    mine = Repository.server_id == host.id if result.kind == "keyless" else Repository.host_id == host.id
    allowed = set(session.scalars(query.where(mine)))
    for identity, each in record_checks(session, host, result, allowed).items():
        _mark(session, identity, each)
    record_seen(host)


def _mark(session: Session, repository_id: uuid.UUID, found: RepositoryChecked) -> None:
    """Note at archives how their check went; only archives that the check read in full are named."""
    for state, name in (("ok", "ok"), ("damaged", "failed")):
        ids = [each.id for each in found.archives if each.state == state and each.id]
        for start in range(0, len(ids), 500):
            part = ids[start : start + 500]
            change = update(Archive).where(Archive.repository_id == repository_id, Archive.borg_id.in_(part))
            session.execute(change.values(check_state=name))


def undone(session: Session, job: Job, row: JobHost) -> None:
    """Bring the archives' rows up to what lives after an undo, by the word of the mended host."""
    found, host = row.result.get("undo"), host_of(session, row)
    if host is None or not isinstance(found, dict) or job.mode == "check" or not host.is_agent:
        return
    if found.get("state") != "mended":
        return
    living = parsed(LivingIn, {"archives": found.get("archives")})
    mark_living(session, host, repository_of(job), living.archives)
    touch(session, host.tenant_id, "storage")


def repository_of(job: Job) -> uuid.UUID:
    """Return the repository that an undo is about."""
    return uuid.UUID(str(job.parameters["repository_id"]))


def variables(session: Session, job: Job, hosts: Sequence[Host]) -> dict[uuid.UUID, dict[str, Any]]:
    """Return what storage servers in a play of guard or check are told beside the job's parameters."""
    servers = [host for host in hosts if host.is_storage_server]
    if job.operation == "guard":
        return {server.id: {"maintenance_told": told(session, server)} for server in servers}
    if job.operation == "check" and job.parameters.get("kind") == "keyless":
        return _keyless(session, job, [host.id for host in hosts], servers)
    return {}


def _keyless(
    session: Session, job: Job, host_ids: Sequence[uuid.UUID], servers: Sequence[Host]
) -> dict[uuid.UUID, dict[str, Any]]:
    """Return which repositories of the job's hosts each server is to check."""
    chosen = {str(each) for each in job.parameters.get("repository_ids") or []}
    targets = select(JobHost.host_id).where(JobHost.job_id == job.id, JobHost.is_target)
    query = select(Repository.id, Repository.server_id, Repository.host_id).where(
        Repository.tenant_id == job.tenant_id,
        Repository.host_id.in_(targets),
        Repository.initialised_at.is_not(None),
    )
    found: dict[uuid.UUID, list[str]] = {server.id: [] for server in servers}
    for identity, server_id, host_id in session.execute(query):
        if server_id in found and host_id in host_ids and (not chosen or str(identity) in chosen):
            found[server_id].append(str(identity))
    return {server_id: {"maintenance_check": sorted(ids)} for server_id, ids in found.items()}


def check_undo(session: Session, hosts: Sequence[Host], parameters: dict[str, Any]) -> None:
    """Raise Invalid unless an undo is about one host's own repository on a storage server."""
    if len(hosts) != 1:
        raise Invalid("an undo is for one host: name exactly one", field="targets.hosts")
    query = select(Repository).where(
        Repository.id == uuid.UUID(str(parameters["repository_id"])),
        Repository.tenant_id == hosts[0].tenant_id,
        Repository.host_id == hosts[0].id,
    )
    repository = session.scalar(query)
    if repository is None:
        raise Invalid(
            f"{hosts[0].name} has no such repository: see saveos repositories list",
            field="parameters.repository_id",
        )
    if repository.server_id is None:
        raise Invalid(
            "no guard keeps copies of a repository on the host itself: restore from its archives",
            field="parameters.repository_id",
        )
