"""The fast way in for agents: one thread stores what has come in one transaction, then all are answered.

While one batch is being written the next gathers by itself, so a batch is as large as the load asks for; a
letter that comes alone waits for nobody. An answer means that the transaction is on the disk.
See docs/decisions/0010-group-commit.md.
"""

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from saveos.accounts.access import Agent, find_agents, refuse, touch_agents
from saveos.checkins.takeover import Message, Outcome, take_over
from saveos.core.clock import now
from saveos.core.database import Database
from saveos.core.errors import Problem, Unauthenticated, Unavailable
from saveos.core.security import token_hash

BATCH = 200  # messages of one transaction at most
BATCH_BYTES = 2 * 1024 * 1024  # bodies of one transaction at most, but always one
WAITING_BYTES = 64 * 1024 * 1024  # bodies that wait at most
GATHER_SECONDS = 0.005  # how long a batch waits for as many letters as the one before it had
MESSAGE_COST = 1024  # bytes that a message counts beside its body

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Letter:
    """One request of an agent: its token, its body and how to read that, and who waits for the answer."""

    token: str
    address: str
    body: bytes
    read: Callable[[bytes], Any]
    answer: "asyncio.Future[Outcome]"
    at: datetime = field(default_factory=now)
    hash: str = ""

    @property
    def cost(self) -> int:
        """Bytes that it counts while it waits."""
        return len(self.body) + MESSAGE_COST


class Intake:
    """The one writer of what agents tell in this process. Make it in the event loop; close it at stop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._loop = asyncio.get_running_loop()
        self._letters: deque[Letter] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._closed = False
        self._last = 1  # letters of the last batch
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)
        self._thread.start()

    async def submit(self, token: str, address: str, body: bytes, read: Callable[[bytes], Any]) -> Outcome:
        """Store what a body tells and return the outcome when it is durable.

        Raises what is wrong with the token or the body, NotFound for a host that is gone, and Unavailable when
        more is waiting than this machine can store.
        """
        letter = Letter(token, address, body, read, self._loop.create_future())
        letter.hash = token_hash(token)
        with self._changed:
            if self._closed or self._bytes + letter.cost > WAITING_BYTES:
                raise Unavailable("the controller cannot take more at this moment: send it again in a minute")
            self._letters.append(letter)
            self._bytes += letter.cost
            self._changed.notify()
        return await letter.answer

    def close(self) -> None:
        """Store what is waiting, then stop."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(30)

    def _run(self) -> None:
        while batch := self._next():
            try:
                outcomes = self._store(batch)
            except Exception as error:  # the thread must live on; each asker hears of it
                log.exception("storing what agents told failed")
                outcomes = [error] * len(batch)
            with contextlib.suppress(RuntimeError):  # the loop has just closed, nobody waits
                self._loop.call_soon_threadsafe(_answer, batch, outcomes)

    def _next(self) -> list[Letter]:
        """Wait for letters and return a batch of them; none at the end."""
        with self._changed:
            while not self._letters and not self._closed:
                self._changed.wait()
            if len(self._letters) < self._last:
                self._changed.wait_for(lambda: len(self._letters) >= self._last or self._closed, GATHER_SECONDS)
            batch: list[Letter] = []
            size = 0
            while self._letters and len(batch) < BATCH and (not batch or size < BATCH_BYTES):
                letter = self._letters.popleft()
                size += letter.cost
                batch.append(letter)
            self._bytes -= size
            self._last = len(batch)
        return batch

    def _store(self, batch: Sequence[Letter]) -> "list[Outcome | Exception]":
        """Open the letters of agents and store them; return one outcome or error each, in their order."""
        with self._database.session() as session:
            agents = find_agents(session, {letter.hash for letter in batch})
        opened = [self._open(letter, agents.get(letter.hash)) for letter in batch]
        pairs = zip(batch, opened, strict=True)
        stored = iter(
            self._write([(agents[each.hash], told) for each, told in pairs if isinstance(told, Message)])
        )
        return [next(stored) if isinstance(each, Message) else each for each in opened]

    def _open(self, letter: Letter, agent: Agent | None) -> Message | Problem:
        try:
            if agent is None:
                return refuse(self._database, letter.token, letter.address, "checkins:write")
            return Message(agent.tenant_id, agent.host_id, letter.read(letter.body), letter.at)
        except Problem as problem:
            return problem

    def _write(self, good: Sequence[tuple[Agent, Message]]) -> "list[Outcome | Exception]":
        """Store messages in one transaction; when that fails, each in its own, so that one fails alone."""
        if not good:
            return []
        try:
            with self._database.session(writes=True) as session:
                return list(_take(session, good))
        except OperationalError as error:  # the database itself: one by one would fail as well
            log.error("what %d agents told cannot be stored: %s", len(good), error.orig)
            return [error] * len(good)
        except Exception as error:
            if len(good) == 1:
                log.exception("what host %s told cannot be stored", good[0][1].host_id)
                return [error]
        return [outcome for each in good for outcome in self._write([each])]


def _take(session: Session, good: Sequence[tuple[Agent, Message]]) -> list[Outcome]:
    outcomes = take_over(session, [message for _, message in good])
    touch_agents(session, [agent for agent, _ in good])
    return outcomes


def _answer(batch: Sequence[Letter], outcomes: "Sequence[Outcome | Exception]") -> None:
    for letter, outcome in zip(batch, outcomes, strict=True):
        if letter.answer.done():  # its asker has gone
            continue
        if isinstance(outcome, Exception):
            letter.answer.set_exception(outcome)
        else:
            letter.answer.set_result(outcome)


def bearer(authorization: str) -> str:
    """Return the token of an Authorization header. Raises Unauthenticated without one."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthenticated("send the agent's token as: Authorization: Bearer TOKEN")
    return token.strip()
