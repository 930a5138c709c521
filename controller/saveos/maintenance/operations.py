"""THE table of operations. Routes, commands, history and tests follow from it; a new operation is one entry.

An operation's playbook is `playbooks/<name>.yml` (provision: site.yml). Its typed parameters reach the
play as `maintenance_<parameter>`.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from sqlalchemy.orm import Session

from saveos.core.inputs import AbsolutePath, RequestModel
from saveos.jobs.models import Job, JobHost
from saveos.maintenance import results
from saveos.policies.schemas import Excludes
from saveos.restores.schemas import ArchiveReference, Selection
from saveos.restores.service import TIMEOUT as RESTORE_TIMEOUT

OnResult = Callable[[Session, Job, JobHost], None]


class NoParameters(RequestModel):
    """An operation that needs to know nothing but its hosts."""


class RestoreParameters(Selection):
    """What to bring back, and to where on the host; an empty destination is a staging directory."""

    archive: ArchiveReference = "latest"


class BrowseParameters(RequestModel):
    """The directory of an archive to list."""

    archive: ArchiveReference = "latest"
    repository_id: uuid.UUID | None = None
    path: AbsolutePath = "/"


class MeasureParameters(RequestModel):
    """What to measure; without sources, what the host's policy says."""

    sources: Annotated[list[AbsolutePath], Field(max_length=1000)] = Field([])
    excludes: Excludes = Field([])


class DrillParameters(RequestModel):
    """How many files a drill restores; a seed draws the same files of an archive again, -1 others."""

    sample: int = Field(20, ge=1, le=1000)
    seed: int = Field(-1, ge=-1, lt=2**63)


@dataclass(frozen=True)
class Operation:
    """One thing that can be done to hosts.

    `needs` says what a target must be; `idempotent` whether a lost attempt is repeated by itself;
    `timeout` is in seconds; `stop_playbook` ends what goes on at a host after a cancel; `done_key` is
    the key of a host's result with which it is done. `servers` takes the targets' storage servers along.
    `exclusive` operations lease their hosts and repositories; the others only read and run beside any.
    One that `configures` takes hosts that are not provisioned yet, and gets the policy's secrets.
    """

    name: str
    playbook: str
    summary: str
    parameters: type[RequestModel] = NoParameters
    right: str = "jobs:write"
    supports_check: bool = False
    idempotent: bool = True
    needs: Literal["agents", "both"] = "agents"
    servers: bool = False
    exclusive: bool = True
    configures: bool = False
    timeout: int = 86_400
    stop_playbook: str = ""
    done_key: str = ""
    on_result: OnResult | None = None


OPERATIONS = {
    each.name: each
    for each in (
        Operation(
            "provision",
            "site.yml",
            "Make hosts what their policy and roles say",
            supports_check=True,
            needs="both",
            servers=True,
            configures=True,
            timeout=3_600,
            on_result=results.provisioned,
        ),
        Operation(
            "backup",
            "backup.yml",
            "Back hosts up now",
            stop_playbook="stop.yml",
            done_key="run",
            on_result=results.ran,
        ),
        Operation(
            "restore",
            "restore.yml",
            "Bring paths of an archive back",
            RestoreParameters,
            right="restores:write",
            supports_check=True,
            timeout=RESTORE_TIMEOUT,
            stop_playbook="stop.yml",
            done_key="run",
            on_result=results.restored,
        ),
        Operation(
            "browse",
            "browse.yml",
            "List a directory of an archive",
            BrowseParameters,
            timeout=900,
            done_key="browse",
        ),
        Operation(
            "measure",
            "measure.yml",
            "See how much a backup would hold",
            MeasureParameters,
            exclusive=False,  # asks no repository, and takes no lock
            timeout=2_400,
            done_key="measure",
        ),
        Operation(
            "drill",
            "drill.yml",
            "Prove that the newest archives can be restored",
            DrillParameters,
            exclusive=False,  # the host's own lock orders it with its runs; nothing else is held up meanwhile
            done_key="drill",
            on_result=results.drilled,
        ),
        Operation(
            "health",
            "health.yml",
            "Is each host well",
            needs="both",
            exclusive=False,  # reads only, and takes no lock at a host or a repository
            timeout=600,
            done_key="health",
            on_result=results.examined,
        ),
    )
}
