"""PostgreSQL's NOTIFY and LISTEN carry the topics of committed changes to every process."""

import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import psycopg
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from saveos.core.database import Database, Topics

CHANNEL = "saveos"
LOOK_UP = 1.0  # seconds between looks at whether to stop

_TELL = text("SELECT pg_notify(:channel, payload) FROM unnest(CAST(:payloads AS text[])) AS payload")

log = logging.getLogger(__name__)


def _announce(session: Session) -> None:
    """Send the touched topics with the transaction itself: they are told if, and only if, it commits."""
    payloads = [f"{tenant_id} {topic}" for tenant_id, topic in session.info.get("topics", ())]
    if payloads:  # one statement: a batch of check-ins touches hundreds of topics
        session.execute(_TELL, {"channel": CHANNEL, "payloads": payloads})


class Listener:
    """Announces this process's commits, and tells `tell` those of all processes, this one's included."""

    def __init__(self, database: Database, tell: Sequence[Callable[[Topics], None]]) -> None:
        event.listen(database.sessions, "before_commit", _announce)
        self._url = database.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._tell = tell
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notify", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._stop.set()
        with suppress(psycopg.Error), psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(f"NOTIFY {CHANNEL}")  # wakes the thread at once
        self._thread.join(LOOK_UP * 3)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                for topics in self._listen():
                    for tell in self._tell:
                        tell(topics)
            except psycopg.Error as error:
                log.warning("lost the connection that listens for changes: %s", error)
                self._stop.wait(LOOK_UP)

    def _listen(self) -> Iterator[Topics]:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(f"LISTEN {CHANNEL}")
            while not self._stop.is_set():
                found = {_parse(each.payload) for each in connection.notifies(timeout=LOOK_UP, stop_after=1)}
                topics = frozenset(each for each in found if each)
                if topics:
                    yield topics


def _parse(payload: str) -> tuple[uuid.UUID, str] | None:
    tenant, _, topic = payload.partition(" ")
    try:
        return uuid.UUID(tenant), topic
    except ValueError:
        return None
