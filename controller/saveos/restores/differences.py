"""Texts: one small file of an archive as it is, or against another archive, or its host as it is now.

The host reads and compares, and sends the text as a download's content: through memory, to its reader only.
"""

import stat
import uuid

from sqlalchemy.orm import Session

from saveos.accounts.service import check_content
from saveos.archives import catalogue
from saveos.archives.service import get_archive
from saveos.core.database import new_id
from saveos.core.errors import Conflict, Invalid
from saveos.hosts.service import get_host
from saveos.jobs import service as jobs
from saveos.jobs.models import Job
from saveos.jobs.service import Member
from saveos.restores.models import Restore

OPERATION = "diff"
TIMEOUT = 1800  # seconds
HOST, NONE = "host", "none"  # in place of another archive: the file as it is now, no comparison at all
SMALL = 256 * 1024  # bytes of a file whose text a host sends


def request(
    session: Session,
    tenant_id: uuid.UUID,
    archive_id: uuid.UUID,
    other_id: uuid.UUID | None,
    ref: str,
    *,
    alone: bool = False,
    requested_by: str,
    trigger: str,
) -> tuple[Restore, Job]:
    """Queue the difference of a file, or its text `alone`; that is the content of the restore that comes back.

    `other_id` is another archive of the same repository, None the host as it is. Raises Forbidden where
    content may not pass, Invalid, NotFound, Conflict.
    """
    check_content(session, tenant_id)
    archive = get_archive(session, tenant_id, archive_id)
    other = get_archive(session, tenant_id, other_id) if other_id else None
    if other is not None and other.repository_id != archive.repository_id:
        raise Invalid("the archives are of two repositories: choose two of one host's", field="other")
    for each in (archive, other):
        if each is not None and each.gone_at is not None:
            raise Conflict(f"its repository has {each.name} no more: choose another archive")
    path = catalogue.from_ref(ref)
    if path == b"/":
        raise Invalid("name a file", field="ref")
    host = get_host(session, tenant_id, archive.host_id)
    if host.state != "enrolled":
        raise Conflict(f"{host.name} is {host.state}: provision or resume it first")
    restore_id = new_id()
    job = jobs.enqueue(
        session,
        tenant_id,
        operation=OPERATION,
        members=[Member(host.id, host.name)],
        resources=[f"repository:{archive.repository_id}"],
        targets={"hosts": [host.name]},
        parameters={
            "archive": archive.borg_id,
            "other": other.borg_id if other else NONE if alone else HOST,
            "repository_id": str(archive.repository_id),
            "ref": catalogue.to_ref(path),
            "transfer": str(restore_id),
        },
        timeout=TIMEOUT,
        trigger=trigger,
        requested_by=requested_by,
    )
    restore = Restore(
        id=restore_id,
        tenant_id=tenant_id,
        archive_id=archive.id,
        host_id=host.id,
        job_id=job.id,
        refs=[catalogue.to_ref(path)],
        kind="download",
        requested_by=requested_by[:150],
    )
    session.add(restore)
    session.flush()
    return restore, job


def has_text(mode: int, size: int) -> bool:
    """Say whether a host would send a file of this st_mode and size, if it is text."""
    return stat.S_ISREG(mode) and size <= SMALL
