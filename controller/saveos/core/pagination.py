"""Keyset pages: no offset, so page one and page ten thousand cost the same."""

import base64
import json
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel

from saveos.core.errors import Invalid

DEFAULT_LIMIT = 50
MAX_LIMIT = 500
OTHER_LIST = "the cursor is not of this list: leave it out for the first page"

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Items on a page")]
Cursor = Annotated[str | None, Query(max_length=1000, description="`next` of the page before")]

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
    except (ValueError, RecursionError) as error:
        raise Invalid(
            "the cursor is not one that a list returned: leave it out for the first page", field="cursor"
        ) from error
    if not isinstance(key, list) or len(key) != length:
        raise Invalid(OTHER_LIST, field="cursor")
    return key


def decode_id(cursor: str | None) -> uuid.UUID | None:
    """Return the id in the cursor of a list that is sorted by id; None without a cursor. Raises Invalid."""
    if not cursor:
        return None
    try:
        return uuid.UUID(decode_cursor(cursor, 1)[0])
    except (ValueError, TypeError, AttributeError) as error:
        raise Invalid(OTHER_LIST, field="cursor") from error


def decode_text(cursor: str | None) -> str | None:
    """Return the text in the cursor of a list that is sorted by a name; None without. Raises Invalid."""
    if not cursor:
        return None
    text = decode_cursor(cursor, 1)[0]
    if not isinstance(text, str) or not text.isprintable():
        raise Invalid(OTHER_LIST, field="cursor")
    return text


def decode_time_and_id(cursor: str | None) -> tuple[datetime, uuid.UUID] | None:
    """Return the time and id in the cursor of a list that is sorted by time; None without. Raises Invalid."""
    if not cursor:
        return None
    moment, identity = decode_cursor(cursor, 2)
    try:
        return datetime.fromtimestamp(float(moment), UTC), uuid.UUID(identity)
    except (ValueError, TypeError, AttributeError, OverflowError, OSError) as error:
        raise Invalid(OTHER_LIST, field="cursor") from error


def time_and_id(moment: datetime, identity: uuid.UUID) -> list[Any]:
    """Return the sort key that `decode_time_and_id` reads; microseconds survive a float."""
    return [moment.timestamp(), str(identity)]


def split(rows: Sequence[R], limit: int, key: Callable[[R], Sequence[Any]]) -> tuple[list[R], str | None]:
    """Split `limit + 1` fetched rows into a page and the next cursor."""
    page = list(rows[:limit])
    return page, encode_cursor(key(page[-1])) if len(rows) > limit else None
