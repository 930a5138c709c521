"""The loop that judges hosts and delivers alerts: a thread of the worker."""

import logging
import subprocess
import threading
import time

from sqlalchemy.exc import IntegrityError, OperationalError

from saveos.alerts import delivery, service
from saveos.core.database import Database, write_lock
from saveos.core.settings import Settings

EVERY = 15.0  # seconds between sweeps
FORGET_EVERY = 3600.0

log = logging.getLogger(__name__)


class Watch:
    """Sweeps and delivers until stopped. A slow receiver holds up deliveries, never jobs."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._stopping = threading.Event()
        self._child: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; a message under way is cut off, and sent again by whoever comes next."""
        self._stopping.set()
        if child := self._child:
            child.kill()
        self._thread.join()

    def _run(self) -> None:
        forget_at = 0.0
        while not self._stopping.wait(EVERY):
            try:
                while not self._stopping.is_set() and self._sweep():
                    pass
                if time.monotonic() >= forget_at:
                    with self._database.session() as session:
                        service.forget(session)
                    forget_at = time.monotonic() + FORGET_EVERY
                while not self._stopping.is_set() and delivery.deliver(
                    self._database, self._settings, self._began
                ):
                    pass
            except (OperationalError, IntegrityError) as error:
                log.warning("alerts wait for the database: %s", error.orig)
            except Exception:
                log.exception("the alerts' loop stumbled; it goes on")

    def _sweep(self) -> bool:
        with self._database.session() as session:
            write_lock(session)
            return service.sweep(session).more

    def _began(self, child: "subprocess.Popen[str]") -> None:
        self._child = child
        if self._stopping.is_set():
            child.kill()
