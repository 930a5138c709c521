"""What travels about operations."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from saveos.core.inputs import RequestModel
from saveos.hosts.schemas import Reference

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
