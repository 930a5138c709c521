"""What travels about hosts and groups."""

import json
import re
import uuid
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field

from saveos.core.inputs import (
    Address,
    HostName,
    Name,
    OptionalPath,
    Quota,
    RequestModel,
    Tag,
    UserName,
    refuse_secrets,
)

HostState = Literal["pending", "enrolled", "paused", "decommissioned"]
Proof = Literal["proven", "old", "failed", "never", "none"]
DrillState = Literal["", "proven", "partial", "failed"]
Protection = Literal["protected", "late", "failing", "silent", "never", "none"]
RESERVED_GROUPS = {"all", "ungrouped", "agents", "storage_servers", "localhost"}
MAX_VARIABLES = 64 * 1024  # bytes of JSON


def _group_name(value: str) -> str:
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", value):
        raise ValueError("a group's name has small letters, digits and underscores, and begins with no digit")
    if value in RESERVED_GROUPS:
        raise ValueError(f"{value} is a group that SaveOS or Ansible makes: choose another name")
    return value


def _variables(value: dict[str, Any]) -> dict[str, Any]:
    for key in value:
        if not re.fullmatch(r"(agent|server)_[a-z0-9_]+", key):
            raise ValueError(f"{key[:60]!r} is no variable of our roles: they begin with agent_ or server_")
        if key == "agent_hooks":
            raise ValueError("hooks may hold secrets: put them into a policy, where they are sealed")
    refuse_secrets(value, "put databases into a policy; elsewhere write {credential file PATH}")
    if len(json.dumps(value)) > MAX_VARIABLES:
        raise ValueError(f"the variables are larger than {MAX_VARIABLES // 1024} KB")
    return value


GroupName = Annotated[str, Field(max_length=63), AfterValidator(_group_name)]
Port = Annotated[int, Field(ge=1, le=65535)]
Tags = Annotated[list[Tag], Field(max_length=50)]
Variables = Annotated[dict[str, Any], AfterValidator(_variables)]
HostKeyLines = Annotated[list[Annotated[str, Field(max_length=65536)]], Field(max_length=1000)]
Reference = Annotated[str, Field(min_length=1, max_length=253)]


class RepositoryFor(RequestModel):
    """Where a new host's archives go; without it, to the only storage server."""

    kind: Literal["ssh", "local"] = "ssh"
    server: Reference | None = None
    path: OptionalPath = ""
    quota: Quota = ""


class HostIn(RequestModel):
    """A host to take care of. Without an address its name is used."""

    name: HostName
    address: Address | None = None
    port: Port = 22
    user: UserName = "root"
    connection: Literal["ssh", "local"] = "ssh"
    ssh_host_keys: HostKeyLines = Field([])
    is_agent: bool = True
    is_storage_server: bool = False
    tags: Tags = Field([])
    groups: Annotated[list[GroupName], Field(max_length=100)] = Field([])
    policy: Reference | None = None
    repository: RepositoryFor | None = None
    variables: Variables = Field({})


class HostPatch(RequestModel):
    """What may change of a host; a field that is absent stays as it is."""

    name: HostName | None = None
    address: Address | None = None
    port: Port | None = None
    user: UserName | None = None
    ssh_host_keys: HostKeyLines | None = None
    is_agent: bool | None = None
    is_storage_server: bool | None = None
    state: Literal["enrolled", "paused"] | None = None
    tags: Tags | None = None
    groups: Annotated[list[GroupName], Field(max_length=100)] | None = None
    policy: Reference | None = None
    variables: Variables | None = None


class HostOut(BaseModel):
    """A host, with its computed protection. Times are UTC, sizes bytes."""

    id: uuid.UUID
    name: str
    address: str
    port: int
    user: str
    connection: str
    is_agent: bool
    is_storage_server: bool
    tags: list[str]
    groups: list[str]
    policy_id: uuid.UUID | None
    policy_name: str | None
    policy_source: str = Field(description="host, group:NAME or default: what its policy comes from")
    drift: bool = Field(
        description="Has yet to follow the present version of its policy, or was found other than provisioned"
    )
    drifted_since: datetime | None
    drift_checked_at: datetime | None
    state: HostState
    protection: Protection
    os: str
    versions: dict[str, Any]
    variables: dict[str, Any]
    ssh_host_keys: list[str]
    agent_public_key: str
    created_at: datetime
    seen_at: datetime | None
    last_run_state: str
    last_run_at: datetime | None
    last_backup_at: datetime | None
    last_size: int | None
    due_at: datetime | None
    next_run_at: datetime | None
    facts: dict[str, Any]
    heartbeat: dict[str, Any]
    heartbeat_at: datetime | None
    clock_skew: float | None
    disk_free_share: float | None
    proof: Proof = Field(description="Whether drills prove that its archives can be restored")
    last_proven_at: datetime | None = Field(description="When a drill last restored its newest archives")
    last_drill_at: datetime | None
    last_drill_state: DrillState
    drill_due_at: datetime | None = Field(description="When its policy has it drilled next; null: by no policy")
    proof_ends_at: datetime | None = Field(
        description="Until when its last proof counts by its policy; null: two weeks"
    )
    drill_error: str = Field(description="What failed in the last drill, by name")


class ScanIn(RequestModel):
    """Where to ask for SSH host keys."""

    address: Address
    port: Port = 22


class ScannedKey(BaseModel):
    """A key that a host showed; `type` and `key` together are what `ssh_host_keys` takes."""

    type: str
    key: str
    fingerprint: str


class ScanOut(BaseModel):
    """The keys that a host showed, to be compared by a person."""

    keys: list[ScannedKey]


class GroupIn(RequestModel):
    """A named set of hosts."""

    name: GroupName
    hosts: Annotated[list[Reference], Field(max_length=10_000)] = Field([])


class GroupPatch(RequestModel):
    """A new name, a new set of hosts, or hosts that join or leave."""

    name: GroupName | None = None
    hosts: Annotated[list[Reference], Field(max_length=10_000)] | None = None
    add_hosts: Annotated[list[Reference], Field(max_length=10_000)] = Field([])
    remove_hosts: Annotated[list[Reference], Field(max_length=10_000)] = Field([])


class GroupOut(BaseModel):
    """A group and how many hosts it has."""

    id: uuid.UUID
    name: Name
    hosts: int
    created_at: datetime


class SshKeyOut(BaseModel):
    """The key by which the controller logs in to hosts: a line for authorized_keys, and its fingerprint."""

    public_key: str
    fingerprint: str
    made_at: datetime
