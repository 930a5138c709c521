"""One attempt at a job in the worker: its play, what that says, what it comes to; what a lost one left.

All that an attempt knows is in rows and in its spool, so any worker can judge one that was lost.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from saveos.core import security
from saveos.core.database import Database
from saveos.core.errors import Problem
from saveos.core.settings import Settings
from saveos.jobs import progress, queue
from saveos.jobs.dispatch import Bell
from saveos.jobs.models import Job, JobHost
from saveos.jobs.queue import Claim, LeaseLost
from saveos.maintenance import variables
from saveos.maintenance.operations import OPERATIONS, Operation
from saveos.maintenance.service import take_over
from saveos.runner import attempts
from saveos.runner.attempts import Attempt, Result
from saveos.runner.directory import Spec
from saveos.runner.events import Line

BATCH = 0.25  # seconds between batches of a running job's events
ERRORS_KEPT = 20
GOES_ON = " A run may go on at a host, because it could not be ended there: see the log."

T = TypeVar("T")

log = logging.getLogger(__name__)


class JobAttempt:
    """One claimed attempt, from its play's start to the job's state, in a thread of its own."""

    def __init__(self, settings: Settings, database: Database, bell: Bell, mine: Claim) -> None:
        self.settings = settings
        self.database = database
        self.bell = bell
        self.mine = mine
        self.thread = threading.Thread(target=self._run, name=f"job-{mine.job_id}", daemon=True)
        self._playing: Attempt | None = None
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
            play = self._playing
            if play and play.spec.phase == "main":  # the other one ends what the first began
                play.cancel()

    def stop(self) -> None:
        """End everything because the worker stops."""
        self._stopped = True
        if play := self._playing:
            play.stop()

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
            play = attempts.start(spec, self.settings.home) if spec else None
            fault = ""
        except (Problem, security.CannotOpen, ValueError, OSError) as error:
            play, fault = None, str(error)
        if play is None or spec is None:
            if not stop:
                self._fail(f"The job could not begin: {fault or 'its hosts are gone'}")
            elif fault:
                log.warning("job %s: its hosts cannot be told to stop: %s", self.mine.job_id, fault)
                self._goes_on = GOES_ON
            return None
        self._playing = play
        if self._stopped:
            play.stop()
        elif self._canceled and not stop:
            play.cancel()
        try:
            return self._follow(play, spec)
        except BaseException:
            play.stop()
            play.wait(60)
            play.finish()
            raise
        finally:
            self._playing = None

    def _follow(self, play: Attempt, spec: Spec) -> Result:
        """Store what the play says and renew the lease until it has ended."""
        renewed = time.monotonic()
        while not play.wait(BATCH):
            self._ingest(play, spec)
            if time.monotonic() - renewed > self.settings.lease_seconds / 5:
                renewed = self._renew(play, renewed)
        result = play.finish()
        if errors := attempts.read_errors(self.settings.home, spec.name):
            log.warning("job %s: its play said: %s", self.mine.job_id, errors)
        while self._ingest(play, spec):
            pass
        return result

    def _renew(self, play: Attempt, before: float) -> float:
        started = time.monotonic()
        try:
            with self.database.session() as session:
                queue.renew(session, self.mine, self.settings.lease_seconds)
        except OperationalError as error:
            log.warning("job %s: its lease could not be renewed: %s", self.mine.job_id, error.orig)
            return before
        play.renew()
        return started

    def _ingest(self, play: Attempt, spec: Spec) -> bool:
        """Store a batch; return whether there may be more. What the database did not take is kept."""
        if not self._pending:
            self._pending = play.spool.read()
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
        """Do one thing to the job in one transaction, while the play is the job's; wait for the database."""
        while True:
            try:
                with self.database.session() as session:
                    return act(session, queue.held(session, self.mine))
            except OperationalError as error:
                if self._stopped:
                    raise
                log.warning("job %s waits for the database: %s", self.mine.job_id, error.orig)
                time.sleep(1)


def salvage(home: Path, session: Session, job: Job) -> None:
    """Store what a lost attempt still said, where its spool is on this machine."""
    spool = attempts.Spool(attempts.spool_path(home, f"{job.id.hex}.{job.attempt}.main"))
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
    forget_plays(home, job.id, job.attempt)


def forget_plays(home: Path, job_id: uuid.UUID, attempt: int) -> None:
    """Remove the spools and results of an attempt's plays, once they are stored."""
    for phase in ("main", "stop"):
        attempts.forget(home, f"{job_id.hex}.{attempt}.{phase}")
