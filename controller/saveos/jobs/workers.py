"""Which workers are alive: each says so every few seconds, and is forgotten a day after it fell silent."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from saveos import __version__
from saveos.core.clock import now
from saveos.jobs.models import WorkerSeen

EVERY = 15.0  # seconds between two words of a worker
SILENT = timedelta(seconds=90)  # after that it counts as gone
FORGET = timedelta(days=1)


def beat(
    session: Session, name: str, *, started_at: datetime, slots: int, running: int, swept_at: datetime | None
) -> None:
    """Note that a worker is alive; forget those that have been gone for a day."""
    row = session.get(WorkerSeen, name)
    if row is None:
        session.execute(delete(WorkerSeen).where(WorkerSeen.seen_at < now() - FORGET))
        row = WorkerSeen(name=name, version=__version__, started_at=started_at)
        session.add(row)
    row.slots, row.running, row.seen_at, row.swept_at = slots, running, now(), swept_at


def leave(session: Session, name: str) -> None:
    """Forget a worker that ends in good order."""
    session.execute(delete(WorkerSeen).where(WorkerSeen.name == name))


def alive(session: Session) -> Sequence[WorkerSeen]:
    """Return the workers that were heard of lately, by name."""
    query = select(WorkerSeen).where(WorkerSeen.seen_at >= now() - SILENT)
    return session.scalars(query.order_by(WorkerSeen.name)).all()
