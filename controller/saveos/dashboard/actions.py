"""What forms start: operations as jobs with the trigger `dashboard`."""

import uuid
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from saveos.accounts.access import describe
from saveos.core.errors import Forbidden, Invalid
from saveos.dashboard.rendering import View
from saveos.dashboard.sentences import sentence
from saveos.jobs.models import Job
from saveos.maintenance import service as maintenance
from saveos.maintenance.schemas import Targets
from saveos.restores import service as restores
from saveos.restores.models import Restore
from saveos.restores.schemas import RestoreIn


def start(
    page: View,
    operation: str,
    hosts: Sequence[str] = (),
    *,
    groups: Sequence[str] = (),
    everything: bool = False,
    mode: str = "run",
    parameters: dict[str, Any] | None = None,
) -> Job:
    """Queue an operation on hosts, or on all. Raises Forbidden, NotFound, Invalid."""
    maintenance.check_right(page.actor, maintenance.get_operation(operation), parameters)
    job = maintenance.start(
        page.session,
        page.tenant_id,
        operation,
        Targets(hosts=list(hosts), groups=list(groups), all=everything),
        mode=mode,
        parameters=parameters,
        requested_by=page.actor.name,
        trigger="dashboard",
    )
    describe(page.session, f"job:{job.id}", operation=operation, mode=mode)
    return job


def restore(page: View, archive_id: uuid.UUID, chosen: dict[str, Any]) -> tuple[Restore, Job]:
    """Queue a restore, or its preview, as a form asks for it. Raises Invalid, Forbidden."""
    try:
        asked = RestoreIn.model_validate({"archive": str(archive_id)} | chosen)
    except ValidationError as error:
        raise Invalid(sentence(str(error.errors()[0]["msg"]).removeprefix("Value error, "))) from error
    maintenance.check_right(page.actor, maintenance.get_operation("restore"), chosen)
    for right in restores.needed_rights(False, other_host=bool(asked.target_host), download=asked.download):
        if not page.actor.may(right):
            raise Forbidden(f"this needs the right {right}: ask an admin for it")
    made, job = restores.request(
        page.session,
        page.tenant_id,
        archive=asked.archive,
        host=None,
        selection=asked,
        preview=asked.preview,
        target_host=asked.target_host,
        download=asked.download,
        requested_by=page.actor.name,
        trigger="dashboard",
    )
    describe(page.session, f"job:{job.id}", operation="restore", preview=asked.preview)
    return made, job


def flash(job: Job) -> str:
    """Return the toast's code for a job that was started."""
    return f"started:{job.operation}:{job.id}"
