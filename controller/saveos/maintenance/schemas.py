"""What travels about operations."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from saveos.core.inputs import RequestModel, Text
from saveos.hosts.schemas import GroupName, HostState, Protection, Reference, Tags
from saveos.jobs.schemas import JobOut

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
    parameters: dict[str, Any]


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
