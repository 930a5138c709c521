"""What travels about recovery keys and escrow."""

import uuid
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from saveos.core.inputs import RequestModel

Mode = Literal["offline", "managed"]
EscrowState = Literal["none", "fresh", "stale"]
Half = Annotated[str, Field(max_length=64)]


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
