"""The worker: starts what waits, follows what runs, judges what was lost. In `saveos serve`, or alone.

One thread dispatches and one follows each running job; idle, the dispatcher sleeps on the bell and
looks up every two seconds. All that it knows is in rows, so any worker takes over from any other.
"""

import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial

from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from saveos import migrations
from saveos.alerts import rules
from saveos.alerts.watch import Watch
from saveos.archives.indexer import Indexer
from saveos.core import security
from saveos.core.clock import now
from saveos.core.database import Database, write_lock
from saveos.core.feed import Feed
from saveos.core.settings import Settings
from saveos.enrolment import service as enrolment
from saveos.jobs import dispatch, queue, reports, workers
from saveos.jobs.dispatch import Bell
from saveos.jobs.models import Job
from saveos.maintenance import rebuilds
from saveos.maintenance import rules as maintenance_rules
from saveos.maintenance.attempt import JobAttempt, salvage
from saveos.maintenance.operations import OPERATIONS
from saveos.repositories import rules as repository_rules
from saveos.runner import attempts
from saveos.runner.directory import remove_root
from saveos.schedules.drills import fire_drills
from saveos.schedules.firing import fire_due
from saveos.upkeep.daily import Daily

LOOK_UP = 2.0  # seconds that an idle dispatcher sleeps at most
AT_EACH_LOOK = 0.0  # seconds until a duty is due again
HOUSEKEEPING = 5.0  # seconds between looks at schedules, lost jobs and runs without a job
ADOPTION = 0.25  # seconds between batches of runs without a job, while there are many
LONGEST_PAUSE = 30.0  # seconds after errors that do not end

log = logging.getLogger(__name__)


def is_idempotent(operation: str) -> bool:
    """Whether a lost attempt of an operation may be repeated by itself."""
    return operation in OPERATIONS and OPERATIONS[operation].idempotent


def pause_after(stumbles: int) -> float:
    """Return how many seconds to wait after so many errors in a row: what lasts must not fill the log."""
    return min(stumbles * LOOK_UP, LONGEST_PAUSE)


class Duty:
    """What the dispatcher does again and again. One that stumbles is tried again later, and holds up no other.

    `act` returns after how many seconds it is due again. Only a database that does not answer ends the round:
    `do` raises OperationalError then.
    """

    def __init__(self, act: Callable[[], float]) -> None:
        self.due = 0.0
        self._act = act
        self._stumbles = 0

    def do(self) -> None:
        """Act, when it is due."""
        if time.monotonic() < self.due:
            return
        try:
            pause = self._act()
            self._stumbles = 0
        except OperationalError:
            raise
        except Exception:
            log.exception("the dispatcher stumbled; it goes on")
            self._stumbles += 1
            pause = pause_after(self._stumbles)
        self.due = time.monotonic() + pause


