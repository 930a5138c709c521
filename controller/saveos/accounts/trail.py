"""The audit trail as it is read: filtered, in pages that look at a bounded number of acts, and as a whole."""

import csv
import io
import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, or_, select
from sqlalchemy.orm import Session

from saveos.accounts.models import Audit
from saveos.core.database import Database

# Acts that a page looks at, at most: 0.1 s on SQLite, where a million take 0.7 s. So no filter needs an index,
# which each write would pay for; a time needs none, as ids are in its order.
SCAN = 100_000
BATCH = 1000  # acts that an export reads at once
SLACK = timedelta(minutes=1)  # between an act's time and that in its id, generously
FORMATS = {"csv": "text/csv; charset=utf-8", "jsonl": "application/jsonl"}
COLUMNS = ("at", "actor", "action", "object", "address", "detail", "id")
FIELDS = [getattr(Audit, name) for name in COLUMNS]  # rows instead of objects: an export takes half the time
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # with which a spreadsheet takes a cell for a formula


@dataclass(frozen=True)
class Wanted:
    """Which acts are meant; what is empty does not narrow.

    `actor` is a user with their tokens, or just what the trail says; `action` and `address` are exact,
    `object` is a part of it in any case.
    """

    actor: str = ""
    action: str = ""
    object: str = ""
    address: str = ""
    since: datetime | None = None
    until: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return what an act must meet, besides its time."""
        found: list[ColumnElement[bool]] = []
        if self.actor:
            token = Audit.actor.startswith(f"{self.actor} (token ", autoescape=True)
            found.append(or_(Audit.actor == self.actor, token))
        if self.action:
            found.append(Audit.action == self.action)
        if self.object:
            found.append(Audit.object.icontains(self.object, autoescape=True))
        if self.address:
            found.append(Audit.address == self.address)
        return found

    def times(self) -> list[ColumnElement[bool]]:
        """Return the bounds of time, to the moment."""
        since = [Audit.at >= self.since] if self.since else []
        return since + ([Audit.at <= self.until] if self.until else [])

    def ids(self) -> list[ColumnElement[bool]]:
        """Return the bounds of time by ids, which are in its order, so that an old time is found at once."""
        since = [Audit.id >= _first_id(self.since - SLACK)] if self.since else []
        return since + ([Audit.id < _first_id(self.until + SLACK)] if self.until else [])


def _first_id(moment: datetime) -> uuid.UUID:
    """Return the least UUIDv7 of a time."""
    return uuid.UUID(int=max(int(moment.timestamp() * 1000), 0) << 80)


def list_acts(
    session: Session, tenant_id: uuid.UUID, wanted: Wanted, before: uuid.UUID | None, limit: int
) -> tuple[list[Row[Any]], uuid.UUID | None]:
    """Return up to `limit` acts, newest first, and the id before which the list goes on, None at its end.

    A narrowed list looks at SCAN acts at most: it may go on though fewer than `limit`, or none, were found.
    """
    place = [Audit.tenant_id == tenant_id, *wanted.ids(), *([Audit.id < before] if before else [])]
    conditions = wanted.conditions()
    last = _last_looked_at(session, place) if conditions else None
    if last:
        place.append(Audit.id >= last)
    query = select(*FIELDS).where(*place, *wanted.times(), *conditions)
    rows = list(session.execute(query.order_by(Audit.id.desc()).limit(limit + 1)))
    return (rows[:limit], rows[limit - 1].id) if len(rows) > limit else (rows, last)


def _last_looked_at(session: Session, place: Sequence[ColumnElement[bool]]) -> uuid.UUID | None:
    """Return the id of the SCANth act; None where there are fewer. Read from the index alone."""
    return session.scalar(select(Audit.id).where(*place).order_by(Audit.id.desc()).offset(SCAN - 1).limit(1))


def export(database: Database, tenant_id: uuid.UUID, wanted: Wanted, format_: str) -> Iterator[str]:
    """Yield all the acts that are wanted, newest first, in pieces of text: a line each, CSV with a head.

    Each piece has a short session of its own, so an export hinders no writer however long it takes.
    """
    before: uuid.UUID | None = None
    if format_ == "csv":
        yield _csv([COLUMNS])
    while True:
        with database.session() as session:
            rows, before = list_acts(session, tenant_id, wanted, before, BATCH)
        if rows:
            yield _csv(map(_cells, rows)) if format_ == "csv" else "".join(map(_json, rows))
        if before is None:
            return


def _json(act: Row[Any]) -> str:
    told = act._asdict() | {"at": act.at.isoformat(), "id": str(act.id)}
    return json.dumps(told, ensure_ascii=False) + "\n"


def _cells(act: Row[Any]) -> list[str]:
    detail = json.dumps(act.detail, ensure_ascii=False) if act.detail else ""
    texts = (act.actor, act.action, act.object, act.address)
    return [act.at.isoformat(), *map(_harmless, texts), detail, str(act.id)]


def _harmless(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text


def _csv(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
