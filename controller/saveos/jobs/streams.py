"""A job's events as they happen: server-sent events that read rows when the feed says that there is news.

A stream holds no thread and no database session while it waits. Everything it sends is in rows, so it
resumes by the number of the last event, also after a restart of the controller.
"""

import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

from starlette.concurrency import run_in_threadpool

from saveos.core.database import Database
from saveos.core.feed import Feed
from saveos.jobs import logs, service
from saveos.jobs.models import FINAL
from saveos.runner.events import Line

PAGE = 1000
KEEP_ALIVE = 15.0  # seconds; a lost notification costs no more than that


async def follow(
    database: Database, feed: Feed, tenant_id: uuid.UUID, job_id: uuid.UUID, after: int
) -> AsyncIterator[str]:
    """Yield frames of a job from event number `after` on until it is final and all is told."""
    topic, told = f"job:{job_id}", ""
    async with feed.subscribe(tenant_id) as subscription:
        while True:
            state, events = await run_in_threadpool(_look, database, tenant_id, job_id, after)
            if events:
                after = events[-1]["n"]
                yield _frame("log", {"start": events[0]["n"], "events": events}, str(after))
            if len(events) == PAGE:
                continue
            if state != told:
                told = state
                yield f"event: state\ndata: {state}\n\n"
            if json.loads(state)["state"] in FINAL:
                yield _frame("end", {})
                return
            topics: frozenset[str] = frozenset()
            while topic not in topics:
                topics = await subscription.wait(KEEP_ALIVE)
                if not topics:
                    yield ": still here\n\n"
                    break


def _look(database: Database, tenant_id: uuid.UUID, job_id: uuid.UUID, after: int) -> tuple[str, list[Line]]:
    with database.session() as session:
        job = service.get_job(session, tenant_id, job_id)
        return service.describe(job).model_dump_json(), logs.read(session, job_id, after + 1, PAGE)


def _frame(event: str, data: Any, identity: str = "") -> str:
    head = f"id: {identity}\n" if identity else ""
    return f"{head}event: {event}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"
