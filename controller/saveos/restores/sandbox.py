"""Drills on a sandbox: what a host's drill restored goes to another host, which tells whether it arrived whole.

The content meets at the controller as that of any restore to another host. So there is a restore of kind
`drill` behind it, which lists leave out: nothing of it stays anywhere.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from saveos.accounts.service import check_content
from saveos.archives.models import Archive
from saveos.archives.service import latest_archive
from saveos.core.database import new_id
from saveos.core.errors import Invalid, NotFound
from saveos.hosts.models import Host
from saveos.hosts.service import get_host
from saveos.jobs.models import Job
from saveos.restores.models import Restore


@dataclass(frozen=True)
class Trial:
    """A drill of a host on a sandbox, before its job is made."""

    host: Host
    sandbox: Host
    archive: Archive
    transfer: uuid.UUID

    @property
    def parameters(self) -> dict[str, Any]:
        """Return what the job's play is told beside the drill's own parameters."""
        return {"sandbox": self.sandbox.name, "transfer": str(self.transfer), "source": self.host.name}

    @property
    def resources(self) -> list[str]:
        """Return what the job leases: a sandbox takes one host after another."""
        return [f"host:{self.sandbox.id}"]


def prepare(session: Session, tenant_id: uuid.UUID, hosts: Sequence[Host], sandbox: str) -> Trial:
    """Return the trial of one host on a sandbox. Raises Invalid with the field, NotFound, Forbidden."""
    if len(hosts) != 1:
        raise Invalid("a sandbox takes one host at a time: name exactly one", field="targets.hosts")
    check_content(session, tenant_id)
    host, field = hosts[0], "parameters.sandbox"
    try:
        other = get_host(session, tenant_id, sandbox)
    except NotFound as error:
        raise Invalid(error.detail, field=field) from None
    if other.id == host.id:
        raise Invalid(f"{host.name} cannot be its own sandbox: name another host", field=field)
    if not other.is_agent or other.state != "enrolled":
        why = other.state if other.is_agent else "no agent"
        raise Invalid(f"{other.name} is {why}: a sandbox is a provisioned agent", field=field)
    if other.connection == "ssh" and not other.ssh_host_keys:
        raise Invalid(f"{other.name} has no SSH host key: PATCH ssh_host_keys", field=field)
    return Trial(host, other, latest_archive(session, tenant_id, host), new_id())


def record(session: Session, job: Job, trial: Trial) -> None:
    """Let the two hosts of a trial's job meet."""
    restore = Restore(
        id=trial.transfer,
        tenant_id=job.tenant_id,
        archive_id=trial.archive.id,
        host_id=trial.host.id,
        job_id=job.id,
        kind="drill",
        target_host_id=trial.sandbox.id,
        requested_by=job.requested_by,
    )
    session.add(restore)
    session.flush()