class Worker:
    """Runs jobs until stopped. `start` and `stop` may be called from any thread."""

    def __init__(self, settings: Settings, database: Database, bell: Bell) -> None:
        self.settings = settings
        self.database = database
        self.bell = bell
        self.name = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._started_at = now()
        self._stopping = threading.Event()
        self._attempts: dict[uuid.UUID, JobAttempt] = {}
        self._dispatcher = threading.Thread(target=self._dispatch, name="dispatch", daemon=True)
        families = (*rules.FAMILIES, *repository_rules.FAMILIES, *maintenance_rules.FAMILIES)
        self._watch = Watch(settings, database, families)
        self._indexer = Indexer(settings.home, database)
        self._daily = Daily(settings, database)

    def start(self) -> None:
        """Begin: first what a killed worker left on this machine is ended."""
        self._dispatcher.start()
        self._watch.start()
        self._indexer.start()
        self._daily.start()

    def stop(self) -> None:
        """End; running jobs are judged at once, as if this process had been killed, but cleanly."""
        self._stopping.set()
        self.bell.ring()
        self._dispatcher.join()
        self._watch.stop()
        self._indexer.stop()
        self._daily.stop()
        for attempt in list(self._attempts.values()):
            attempt.stop()
        for attempt in list(self._attempts.values()):
            attempt.thread.join()
        self._leave()
        remove_root(self.settings.home)

    def _dispatch(self) -> None:
        acts = (self._beat, self._fire, self._fire_drills, self._end_orphans, self._reap, self._adopt)
        duties = [Duty(act) for act in (*acts, self._enrol, self._rebuild, self._look)]
        stumbles = 0
        while not self._stopping.is_set():
            try:
                for duty in duties:
                    duty.do()
                stumbles = 0
            except OperationalError as error:
                stumbles += 1
                log.warning("the database does not answer: %s", error.orig)
                self._stopping.wait(pause_after(stumbles))
            left = [duty.due - time.monotonic() for duty in duties]
            self.bell.wait(min([LOOK_UP, *(seconds for seconds in left if seconds > 0)]))

    def _beat(self) -> float:
        """Say that this worker is alive, and when it last judged hosts."""
        with self.database.session() as session:
            write_lock(session)
            told = {"slots": self.settings.max_jobs, "running": len(self._attempts)}
            workers.beat(session, self.name, started_at=self._started_at, swept_at=self._watch.swept_at, **told)
        return workers.EVERY

    def _leave(self) -> None:
        try:
            with self.database.session() as session:
                write_lock(session)
                workers.leave(session, self.name)
        except OperationalError as error:
            log.warning("the database does not answer: %s", error.orig)

    def _look(self) -> float:
        """Start what may start, and pass on what people canceled."""
        self._attempts = {key: each for key, each in self._attempts.items() if each.thread.is_alive()}
        with self.database.session() as session:
            waiting = queue.waiting(session)
            running = list(self._attempts)
            query = select(Job.id).where(Job.id.in_(running), Job.state == "canceling")
            canceled = session.scalars(query).all() if running else []
        for job_id in canceled:
            self._attempts[job_id].cancel()
        free = self.settings.max_jobs - len(self._attempts)
        if not waiting or free <= 0:
            return AT_EACH_LOOK
        with self.database.session() as session:
            claims = queue.claim(session, self.name, self.settings.lease_seconds, free)
        for mine in claims:
            attempt = JobAttempt(self.settings, self.database, self.bell, mine)
            self._attempts[mine.job_id] = attempt
            attempt.thread.start()
        return AT_EACH_LOOK

    def _enrol(self) -> float:
        """Have hosts that registered provisioned, or note that they are."""
        return self._advance(enrolment.any_to_advance, enrolment.advance)

    def _rebuild(self) -> float:
        """Take rebuilds whose step has ended to the next one."""
        return self._advance(rebuilds.any_to_advance, rebuilds.advance)

    def _advance(self, any_due: Callable[[Session], bool], advance: Callable[[Session], object]) -> float:
        """Take steps that are due; the one writer's turn is asked for only where there are some."""
        with self.database.session() as session:
            due = any_due(session)
        if due:
            with self.database.session(writes=True) as session:
                advance(session)
        return AT_EACH_LOOK

    def _fire(self) -> float:
        fire_due(self.database)
        return HOUSEKEEPING

    def _fire_drills(self) -> float:
        fire_drills(self.database)
        return HOUSEKEEPING

    def _reap(self) -> float:
        """Judge attempts whose worker is gone."""
        with self.database.session() as session:
            lost = queue.reap(session, is_idempotent, partial(salvage, self.settings.home))
        for job_id in lost:
            log.warning("job %s: its worker was gone", job_id)
        return HOUSEKEEPING

    def _adopt(self) -> float:
        """Make jobs of some runs that have none; the next ones follow soon while there are many."""
        with self.database.session() as session:
            if not reports.any_loose(session):
                return HOUSEKEEPING
            write_lock(session)
            return ADOPTION if reports.adopt_runs(session) == reports.ADOPTED_AT_ONCE else HOUSEKEEPING

    def _end_orphans(self) -> float:
        for name in attempts.orphans(self.settings.home):
            log.warning("ending what a killed supervisor left: %s", name)
            attempts.end_orphan(self.settings.home, name)
        return HOUSEKEEPING


def run(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT."""
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = Database(settings.sqlalchemy_url, security.load_kek(settings.home))
    migrations.upgrade(database)
    bell, listener = dispatch.connect(database, Feed())
    worker = Worker(settings, database, bell)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    worker.start()
    ended.wait()
    worker.stop()
    if listener:
        listener.close()
    database.close()
