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
from pathlib import Path
from typing import TypeVar

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
from saveos.core.errors import Problem
from saveos.core.feed import Feed
from saveos.core.settings import Settings
from saveos.enrolment import service as enrolment
from saveos.jobs import dispatch, progress, queue, reports, workers
from saveos.jobs.dispatch import Bell
from saveos.jobs.models import Job, JobHost
from saveos.jobs.queue import Claim, LeaseLost
from saveos.maintenance import rebuilds, variables
from saveos.maintenance import rules as maintenance_rules
from saveos.maintenance.operations import OPERATIONS, Operation
from saveos.maintenance.service import take_over
from saveos.repositories import rules as repository_rules
from saveos.runner import attempts
from saveos.runner.attempts import Attempt, Result
from saveos.runner.directory import Spec, remove_root
from saveos.runner.events import Line
from saveos.schedules.drills import fire_drills
from saveos.schedules.firing import fire_due
from saveos.upkeep.daily import Daily

LOOK_UP = 2.0  # seconds that an idle dispatcher sleeps at most
AT_EACH_LOOK = 0.0  # seconds until a duty is due again
HOUSEKEEPING = 5.0  # seconds between looks at schedules, lost jobs and runs without a job
ADOPTION = 0.25  # seconds between batches of runs without a job, while there are many
LONGEST_PAUSE = 30.0  # seconds after errors that do not end
BATCH = 0.25  # seconds between batches of a running job's events
ERRORS_KEPT = 20
GOES_ON = " A run may go on at a host, because it could not be ended there: see the log."

T = TypeVar("T")

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
        self._runs: dict[uuid.UUID, Run] = {}
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
        for run in list(self._runs.values()):
            run.stop()
        for run in list(self._runs.values()):
            run.thread.join()
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
            told = {"slots": self.settings.max_jobs, "running": len(self._runs)}
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
        self._runs = {key: run for key, run in self._runs.items() if run.thread.is_alive()}
        with self.database.session() as session:
            waiting = queue.waiting(session)
            running = list(self._runs)
            query = select(Job.id).where(Job.id.in_(running), Job.state == "canceling")
            canceled = session.scalars(query).all() if running else []
        for job_id in canceled:
            self._runs[job_id].cancel()
        free = self.settings.max_jobs - len(self._runs)
        if not waiting or free <= 0:
            return AT_EACH_LOOK
        with self.database.session() as session:
            claims = queue.claim(session, self.name, self.settings.lease_seconds, free)
        for mine in claims:
            self._runs[mine.job_id] = run = Run(self, mine)
            run.thread.start()
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
            lost = queue.reap(session, is_idempotent, self._salvage)
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

    def _salvage(self, session: Session, job: Job) -> None:
        """Store what a lost attempt still said, where its spool is on this machine."""
        name = f"{job.id.hex}.{job.attempt}.main"
        spool = attempts.Spool(attempts.spool_path(self.settings.home, name))
        try:
            with session.begin_nested():
                while lines := spool.read():
                    for row in progress.store(session, job, lines):
                        if job.operation in OPERATIONS:
                            take_over(session, OPERATIONS[job.operation], job, row)
        except OperationalError:
            raise
        except Exception:  # else no lost job would ever be judged, nor its hosts be free again
            log.exception("job %s: what its lost attempt said cannot be stored", job.id)
        forget_plays(self.settings.home, job.id, job.attempt)

    def _end_orphans(self) -> float:
        for name in attempts.orphans(self.settings.home):
            log.warning("ending what a killed supervisor left: %s", name)
            attempts.end_orphan(self.settings.home, name)
        return HOUSEKEEPING


