"""What travels about alerts, channels and deliveries."""

import uuid
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from saveos.alerts.rules import RULES, Severity
from saveos.core.inputs import Moment, Name, RequestModel, Text
from saveos.hosts.schemas import GroupName

AlertState = Literal["open", "acknowledged", "muted", "resolved"]


def _known(value: str) -> str:
    if value not in RULES:
        raise ValueError(f"there is no rule {value}: there are {', '.join(RULES)}")
    return value


RuleName = Annotated[str, Field(max_length=40, pattern=r"^[a-z][a-z0-9_]*$"), AfterValidator(_known)]
Url = Annotated[Text, Field(min_length=1, max_length=2000, json_schema_extra={"writeOnly": True})]
Routes = Annotated[list[RuleName], Field(max_length=50)]
Severities = Annotated[list[Severity], Field(max_length=3)]
Groups = Annotated[list[GroupName], Field(max_length=100)]


class AlertOut(BaseModel):
    """A cause that needs a person. Times are UTC; `since` is when the cause began."""

    id: uuid.UUID
    rule: str
    title: str
    severity: Severity
    state: AlertState
    summary: str
    object: str
    host_id: uuid.UUID | None
    host: str | None
    count: int
    since: datetime
    first_seen: datetime
    last_seen: datetime
    muted_until: datetime | None
    acknowledged_at: datetime | None
    acknowledged_by: str
    resolved_at: datetime | None


class MuteIn(RequestModel):
    """Until when nothing is told of an alert."""

    until: Moment


class ChannelIn(RequestModel):
    """A place to tell alerts, by an Apprise URL. Empty lists route everything to it."""

    name: Name
    url: Url
    enabled: bool = True
    rules: Routes = Field([])
    severities: Severities = Field([])
    groups: Groups = Field([])
    tell_resolved: bool = True


class ChannelPatch(RequestModel):
    """What may change of a channel; a field that is absent stays as it is."""

    name: Name | None = None
    url: Url | None = None
    enabled: bool | None = None
    rules: Routes | None = None
    severities: Severities | None = None
    groups: Groups | None = None
    tell_resolved: bool | None = None


class ChannelOut(BaseModel):
    """A channel. Its URL is never told: `kind` is the URL's scheme, `address` what may be shown of it."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    name: str
    kind: str
    address: str
    enabled: bool
    rules: list[str]
    severities: list[Severity]
    groups: list[str]
    tell_resolved: bool
    created_at: datetime
    last_state: Literal["", "delivered", "retrying", "failed"]
    last_at: datetime | None
    last_error: str


class DeliveryOut(BaseModel):
    """One message to a channel and what became of it."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    channel_id: uuid.UUID
    alert_id: uuid.UUID | None
    kind: Literal["opened", "reopened", "resolved", "digest", "reminder", "test"]
    severity: Severity
    title: str
    body: str
    fields: dict[str, Any]
    state: Literal["pending", "delivered", "failed"]
    attempts: int
    next_at: datetime | None
    error: str
    created_at: datetime
    finished_at: datetime | None
