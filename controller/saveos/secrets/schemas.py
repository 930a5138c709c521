"""What travels about recovery keys and escrow."""

import uuid
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from saveos.core.inputs import RequestModel

Mode = Literal["offline", "managed"]
EscrowState = Literal["none", "fresh", "stale"]
Half = Annotated[str, Field(max_length=64)]
# A host's own words, that a recovery kit hands to a shell at another machine: nothing that a shell reads
PLAIN = r"[^\s'\"\\`$;&|<>(){}*?!#\x00-\x1f\x7f]"
SSH_URL = rf"ssh://[A-Za-z0-9_][A-Za-z0-9_.-]*@[A-Za-z0-9\[][A-Za-z0-9.:\]_-]*/{PLAIN}+"
RepositoryUrl = Annotated[str, Field(max_length=5000, pattern=rf"^({SSH_URL}|/[^\x00-\x1f\x7f]*)?$")]
HostKeyLine = Annotated[str, Field(max_length=1000, pattern=r"^[^\x00-\x1f\x7f]*$")]


class RecoveryIn(RequestModel):
    """A recovery key for the tenant. The private half is sent only in mode `managed`."""

    public_key: Half
    mode: Mode = "offline"
    private_key: Half | None = None
    replace: bool = Field(False, description="Retire the key that is there; hosts then seal anew")


class RecoveryKeyOut(BaseModel):
    """A recovery key. In mode `managed` the controller itself can open what hosts sealed to it."""

    id: uuid.UUID
    public_key: str
    fingerprint: str
    mode: Mode
    created_at: datetime
    retired_at: datetime | None


class RecoveryOut(BaseModel):
    """The key in force, and how many repositories have an escrow of it (fresh) or only of an earlier one."""

    key: RecoveryKeyOut | None
    repositories: dict[EscrowState, int]
    retired: list[RecoveryKeyOut]


class PrivateKeyOut(BaseModel):
    """The private half of a managed recovery key."""

    fingerprint: str
    private_key: str