class Run:
    """One claimed attempt, from its play's start to the job's state, in a thread of its own."""

    def __init__(self, worker: Worker, mine: Claim) -> None:
        self.database = worker.database
        self.settings = worker.settings
        self.bell = worker.bell
        self.mine = mine
        self.thread = threading.Thread(target=self._run, name=f"job-{mine.job_id}", daemon=True)
        self._attempt: Attempt | None = None
        self._canceled = self._stopped = False
        self._pending: list[Line] = []  # read from the spool, not stored yet
        self._said: list[str] = []  # what Ansible says beside its tasks, for a play that never began
        self._recap = False
        self._goes_on = ""  # set when the stop play could not end what runs on the hosts

    @property
    def operation(self) -> Operation:
        """The job's operation; KeyError, and a failed job, where an older version does not know it."""
        return OPERATIONS[self.mine.operation]

    def cancel(self) -> None:
        """End the play, once; what goes on at its hosts is ended after it."""
        if not self._canceled:
            self._canceled = True
            attempt = self._attempt
            if attempt and attempt.spec.phase == "main":  # the other one ends what the first began
                attempt.cancel()

    def stop(self) -> None:
        """End everything because the worker stops."""
        self._stopped = True
        if attempt := self._attempt:
            attempt.stop()

    def _run(self) -> None:
        try:
            self._go()
        except LeaseLost:
            log.warning("job %s: its lease was lost", self.mine.job_id)
            self._forget()  # who judged the attempt has stored what it said
        except Exception:
            log.exception("job %s stumbled", self.mine.job_id)
            self._fail("An unexpected error: look into the controller's log, then retry.")
        finally:
            self.bell.ring()

    def _go(self) -> None:
        canceling = self._step(lambda _, job: job.state == "canceling")
        result: Result | None
        if canceling:
            self._canceled = True
            result = Result("canceled", None)
        else:
            result = self._play(stop=False)
        if result is None:
            return  # it could not begin, and the job says so
        if result.reason in ("canceled", "timeout") and self.operation.stop_playbook:
            ended = self._play(stop=True)
            if ended is not None and ended.reason in ("stopped", "killed", "worker-lost"):
                result = ended
            elif ended is not None and ended.code != 0:
                self._goes_on = GOES_ON
        final = result
        self._step(lambda session, job: self._conclude(session, job, final))
        self._forget()

    def _forget(self) -> None:
        forget_plays(self.settings.home, self.mine.job_id, self.mine.attempt)

    def _play(self, *, stop: bool) -> Result | None:
        """Run one play to its end. None when there was nothing to run; a main play then failed."""
        try:
            spec = self._step(
                lambda session, _: variables.play(session, self.settings, self.operation, self.mine, stop=stop)
            )
            attempt = attempts.start(spec, self.settings.home) if spec else None
            fault = ""
        except (Problem, security.CannotOpen, ValueError, OSError) as error:
            attempt, fault = None, str(error)
        if attempt is None or spec is None:
            if not stop:
                self._fail(f"The job could not begin: {fault or 'its hosts are gone'}")
            elif fault:
                log.warning("job %s: its hosts cannot be told to stop: %s", self.mine.job_id, fault)
                self._goes_on = GOES_ON
            return None
        self._attempt = attempt
        if self._stopped:
            attempt.stop()
        elif self._canceled and not stop:
            attempt.cancel()
        try:
            return self._follow(attempt, spec)
        except BaseException:
            attempt.stop()
            attempt.wait(60)
            attempt.finish()
            raise
        finally:
            self._attempt = None

    def _follow(self, attempt: Attempt, spec: Spec) -> Result:
        """Store what the play says and renew the lease until it has ended."""
        renewed = time.monotonic()
        while not attempt.wait(BATCH):
            self._ingest(attempt, spec)
            if time.monotonic() - renewed > self.settings.lease_seconds / 5:
                renewed = self._renew(attempt, renewed)
        result = attempt.finish()
        if errors := attempts.read_errors(self.settings.home, spec.name):
            log.warning("job %s: its play said: %s", self.mine.job_id, errors)
        while self._ingest(attempt, spec):
            pass
        return result

    def _renew(self, attempt: Attempt, before: float) -> float:
        started = time.monotonic()
        try:
            with self.database.session() as session:
                queue.renew(session, self.mine, self.settings.lease_seconds)
        except OperationalError as error:
            log.warning("job %s: its lease could not be renewed: %s", self.mine.job_id, error.orig)
            return before
        attempt.renew()
        return started

    def _ingest(self, attempt: Attempt, spec: Spec) -> bool:
        """Store a batch; return whether there may be more. What the database did not take is kept."""
        if not self._pending:
            self._pending = attempt.spool.read()
            if spec.phase == "main":
                self._listen(self._pending)
        if not self._pending:
            return False
        try:
            with self.database.session() as session:
                job = queue.held(session, self.mine)
                self._store(session, job, spec)
        except OperationalError as error:
            log.warning("job %s: events wait for the database: %s", self.mine.job_id, error.orig)
            time.sleep(BATCH)
            return True
        self._pending = []
        return True

    def _listen(self, lines: list[Line]) -> None:
        for line in lines:
            self._recap = self._recap or "stats" in line
            if line.get("k") in ("note", "warning"):
                self._said = [*self._said, line["text"]][-ERRORS_KEPT:]

    def _store(self, session: Session, job: Job, spec: Spec) -> None:
        key = "" if spec.check else self.operation.done_key
        for row in progress.store(session, job, self._pending, hosts=spec.phase == "main", done_key=key):
            take_over(session, self.operation, job, row)

    def _conclude(self, session: Session, job: Job, result: Result) -> None:
        why = {
            "stopped": "the controller was stopped",
            "killed": "its supervisor was killed",
            "worker-lost": "its lease was not renewed in time",
        }
        if result.reason in why:
            queue.give_up(session, job, why[result.reason], idempotent=self.operation.idempotent)
        elif result.reason == "canceled":
            text = f"Canceled by {job.canceled_by}.{self._goes_on}"
            queue.finish(session, job, "canceled", text, "canceled")
        elif result.reason == "timeout":
            text = f"It did not end within {job.timeout} s: look at its hosts, then retry.{self._goes_on}"
            queue.finish(session, job, "timed_out", text, "timeout")
        else:
            queue.finish(session, job, *self._outcome(session, job, result))

    def _outcome(self, session: Session, job: Job, result: Result) -> tuple[str, str, str]:
        """Return state, error and error type of a play that ended by itself."""
        rows = session.scalars(select(JobHost).where(JobHost.job_id == job.id).order_by(JobHost.name)).all()
        failed = [row for row in rows if row.state in ("failed", "unreachable")]
        if not self._recap or (result.code and not failed):
            for row in rows:
                if row.state == "running":
                    row.state = "failed"
            said = [text for text in self._said if "ERROR" in text] or self._said
            text = "\n".join(said) or f"Ansible ended with {result.code} and said nothing."
            return "failed", text, "play-failed"
        if failed:
            first, others = failed[0], len(failed) - 1
            text = f"{first.name}: {first.error or first.state}" + (f" (and {others} more)" if others else "")
            some = any(row.state in ("ok", "changed") and row.is_target for row in rows)
            return ("partial" if some else "failed"), text, "hosts-failed"
        if not any(row.state in ("ok", "changed") for row in rows):
            return "failed", "The play did nothing on any of its hosts.", "nothing-done"
        return "succeeded", "", ""

    def _fail(self, text: str) -> None:
        try:
            self._step(lambda session, job: queue.finish(session, job, "failed", text, "play-failed"))
        except LeaseLost:
            log.warning("job %s: its lease was lost", self.mine.job_id)
        self._forget()

    def _step(self, act: Callable[[Session, Job], T]) -> T:
        """Do one thing to the job in one transaction, while the attempt is the job's; wait for the database."""
        while True:
            try:
                with self.database.session() as session:
                    return act(session, queue.held(session, self.mine))
            except OperationalError as error:
                if self._stopped:
                    raise
                log.warning("job %s waits for the database: %s", self.mine.job_id, error.orig)
                time.sleep(1)


def forget_plays(home: Path, job_id: uuid.UUID, attempt: int) -> None:
    """Remove the spools and results of an attempt's plays, once they are stored."""
    for phase in ("main", "stop"):
        attempts.forget(home, f"{job_id.hex}.{attempt}.{phase}")


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
