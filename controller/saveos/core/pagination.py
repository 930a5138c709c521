"""Keyset pages: no offset, so page one and page ten thousand cost the same."""

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from saveos.core.errors import Invalid

DEFAULT_LIMIT = 50
MAX_LIMIT = 500

T = TypeVar("T")
R = TypeVar("R")


class Page(BaseModel, Generic[T]):
    """A page of a list; `next` is the cursor of the following page, or null on the last one."""

    items: list[T]
    next: str | None = None


def encode_cursor(key: Sequence[Any]) -> str:
    """Return an opaque cursor for a sort key of JSON values."""
    return base64.urlsafe_b64encode(json.dumps(list(key), separators=(",", ":")).encode()).decode().rstrip("=")


def decode_cursor(cursor: str, length: int) -> list[Any]:
    """Return the sort key in a cursor. Raises Invalid when it is not one of ours."""
    try:
        key = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except ValueError as error:
        raise Invalid("the cursor is not one that a list returned", field="cursor") from error
    if not isinstance(key, list) or len(key) != length:
        raise Invalid("the cursor belongs to another list", field="cursor")
    return key


def split(rows: Sequence[R], limit: int, key: Callable[[R], Sequence[Any]]) -> tuple[list[R], str | None]:
    """Split `limit + 1` fetched rows into a page and the next cursor."""
    page = list(rows[:limit])
    return page, encode_cursor(key(page[-1])) if len(rows) > limit else None
