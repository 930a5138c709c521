"""What travels about users, tokens and the audit trail."""

import uuid
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from saveos.core.inputs import Name, RequestModel

Role = Literal["viewer", "operator", "admin"]


def _strong(value: str) -> str:
    if len(value) < 10 or value.isspace():
        raise ValueError("a password has at least 10 characters")
    return value


NewPassword = Annotated[str, Field(max_length=1000), AfterValidator(_strong)]


class LoginIn(RequestModel):
    """Name and password."""

    name: str = Field(max_length=100)
    password: str = Field(max_length=1000)


class PasswordIn(RequestModel):
    """A change of one's own password."""

    current: str = Field(max_length=1000)
    new: NewPassword


class UserIn(RequestModel):
    """A new user; without a password a one-time password is made and returned once."""

    name: Name
    role: Role = "viewer"
    password: NewPassword | None = None


class UserPatch(RequestModel):
    """What may change of a user; `reset_password` makes a new one-time password."""

    role: Role | None = None
    active: bool | None = None
    language: Literal["", "en", "fr"] | None = None
    reset_password: bool = False


class UserOut(BaseModel):
    """A user."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    name: str
    role: Role
    language: str
    active: bool
    must_change_password: bool
    created_at: datetime
    last_login_at: datetime | None


class UserCreated(UserOut):
    """A user just made or reset; the one-time password is shown only here."""

    one_time_password: str | None = None


class Me(BaseModel):
    """Who is asking, and what they may do."""

    name: str
    tenant_id: uuid.UUID
    user_id: uuid.UUID | None
    host_id: uuid.UUID | None
    rights: list[str]
    must_change_password: bool
    user: UserOut | None = None


class TenantSettings(BaseModel):
    """What holds for all of a tenant.

    `content_through_controller`: whether content of archives may pass through the controller's memory (never
    its disk): downloads, restores to other hosts, previews and text differences.
    """

    model_config = ConfigDict(from_attributes=True)

    content_through_controller: bool


class TenantSettingsPatch(RequestModel):
    """The settings to change."""

    content_through_controller: bool | None = None


class LoggedIn(BaseModel):
    """The answer to a log-in."""

    user: UserOut


class TokenIn(RequestModel):
    """A new API token; it acts for its user within `scopes` (["*"]: all that the role allows)."""

    name: Name
    scopes: list[Annotated[str, Field(max_length=40)]] = Field(default=["*"], min_length=1, max_length=50)
    expires_in_days: int | None = Field(default=None, ge=1, le=3650)


class TokenRotateIn(RequestModel):
    """How many hours the old token still counts beside its successor."""

    overlap_hours: int = Field(default=24, ge=0, le=720)


class TokenOut(BaseModel):
    """A token, without its secret."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    kind: str
    name: str
    user_id: uuid.UUID | None
    host_id: uuid.UUID | None
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class TokenCreated(TokenOut):
    """A token just made; the secret is shown only here."""

    token: str


class AuditOut(BaseModel):
    """One act."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    at: datetime
    actor: str
    action: str
    object: str
    detail: dict[str, Any]
    address: str
