"""A job's log: events in compressed chunks, many to a row, read back by event number."""

import json
import uuid
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from saveos.jobs.models import Job, JobLog
from saveos.runner.events import Line, note

KEPT = ("n", "t", "k", "h", "task", "text")
MAX_COUNT = 5000


def append(session: Session, job: Job, events: Sequence[Line]) -> None:
    """Store events, numbered on from the job's last, as one chunk."""
    if not events:
        return
    kept = [{key: event[key] for key in KEPT} for event in events]
    data = zlib.compress("\n".join(json.dumps(each, separators=(",", ":")) for each in kept).encode(), 6)
    session.add(JobLog(job_id=job.id, first=kept[0]["n"], last=kept[-1]["n"], data=data))
    job.events = kept[-1]["n"]
    job.log_bytes += len(data)


def say(session: Session, job: Job, text: str) -> None:
    """Add a sentence of the controller's own. Only while no play of the job runs."""
    append(session, job, [note(text) | {"n": job.events + 1}])


def read(session: Session, job_id: uuid.UUID, start: int, count: int) -> list[Line]:
    """Return up to `count` events from number `start` on."""
    chunks = session.execute(
        select(JobLog.first, JobLog.data)
        .where(JobLog.job_id == job_id, JobLog.last >= start, JobLog.first < start + count)
        .order_by(JobLog.first)
    )
    events: list[Line] = []
    for _, data in chunks:
        events += (json.loads(line) for line in zlib.decompress(data).decode().split("\n"))
    return [event for event in events if start <= event["n"] < start + count]


def as_text(events: Sequence[Line]) -> str:
    """Return events as plain text, one line and its continuation lines each."""
    return "".join(f"{_line(event)}\n" for event in events)


def _line(event: Line) -> str:
    at = datetime.fromtimestamp(event["t"], UTC).strftime("%H:%M:%S")
    if event["k"] in ("play", "task"):
        return f"{at} {event['k'].upper()} {event['text']}"
    head = " ".join(filter(None, (at, event["k"], event["h"], f"[{event['task']}]" if event["task"] else "")))
    text = event["text"].replace("\n", "\n    ")
    return f"{head}: {text}" if text else head
