"""The loop that indexes listings: a thread of the worker, so that nothing waits for it."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import sqlcipher3.dbapi2 as sqlite
from sqlalchemy.exc import OperationalError

from saveos.archives import catalogue, settling
from saveos.core.database import Database

EVERY = 2.0  # seconds between looks
SETTLE = 15  # looks between those at the policies' switch

log = logging.getLogger(__name__)


class Indexer:
    """Indexes what waits until stopped; what a kill interrupts is done again from its beginning."""

    def __init__(self, home: Path, database: Database) -> None:
        self._home = home
        self._database = database
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="catalogue", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; a listing under way is left to the next start."""
        self._stopping.set()
        self._thread.join(5)

    def _run(self) -> None:
        looks = 0
        while not self._stopping.wait(EVERY):
            for step in (catalogue.index_next, catalogue.forget_next):
                self._repeat(step)
            if looks % SETTLE == 0:
                self._repeat(_settle)
            looks += 1

    def _repeat(self, step: Callable[[Database, Path], bool]) -> None:
        try:
            while not self._stopping.is_set() and step(self._database, self._home):
                pass
        except (OperationalError, sqlite.OperationalError) as error:
            log.warning("the catalogue waits for its database: %s", error)
        except Exception:
            log.exception("the catalogue's loop stumbled; it goes on")


def _settle(database: Database, home: Path) -> bool:
    settling.settle(database, home)
    return False  # what is busy has time until the next look
