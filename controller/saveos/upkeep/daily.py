"""The worker's daily step: spool the controller's own backup, forget old logs."""

import logging
import threading
from datetime import timedelta
from pathlib import Path

from saveos.accounts.service import first_tenant
from saveos.alerts.service import open_alert, resolve_alert
from saveos.core.clock import now
from saveos.core.database import Database, write_lock
from saveos.core.settings import Settings
from saveos.upkeep.clean import clean
from saveos.upkeep.export import ExportError, export, is_due

FIRST = 900.0  # seconds after the start, when a fresh controller has settled
LOOK_UP = 900.0  # seconds between looks
RULE, OBJECT = "own_backup", "controller"

log = logging.getLogger(__name__)


def spool(settings: Settings) -> Path:
    """Return the directory that the controller's machine backs up."""
    return settings.home / "export"


class Daily(threading.Thread):
    """Looks now and then whether the daily step is due, and does it; `stop` ends it soon."""

    def __init__(self, settings: Settings, database: Database) -> None:
        super().__init__(name="daily", daemon=True)
        self._settings = settings
        self._database = database
        self._ended = threading.Event()

    def run(self) -> None:
        """Work until told to stop; what goes wrong is logged and tried again."""
        wait = FIRST
        while not self._ended.wait(wait):
            wait = LOOK_UP
            try:
                self.step()
            except Exception:
                log.exception("the controller could not look after itself; it is tried again")

    def step(self) -> None:
        """Do what is due; what fails of it holds up nothing else."""
        try:
            self._clean()  # first: where the disk is full it makes room for the export
        finally:
            self._export()

    def _export(self) -> None:
        every, target = timedelta(hours=self._settings.export_hours), spool(self._settings)
        if not every or not is_due(target, every, now()):
            return
        try:
            export(self._settings, target)
        except Exception as error:
            self._tell(_fault(error))
            raise
        self._tell("")

    def _tell(self, fault: str) -> None:
        """Open or resolve the alert about the controller's own backup, in the tenant it was installed with."""
        with self._database.session() as session:
            write_lock(session)
            tenant = first_tenant(session)
            if tenant is not None and fault:
                open_alert(session, tenant.id, RULE, OBJECT, fault)
            elif tenant is not None:
                resolve_alert(session, tenant.id, RULE, OBJECT, "The controller's own backup was made again.")

    def _clean(self) -> None:
        marker = self._settings.home / ".cleaned"
        seen = marker.stat().st_mtime if marker.exists() else 0.0
        if now().timestamp() - seen >= timedelta(days=1).total_seconds():
            counts = clean(self._settings, self._database, stopping=self._ended.is_set)
            marker.touch(mode=0o600)
            log.info(
                "forgot old logs: %s", ", ".join(f"{name} {count}" for name, count in counts.items() if count)
            )

    def stop(self) -> None:
        """End, also in the middle of forgetting."""
        self._ended.set()
        if self.is_alive():
            self.join(30)


def _fault(error: Exception) -> str:
    """Return why there is no export, in a sentence; of an error that is not ours only its kind."""
    why = str(error) if isinstance(error, ExportError) else type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        why = error.strerror
    return (
        f"The controller could not make its own backup ({why}): run saveos controller export, or see its log."
    )
