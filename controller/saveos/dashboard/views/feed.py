"""The change feed as server-sent events, and the collected assets."""

import json
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import FileResponse, Response, StreamingResponse

from saveos.accounts.access import Actor, require
from saveos.core.errors import NotFound
from saveos.core.feed import Feed
from saveos.core.web import StateDep
from saveos.dashboard.rendering import STATIC

router = APIRouter(include_in_schema=False)
KEEP_ALIVE = 20.0
MEDIA = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".woff2": "font/woff2",
}


@router.get("/events")
def follow_changes(
    state: StateDep, actor: Annotated[Actor, Depends(require("hosts:read", audit=False))]
) -> StreamingResponse:
    """Stream the names of the topics that changed; pages fetch what they show themselves."""
    return StreamingResponse(
        _changes(state.feed, actor),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _changes(feed: Feed, actor: Actor) -> AsyncIterator[str]:
    async with feed.subscribe(actor.tenant_id) as subscription:
        yield "retry: 2000\n\n"
        while True:
            topics = await subscription.wait(KEEP_ALIVE)
            for topic in sorted(topics):
                yield f"event: change\ndata: {json.dumps({'topic': topic})}\n\n"
            if not topics:
                yield ": still here\n\n"


@router.get("/static/{path:path}")
def asset(request: Request, path: str) -> Response:
    """Return a collected asset; its URL changes with its content, so it may be kept for ever."""
    file = (STATIC / path).resolve()
    if not file.is_relative_to(STATIC.resolve()) or file.suffix not in MEDIA or not file.is_file():
        raise NotFound("there is no such file: was scripts/assets.py run?")
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
    packed = file.with_name(file.name + ".gz")
    if "gzip" in request.headers.get("accept-encoding", "") and packed.is_file():
        return FileResponse(
            packed, media_type=MEDIA[file.suffix], headers=headers | {"Content-Encoding": "gzip"}
        )
    return FileResponse(file, media_type=MEDIA[file.suffix], headers=headers)
