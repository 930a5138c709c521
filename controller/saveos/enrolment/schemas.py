"""What travels about enrolment."""

import uuid
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from saveos.core.inputs import Address, HostName, Name, RequestModel, UserName
from saveos.hosts.schemas import GroupName, HostKeyLines, Port, Reference, Tags

TokenState = Literal["active", "expired", "used", "revoked"]
RegistrationState = Literal["waiting", "approved", "provisioning", "done", "refused", "failed"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
MAX_MINUTES = 366 * 24 * 60


def _line(value: str) -> str:
    if not value.isprintable():
        raise ValueError("the text must be on one line, without control characters")
    return value


Short = Annotated[str, Field(max_length=60), AfterValidator(_line)]


class TokenIn(RequestModel):
    """A new enrolment token. Hosts that use it get its policy, groups and tags."""

    name: Name
    minutes: Annotated[int, Field(ge=1, le=MAX_MINUTES, description="How long it may be used")] = 60
    max_uses: Annotated[int, Field(ge=1, le=100_000, description="How many hosts may use it")] = 1
    policy: Reference | None = None
    groups: Annotated[list[GroupName], Field(max_length=100)] = Field([])
    tags: Tags = Field([])
    pre_approved: Annotated[bool, Field(description="Its hosts need nobody's approval")] = False


class TokenOut(BaseModel):
    """An enrolment token, without its secret."""

    id: uuid.UUID
    name: str
    state: TokenState
    expires_at: datetime
    max_uses: int
    uses: int
    policy: str
    groups: list[str]
    tags: list[str]
    pre_approved: bool
    created_by: str
    created_at: datetime
    revoked_at: datetime | None


class TokenMade(TokenOut):
    """A token just made: the only time that it is shown, and the line to paste on a host."""

    token: str
    command: str


class RegisterIn(RequestModel):
    """What a host says of itself. Without an address the one that it calls from is taken."""

    name: HostName
    address: Address | None = None
    port: Port = 22
    user: UserName = "root"
    ssh_host_keys: Annotated[HostKeyLines, Field(min_length=1)]
    agent_public_key: Annotated[str, Field(max_length=1000), AfterValidator(_line)]
    agent_token_sha256: Sha256
    os: Short = ""
    versions: Annotated[dict[Short, Short], Field(max_length=20)] = Field({})


class RegistrationStatus(BaseModel):
    """How a host's registration stands, for the host itself."""

    registration_id: uuid.UUID
    name: str
    state: RegistrationState
    reason: str
    ready: bool
    controller_ssh_key: str


class RegistrationOut(BaseModel):
    """A host that asked to join."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    name: str
    state: RegistrationState
    reason: str
    address: str
    port: int
    user: str
    peer: str
    os: str
    versions: dict[str, Any]
    ssh_host_keys: list[str]
    fingerprints: list[str]
    token_id: uuid.UUID
    token_name: str
    policy: str
    groups: list[str]
    host_id: uuid.UUID | None
    job_id: uuid.UUID | None
    created_at: datetime
    decided_at: datetime | None
    decided_by: str
    ready_at: datetime | None


class RefuseIn(RequestModel):
    """Why a host is refused; it is told so."""

    reason: Annotated[str, Field(max_length=500), AfterValidator(_line)] = ""
