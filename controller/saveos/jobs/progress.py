"""From a play's spool lines to rows: the log's next chunk and what each host of the job has come to."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from saveos.core.clock import now
from saveos.core.database import touch
from saveos.jobs import logs, queue
from saveos.jobs.models import Job, JobHost
from saveos.runner.events import Line

MAX_TASKS = 200
MAX_ERROR = 2000
LEFT_ALONE = "It was left alone, since a host before it failed: mend that one, then retry the job."
TASK_STATES = frozenset({"ok", "changed", "failed", "unreachable", "skipped", "ignored"})


def store(
    session: Session, job: Job, lines: Sequence[Line], *, hosts: bool = True, done_key: str = ""
) -> list[JobHost]:
    """Store a batch of spool lines; return the hosts that got a result or came to their end.

    The caller holds the job. Lines that are stored already are passed over, so a spool may be read
    again from its start. A host whose result holds `done_key` is done with it.
    """
    fresh = [line for line in lines if line.get("n", job.events + 1) > job.events]
    logs.append(session, job, [line for line in fresh if "n" in line])
    if fresh:
        touch(session, job.tenant_id, f"job:{job.id}")
    return _apply(session, job, fresh, done_key) if hosts else []


def _apply(session: Session, job: Job, lines: Iterable[Line], done_key: str) -> list[JobHost]:
    rows = {row.name: row for row in _rows(session, job, lines)}
    told: dict[str, JobHost] = {}
    before = {name: row.state for name, row in rows.items()}
    for line in lines:
        if "stats" in line:
            for name, counts in line["stats"].items():
                if name in rows:
                    _recap(rows[name], counts, done_key)
                    told[name] = rows[name]
        elif (row := rows.get(line.get("start") or line.get("h") or "")) and _event(row, line, done_key):
            told[row.name] = row
    if any(row.state != before[name] for name, row in rows.items()):
        queue.count_hosts(session, job)
        touch(session, job.tenant_id, "jobs")
    return list(told.values())


def _rows(session: Session, job: Job, lines: Iterable[Line]) -> Sequence[JobHost]:
    names: set[str] = set()
    for line in lines:
        names |= {line.get("start", ""), line.get("h", ""), *line.get("stats", ())}
    names.discard("")
    if not names:
        return []
    return session.scalars(select(JobHost).where(JobHost.job_id == job.id, JobHost.name.in_(names))).all()


def merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return `old` with `new` merged in, dictionaries inside them too."""
    merged = dict(old)
    for key, value in new.items():
        inner = merged.get(key)
        merged[key] = merge(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def _event(row: JobHost, line: Line, done_key: str) -> bool:
    """Apply one event to its host; return whether there is news for the operation's result handler."""
    row.started_at = row.started_at or now()
    if row.state == "queued":
        row.state = "running"
    kind = line.get("k", "")
    if kind in TASK_STATES and len(row.tasks) < MAX_TASKS:
        row.tasks = [*row.tasks, [line["task"], kind]]
    news = False
    if result := line.get("r"):
        row.result = merge(row.result, result)
        news = True
    if kind in ("failed", "unreachable"):
        _end(row, kind, line["text"])
        news = True
    elif done_key and done_key in (line.get("r") or {}):
        _end(row, "changed" if kind == "changed" else "ok")
    return news


def _recap(row: JobHost, counts: dict[str, Any], done_key: str) -> None:
    row.counts = counts
    if counts["unreachable"]:
        state = "unreachable"
    elif counts["failed"]:
        state = "failed"
    elif counts["changed"]:
        state = "changed"
    else:
        state = "ok" if counts["ok"] else "skipped"
    error = row.error if state in ("failed", "unreachable") else ""
    # a play that goes host by host ended before it; a server that only came along tells nothing
    if state == "ok" and done_key and row.is_target and not row.result:
        state, error = "canceled", LEFT_ALONE
    _end(row, state, error)


def _end(row: JobHost, state: str, error: str = "") -> None:
    row.state = state
    row.error = error[:MAX_ERROR]
    row.finished_at = row.finished_at or now()
