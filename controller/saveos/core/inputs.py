"""What every request model shares: strict fields, bounded strings, no text that a database refuses."""

import math
import re
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

MAX_DEPTH = 20

HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,251}[a-z0-9])?")
ADDRESS = re.compile(r"[A-Za-z0-9:][A-Za-z0-9._:-]{0,252}")
SIZE = re.compile(r"(\d{1,12}(?:[.,]\d{1,3})?)\s?([kmgt]?)(i?)[bo]?", re.IGNORECASE)
TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,62}")


def check_clean(value: Any, depth: int = 0) -> None:
    """Raise ValueError on NUL, lone surrogates, numbers that are none, or nesting deeper than MAX_DEPTH."""
    if depth > MAX_DEPTH:
        raise ValueError(f"the value is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, str):
        if "\x00" in value:
            raise ValueError("the text holds a NUL character: remove it")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError("the text is not valid Unicode: send UTF-8")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("the number must be finite")
    elif isinstance(value, dict):
        for key, item in value.items():
            check_clean(key, depth + 1)
            check_clean(item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            check_clean(item, depth + 1)


class RequestModel(BaseModel):
    """Base of every request body: unknown fields are refused, so a typing mistake is no silent default."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _clean(cls, data: Any) -> Any:
        check_clean(data)
        return data


def _clean_text(value: str) -> str:
    check_clean(value)
    return value


def _host_name(value: str) -> str:
    value = value.strip().lower()
    if not HOST_NAME.fullmatch(value):
        raise ValueError("a host's name has letters, digits, dots, dashes and underscores, 253 at most")
    return value


def _address(value: str) -> str:
    value = value.strip()
    if not ADDRESS.fullmatch(value):
        raise ValueError("the address must be an IP address or a host name, without port or user")
    return value


def _user(value: str) -> str:
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", value):
        raise ValueError("the user must be a Unix login name, such as root or backup")
    return value


def absolute_path(value: str) -> str:
    """Return `value` when it is an absolute path on one line. Raises ValueError else."""
    if not value.startswith("/") or any(character in value for character in "\x00\n\r"):
        raise ValueError("the path must be absolute, such as /etc, on one line")
    return value


def _tag(value: str) -> str:
    if not TAG.fullmatch(value):
        raise ValueError("a tag has letters, digits and . _ : - (63 at most)")
    return value


def _name(value: str) -> str:
    value = value.strip()
    if not value or any(ord(character) < 32 for character in value):
        raise ValueError("the name must not be empty or hold control characters")
    return value


def _moment(value: datetime) -> datetime:
    """Return an aware UTC time; one without a zone is UTC. Years far off are refused: they overflow."""
    if not 1990 <= value.year <= 2200:
        raise ValueError("the time must be between 1990 and 2200")
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def _path_or_empty(value: str) -> str:
    return absolute_path(value) if value else value


def _quota(value: str) -> str:
    if value and not re.fullmatch(r"\d{1,12}(\.\d{1,3})?[KMGT]?", value):
        raise ValueError("a quota looks like 500G or 2T; empty is none")
    return value


def parse_size(text: str) -> int:
    """Return the bytes of a size such as 4096, 500k, 10 MB or 2 GiB; only units with an i are of 1024.

    Raises ValueError with a sentence.
    """
    parts = SIZE.fullmatch(text.strip())
    if not parts:
        raise ValueError(f"{text!r} is no size: give bytes, or as 500k, 10M or 2G")
    step = 1024 if parts[3] else 1000
    return int(float(parts[1].replace(",", ".")) * step ** " kmgt".index(parts[2].lower() or " "))


SECRET = re.compile(r"password|passphrase|passcommand|secret|token|api_key|integration_key", re.IGNORECASE)


def refuse_secrets(value: Any, advice: str) -> None:
    """Raise ValueError naming the first key below which a secret stands in plain text, and what to do.

    For what is kept unsealed and shown to all who may read. borgmatic's `{credential …}` names a secret only.
    """
    for key, item in value.items() if isinstance(value, dict) else ():
        plain = isinstance(item, str) and item != "" and not item.startswith("{credential ")
        if plain and SECRET.search(str(key)):
            raise ValueError(
                f"{str(key)[:60]} would be kept unsealed, for all who may read this to see: {advice}"
            )
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        refuse_secrets(item, advice)


def is_loopback(address: str) -> bool:
    """Whether an address means the machine itself, whichever machine reads it."""
    try:
        return ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return address == "localhost"


Text = Annotated[str, Field(max_length=200), AfterValidator(_clean_text)]
Filter = Annotated[str, Field(max_length=253), AfterValidator(_clean_text)]  # long enough for a host's name
Name = Annotated[str, Field(max_length=100), AfterValidator(_name)]
HostName = Annotated[str, Field(max_length=253), AfterValidator(_host_name)]
Address = Annotated[str, Field(max_length=253), AfterValidator(_address)]
UserName = Annotated[str, Field(max_length=32), AfterValidator(_user)]
AbsolutePath = Annotated[str, Field(max_length=4096), AfterValidator(absolute_path)]
Tag = Annotated[str, Field(max_length=63), AfterValidator(_tag)]
OptionalPath = Annotated[str, Field(max_length=4096), AfterValidator(_path_or_empty)]
Quota = Annotated[str, Field(max_length=20), AfterValidator(_quota)]
Moment = Annotated[datetime, AfterValidator(_moment)]
