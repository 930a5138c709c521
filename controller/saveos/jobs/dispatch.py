"""Dispatch: says "look at the queue now". Truth is always in the rows; a lost ring costs two seconds.

With SQLite everything is in one process, so a commit rings at once. With PostgreSQL the same topics
travel by NOTIFY to every process (docs/decisions/0003). Nothing else knows which.
"""

import threading

from saveos.core.database import Database, Topics
from saveos.core.feed import Feed
from saveos.core.notify import Listener

QUEUE = "jobs"  # the topic of every change of a job's state


class Bell:
    """Wakes the worker's dispatcher."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def ring(self) -> None:
        """Wake who waits, or the next to wait."""
        self._event.set()

    def wait(self, timeout: float) -> bool:
        """Wait for a ring; return whether there was one within `timeout` seconds."""
        rung = self._event.wait(timeout)
        self._event.clear()
        return rung

    def hear(self, topics: Topics) -> None:
        """Ring when jobs changed; fits `Database.after_commit`."""
        if any(topic == QUEUE for _, topic in topics):
            self.ring()


def connect(database: Database, feed: Feed) -> tuple[Bell, Listener | None]:
    """Connect a database's commits to this process's feed and bell; close the listener at stop, if any."""
    bell = Bell()
    if database.is_sqlite:
        database.after_commit += [feed.publish_all, bell.hear]
        return bell, None
    return bell, Listener(database, [feed.publish_all, bell.hear])
