"""What travels about operations."""

import uuid
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from saveos.core.inputs import AbsolutePath, RequestModel, Text
from saveos.hosts.schemas import GroupName, HostState, Protection, Reference, Tags
from saveos.jobs.schemas import JobOut
from saveos.maintenance.findings import Severity, compare
from saveos.maintenance.models import Finding, MaintenanceResult
from saveos.maintenance.parameters import ArchiveName, CareAction

References = Annotated[list[Reference], Field(max_length=10_000)]


class Targets(RequestModel):
    """Hosts by id or name, groups by name, or all that the operation is for."""

    hosts: References = Field([])
    groups: References = Field([])
    all: bool = False


class StartIn(RequestModel):
    """What to start; `parameters` are the operation's own, see GET /maintenance."""

    targets: Targets
    mode: Literal["run", "check"] = "run"
    parameters: dict[str, Any] = Field({})


class BackupIn(RequestModel):
    """Hosts to back up now, by id or name."""

    hosts: Annotated[References, Field(min_length=1)]


class OperationOut(BaseModel):
    """An operation and the JSON schema of its parameters."""

    name: str
    summary: str
    supports_check: bool
    idempotent: bool
    needs: str
    right: str
    timeout: int
    tells_findings: bool
    fix_parameter: str
    parameters: dict[str, Any]


class ResultOut(BaseModel):
    """What a run of an operation came to on a host; the counts are of findings that it left open."""

    id: uuid.UUID
    operation: str
    host: str
    host_id: uuid.UUID
    job_id: uuid.UUID | None
    mode: Literal["run", "check"]
    at: datetime
    state: Literal["ok", "warning", "critical"]
    critical: int
    warning: int
    info: int
    fixed: int
    summary: dict[str, Any]

    @classmethod
    def of(cls, result: MaintenanceResult, host: str) -> "ResultOut":
        """Describe a result of a host of this name."""
        return cls(**_fields(result, host))


class ToldFinding(BaseModel):
    """A finding as a run told it; in a check `fixed` says what a run would mend."""

    id: str
    severity: Severity
    subject: str
    title: str
    evidence: str
    fix: str
    fixable: bool
    fixed: bool


class ResultDetail(ResultOut):
    """A result with its findings; `before` is the result it is compared with."""

    findings: list[ToldFinding]
    before: uuid.UUID | None
    new: list[ToldFinding]
    gone: list[ToldFinding]
    same: list[ToldFinding]

    @classmethod
    def compared(cls, result: MaintenanceResult, host: str, before: MaintenanceResult | None) -> "ResultDetail":
        """Describe a result beside the one before."""
        found = result.findings
        changes = compare(found, before.findings if before else [])
        return cls(**_fields(result, host), findings=found, before=before.id if before else None, **changes)


def _fields(result: MaintenanceResult, host: str) -> dict[str, Any]:
    names = set(ResultOut.model_fields) - {"host"}
    return {name: getattr(result, name) for name in names} | {"host": host}


class FindingOut(BaseModel):
    """Something that an operation found on a host, and is open since `first_seen` until `resolved_at`."""

    id: uuid.UUID
    operation: str
    host: str
    host_id: uuid.UUID
    kind: str
    subject: str
    severity: Severity
    title: str
    evidence: str
    fix: str
    fixable: bool
    result_id: uuid.UUID
    first_seen: datetime
    last_seen: datetime
    resolved_at: datetime | None

    @classmethod
    def of(cls, finding: Finding, host: str) -> "FindingOut":
        """Describe a finding on a host of this name."""
        names = set(cls.model_fields) - {"host"}
        return cls(host=host, **{name: getattr(finding, name) for name in names})


class FindingFilter(RequestModel):
    """Which findings; what is empty does not filter."""

    operation: Text = ""
    severity: Literal["", "critical", "warning", "info"] = ""
    kind: Text = ""
    host: Text = Field("", description="By id or name")
    group: Text = ""


class FixIn(RequestModel):
    """Findings to mend, by id, or all that match a filter; with mode check what would be done is only told."""

    findings: Annotated[list[uuid.UUID], Field(max_length=1000)] = Field([])
    matching: FindingFilter | None = Field(None, description="Instead of ids: all that can be mended of these")
    expected: int | None = Field(
        None, ge=0, description="With `matching`: how many that were; another number is refused with 409"
    )
    mode: Literal["run", "check"] = "run"

    @model_validator(mode="after")
    def _one_of_both(self) -> "FixIn":
        if bool(self.findings) == (self.matching is not None):
            raise ValueError("name findings, or a filter as `matching`")
        return self


class FixOut(BaseModel):
    """The jobs that mend them: one for all hosts on which the same is to be mended."""

    jobs: list[JobOut]


BulkAction = Literal[
    "pause",
    "resume",
    "add_tags",
    "remove_tags",
    "add_group",
    "remove_group",
    "policy",
    "follow_groups",
    "decommission",
    "operation",
]
NEEDS = {
    "add_tags": "tags",
    "remove_tags": "tags",
    "add_group": "groups",
    "remove_group": "groups",
    "policy": "policy",
    "operation": "operation",
}


class HostFilter(RequestModel):
    """The filters of GET /hosts; an empty one finds every host that was not taken out."""

    q: Text = ""
    state: HostState | Literal[""] = ""
    protection: Protection | Literal[""] = ""
    group: Text = ""
    tag: Text = ""
    policy: Text = ""
    drift: Literal["", "true", "false"] = ""


class BulkIn(RequestModel):
    """One action for many hosts, by id or name or by a filter.

    `tags`, `groups`, `policy`, or `operation` with its `parameters` and `mode`, are what the action needs.
    """

    action: BulkAction
    hosts: References = Field([])
    filter: HostFilter | None = None
    tags: Tags = Field([])
    groups: Annotated[list[GroupName], Field(max_length=100)] = Field([])
    policy: Reference | None = None
    operation: Annotated[str, Field(max_length=40)] | None = None
    parameters: dict[str, Any] = Field({})
    mode: Literal["run", "check"] = "run"
    dry_run: bool = False

    @model_validator(mode="after")
    def _whole(self) -> "BulkIn":
        if bool(self.hosts) == (self.filter is not None):
            raise ValueError("name hosts, or give a filter: one of them")
        needed = NEEDS.get(self.action)
        if needed and not getattr(self, needed):
            raise ValueError(f"{self.action} needs {needed}")
        return self


class BulkRefusal(BaseModel):
    """Why some hosts were left as they are: how many, and the first names."""

    reason: str
    count: int
    hosts: list[str]


class BulkOut(BaseModel):
    """What became of the chosen hosts; `hosts` are the first names of those that change."""

    action: BulkAction
    dry_run: bool
    matched: int
    changed: int
    unchanged: int
    refused: list[BulkRefusal]
    hosts: list[str]
    job: JobOut | None


class CareIn(RequestModel):
    """What to do to an archive: `new_name` is for rename, `destination` (a file on its host) for export."""

    action: CareAction
    new_name: ArchiveName = ""
    destination: AbsolutePath | Literal[""] = ""
    check: bool = Field(False, description="Change nothing; the job says what would")
