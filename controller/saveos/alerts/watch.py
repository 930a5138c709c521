"""The loop that judges hosts and delivers alerts: a thread of the worker."""

import logging
import subprocess
import threading
import time
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.exc import IntegrityError, OperationalError

from saveos.alerts import delivery, service
from saveos.alerts.certificates import judge_certificates
from saveos.alerts.channels import remind
from saveos.alerts.rules import FAMILIES, Family
from saveos.core import tls
from saveos.core.clock import now
from saveos.core.database import Database, write_lock
from saveos.core.settings import Settings

EVERY = 15.0  # seconds between sweeps
LOOK_AFTER = 3600.0

log = logging.getLogger(__name__)


class Watch:
    """Sweeps and delivers until stopped. A slow receiver holds up deliveries, never jobs."""

    def __init__(self, settings: Settings, database: Database, families: Sequence[Family] = FAMILIES) -> None:
        self._settings = settings
        self._database = database
        self._families = families
        self.swept_at: datetime | None = None  # when the last sweep ended, by the controller's clock
        self._look_at = 0.0  # when to look after what needs no hurry, by the monotonic clock
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
        while not self._stopping.wait(EVERY):
            # What stumbles of these holds up no other: above all, messages that wait are sent
            for act in (self._sweep_all, self._look_after, self._deliver):
                try:
                    act()
                except (OperationalError, IntegrityError) as error:
                    log.warning("alerts wait for the database: %s", error.orig)
                except Exception:
                    log.exception("the alerts' loop stumbled; it goes on")

    def _sweep_all(self) -> None:
        while not self._stopping.is_set() and self._sweep():
            pass
        self.swept_at = now()

    def _sweep(self) -> bool:
        with self._database.session() as session:
            write_lock(session)
            return service.sweep(session, families=self._families).more

    def _look_after(self) -> None:
        """Do what needs no hurry: remind of what is open for long, look at the controller's certificates."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_AFTER  # also after a fault, which would fill the log
        with self._database.session() as session:
            write_lock(session)
            remind(session, now())
        identity = tls.current(self._settings.home) if self._settings.serves_tls else None
        if identity:
            with self._database.session() as session:
                write_lock(session)
                judge_certificates(session, identity)

    def _deliver(self) -> None:
        while not self._stopping.is_set() and delivery.deliver(self._database, self._settings, self._began):
            pass

    def _began(self, child: "subprocess.Popen[str]") -> None:
        self._child = child
        if self._stopping.is_set():
            child.kill()
