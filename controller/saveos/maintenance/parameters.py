"""Typed parameters of operations: one class each. A play gets a parameter as `maintenance_<parameter>`."""

import uuid
from typing import Annotated, Literal

from pydantic import Field

from saveos.core.inputs import AbsolutePath, RequestModel
from saveos.policies.schemas import Excludes
from saveos.restores.schemas import ArchiveReference, Selection

FINDING_REFERENCE = r"^[a-z0-9][a-z0-9-]{0,79}(:[^\x00-\x1f]{1,1000})?$"
# What a Fix button hands over: a finding's id, followed by ":" and its subject where it has one.
FindingReference = Annotated[str, Field(max_length=1100, pattern=FINDING_REFERENCE)]
Fixes = Annotated[list[FindingReference], Field(max_length=1000)]


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


Unit = Annotated[str, Field(max_length=255, pattern=r"^[A-Za-z0-9][A-Za-z0-9:_.@\\-]*$")]
HttpAddress = Annotated[str, Field(max_length=2000, pattern=r"^(https?://[^\s]+)?$")]


class DependenciesParameters(RequestModel):
    """What to install (`none` only reports), how many hosts at a time, and how to tell that one is well."""

    apply: Literal["none", "security", "all", "repair"] = "none"
    fixes: Fixes = Field([])
    batch: int = Field(5, ge=1, le=1000, description="Hosts at a time, after the first one")
    refresh: bool = Field(
        True, description="Fetch package lists first; while nothing is installed, into a copy"
    )
    online: bool = Field(
        True, description="Ask advisory sources about libraries; they learn names and versions"
    )
    roots: Annotated[list[AbsolutePath], Field(max_length=100)] = Field(
        ["/srv", "/var/www", "/opt"], description="Directories below which language projects are looked for"
    )
    health_units: Annotated[list[Unit], Field(max_length=100)] = Field(
        [], description="Units of systemd that must be active after an update"
    )
    health_url: HttpAddress = Field(
        "", description="Address that must answer after an update, asked from the host"
    )
