"""The two ends of a transfer as requests: what a host sends, and what its reader gets."""

import re
import time
import uuid
from collections.abc import AsyncIterator
from typing import cast

from fastapi import Request
from fastapi.responses import StreamingResponse
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from saveos.accounts.access import Actor
from saveos.accounts.service import check_content, record
from saveos.archives.models import Archive
from saveos.core.errors import Conflict, NotFound, Unavailable
from saveos.core.web import State
from saveos.hosts.models import Host
from saveos.jobs.models import ACTIVE, Job, JobHost
from saveos.restores.models import Restore
from saveos.restores.schemas import Form
from saveos.restores.service import get_restore
from saveos.restores.transfers import APART, Broken, Transfer, Transfers

TEXT_BYTES = 4 * 1024 * 1024  # of a text that is held whole; a host sends far less
PERSON_SECONDS = 120.0  # a person's request waits so long for the host to begin
AGENT_SECONDS = 20.0  # an agent asks again
LOOK_SECONDS = 2.0  # between looks at whether the job still goes on
UNDER_WAY = ("queued", "running")
TYPES = {"tar": "application/x-tar", "tar.gz": "application/gzip", "tar.zst": "application/zstd"}
TYPES["diff"] = TYPES["txt"] = "text/plain; charset=utf-8"


def transfers(state: State) -> Transfers:
    """Return where this process's transfers meet."""
    return cast(Transfers, state.transfers)


async def take(request: Request, state: State, actor: Actor, restore_id: uuid.UUID, form: Form) -> None:
    """Pass on what a host sends until it ends. Raises NotFound, Conflict, TooSlow, Forbidden."""
    await run_in_threadpool(_check_sender, state, actor, restore_id)
    meeting = transfers(state)
    transfer = meeting.of(restore_id)
    try:
        await transfer.send(_received(request), form)
    finally:
        if not transfer.reading.is_set():
            meeting.forget(restore_id)
        await run_in_threadpool(_note_sent, state, restore_id, transfer)


async def _received(request: Request) -> AsyncIterator[bytes]:
    try:
        async for piece in request.stream():
            if piece:
                yield piece
    except ClientDisconnect:
        raise Conflict("the host stopped sending: ask for it anew") from None


def _check_sender(state: State, actor: Actor, restore_id: uuid.UUID) -> None:
    with state.database.session() as session:
        restore = get_restore(session, actor.tenant_id, restore_id)
        if actor.host_id is None or restore.host_id != actor.host_id or restore.kind == "host":
            raise NotFound("this host has nothing to send for that transfer")
        check_content(session, actor.tenant_id)
        _check_active(session, restore, restore.target_host_id)


def _check_active(session: Session, restore: Restore, other: uuid.UUID | None) -> None:
    """Raise Conflict when the job is over, or the other end's host is done with it; its sentence says why."""
    job = session.get_one(Job, restore.job_id)
    rows = list(session.scalars(select(JobHost).where(JobHost.job_id == job.id).order_by(JobHost.name)))
    over = [row for row in rows if row.host_id == other and row.state not in UNDER_WAY]
    if job.state in ACTIVE and not over:
        return
    told = "; ".join(f"{row.name}: {row.error}" for row in rows if row.error) or job.error
    reason = f" ({told})" if told else ""
    state = over[0].state if over else job.state
    raise Conflict(f"nothing more comes from job {job.id}, which is {state}{reason}: ask for a new one")


def _note_sent(state: State, restore_id: uuid.UUID, transfer: Transfer) -> None:
    with state.database.session(writes=True) as session:
        restore = session.get(Restore, restore_id)
        if restore is not None and restore.kind == "download":
            restore.outcome = (restore.outcome or {}) | {"form": transfer.form, "sent": transfer.sent}


class Content(StreamingResponse):
    """What a reader gets. Where the host's end breaks off, so does the answer: never as if it were whole."""

    def __init__(self, meeting: Transfers, restore_id: uuid.UUID, transfer: Transfer, name: str) -> None:
        self.meeting, self.restore_id, self.transfer = meeting, restore_id, transfer
        shown = "inline" if transfer.form in ("diff", "txt") else "attachment"  # text, whatever a file holds
        headers = {
            "Content-Disposition": f'{shown}; filename="{name}.{transfer.form}"',
            "X-Content-Type-Options": "nosniff",
            "X-Accel-Buffering": "no",
            "X-SaveOS-Form": transfer.form,
        }
        super().__init__(transfer.read(), media_type=TYPES[transfer.form], headers=headers)

    async def text(self) -> str:
        """Read it whole, as text, in place of sending it. Raises Conflict where not all of it comes."""
        held = bytearray()
        try:
            async for piece in self.transfer.read():
                held += piece
                if len(held) > TEXT_BYTES:
                    raise Conflict("the host sent more than a small text: restore the file to look at it")
        except Broken as error:
            raise Conflict(f"the text did not come whole: {error}") from None
        finally:
            self.transfer.leave()
            self.meeting.forget(self.restore_id)
        return held.decode(errors="replace")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; whatever happens, the host's end hears of it."""
        try:
            await super().__call__(scope, receive, send)
        except* (Broken, ClientDisconnect):
            pass  # the server closes a connection whose answer has no end
        finally:
            self.transfer.leave()
            self.meeting.forget(self.restore_id)


async def give(state: State, actor: Actor, restore_id: uuid.UUID, *, seconds: float) -> Content | None:
    """Return a transfer's content for its reader; None where the host has not begun after `seconds`.

    Raises NotFound, Conflict (its job is over, or somebody reads it already), Forbidden.
    """
    name = await run_in_threadpool(_check_reader, state, actor, restore_id)
    meeting = transfers(state)
    deadline = time.monotonic() + seconds
    while True:
        transfer = meeting.of(restore_id)
        left = deadline - time.monotonic()
        if await transfer.begun(max(0.0, min(LOOK_SECONDS, left))):
            break
        if left <= 0:
            if not transfer.sending.is_set():
                meeting.forget(restore_id)
            return None
        try:
            await run_in_threadpool(_check_reader, state, actor, restore_id)
        except Conflict:
            meeting.forget(restore_id)
            raise
    await run_in_threadpool(_note_reader, state, actor, restore_id)
    return Content(meeting, restore_id, transfer, name)


def _check_reader(state: State, actor: Actor, restore_id: uuid.UUID) -> str:
    """Return the name of the file for a reader who may have it."""
    with state.database.session() as session:
        restore = get_restore(session, actor.tenant_id, restore_id)
        own = restore.target_host_id == actor.host_id if actor.host_id else restore.kind == "download"
        if not own:
            raise NotFound("there is no content to read: ask for a download (saveos restores download)")
        check_content(session, actor.tenant_id)
        _check_active(session, restore, restore.host_id)
        host, archive = session.get_one(Host, restore.host_id), session.get_one(Archive, restore.archive_id)
        return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{host.name}-{archive.name}")[:150]


def _note_reader(state: State, actor: Actor, restore_id: uuid.UUID) -> None:
    """Say in the audit trail who reads the content, before the first byte."""
    if actor.host_id is not None:
        return
    with state.database.session(writes=True) as session:
        record(
            session, actor.tenant_id, actor.name, "read content", f"restore:{restore_id}", address=actor.address
        )


def not_begun() -> Unavailable:
    """Return why a person waits in vain."""
    return Unavailable(
        f"the host has not begun to send: it may be at another run, so try again; {APART}", type_="not-begun"
    )
