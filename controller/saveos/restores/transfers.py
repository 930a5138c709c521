"""Transfers: content of an archive on its way through this process's memory, from a host to whoever reads it.

Both ends come to the controller: the host sends, and a person or another host reads. They meet here, in the
memory of one process; nothing of the content touches a disk or a log. What waits between them is bounded, so a
slow reader slows the host down, and one that stands still, or is gone, ends the host's end. Where there are
several processes, both ends must reach the same one; the sentences of those who wait in vain say so.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from saveos.core.errors import Conflict, TooSlow

QUEUED = 16  # pieces between the two ends; a server's piece is 64 KiB at the most
PIECE = 64 * 1024  # bytes
READER_SECONDS = 120.0  # a host that has begun waits so long for its reader
STILL_SECONDS = 60.0  # a reader that takes nothing for so long is given up
FLOOR = 8 * 1024  # bytes a second that a reader takes at least
FLOOR_AFTER = 300.0  # seconds before that counts
SILENT_SECONDS = 900.0  # a host that sends nothing for so long is given up
APART = "where several controller processes serve, both ends must reach the same one (docs/how-to/restore.md)"


class Broken(Exception):
    """The other end failed; the sentence says how."""


@dataclass
class Transfer:
    """One transfer. `form` is how the content is packed: tar, tar.gz or tar.zst."""

    pieces: asyncio.Queue[bytes] = field(default_factory=lambda: asyncio.Queue(QUEUED))
    sending: asyncio.Event = field(default_factory=asyncio.Event)
    reading: asyncio.Event = field(default_factory=asyncio.Event)
    form: str = ""
    sent: int = 0  # bytes
    began: float = 0.0
    waited: float = 0.0  # seconds that the host waited for its reader
    complete: bool = False
    fault: str = ""  # why it ended before its time

    @property
    def ended(self) -> bool:
        """Whether nothing more comes."""
        return self.complete or bool(self.fault)

    async def send(self, content: AsyncIterator[bytes], form: str) -> None:
        """The host's end. Raises Conflict for a second one or a reader that fails, TooSlow without one."""
        if self.sending.is_set():
            raise Conflict("this transfer was begun already: ask for it anew")
        self.form = form
        self.sending.set()
        try:
            await self._wait_for_reader()
            self.began = time.monotonic()
            async for data in content:
                for at in range(0, len(data), PIECE):
                    await self._put(data[at : at + PIECE])
            self.complete = True
        except BaseException as error:
            self.fault = self.fault or f"the host's end broke off ({type(error).__name__})"
            raise
        finally:
            if not self.pieces.full():  # wakes a reader that waits for the next piece
                self.pieces.put_nowait(b"")

    async def _wait_for_reader(self) -> None:
        try:
            async with asyncio.timeout(READER_SECONDS):
                await self.reading.wait()
        except TimeoutError:
            self.fault = "nobody came to read it"
            raise TooSlow(f"nobody read this transfer within {READER_SECONDS:.0f} seconds; {APART}") from None

    async def _put(self, piece: bytes) -> None:
        if not self.fault:
            asked = time.monotonic()
            try:
                async with asyncio.timeout(STILL_SECONDS):
                    await self.pieces.put(piece)
            except TimeoutError:
                self.fault = f"its reader took nothing for {STILL_SECONDS:.0f} seconds"
            at = time.monotonic()
            self.waited += at - asked
            seconds = at - self.began
            if seconds > FLOOR_AFTER and self.waited > seconds / 2 and self.sent < FLOOR * seconds:
                self.fault = f"its reader takes less than {FLOOR // 1024} KiB a second"
        if self.fault:
            raise Conflict(f"the transfer was given up: {self.fault}")
        self.sent += len(piece)

    async def begun(self, seconds: float) -> bool:
        """Take the reader's end and wait for the host's, which has then begun. Raises Conflict for a second."""
        if self.ended or (self.reading.is_set() and self.sending.is_set()):
            raise Conflict("this transfer is read already, or over: ask for it anew")
        try:
            async with asyncio.timeout(seconds):
                await self.sending.wait()
        except TimeoutError:
            return False
        if self.reading.is_set():
            raise Conflict("this transfer is read already: ask for it anew")
        self.reading.set()
        return True

    async def read(self) -> AsyncIterator[bytes]:
        """Yield the content. Raises Broken where not all of it came."""
        while not (self.ended and self.pieces.empty()):
            try:
                async with asyncio.timeout(SILENT_SECONDS):
                    piece = await self.pieces.get()
            except TimeoutError:
                self.fault = f"the host sent nothing for {SILENT_SECONDS:.0f} seconds"
                break
            if piece:
                yield piece
        if not self.complete:
            raise Broken(self.fault or "the host's end broke off")

    def leave(self) -> None:
        """The reader is gone: where that is too early, end the host's end."""
        if not self.ended:
            self.fault = "its reader went away"
        while not self.pieces.empty():  # wakes a host that waits for room
            self.pieces.get_nowait()


class Transfers:
    """The transfers of this process, by the restore they belong to."""

    def __init__(self) -> None:
        self._known: dict[uuid.UUID, Transfer] = {}

    def of(self, restore_id: uuid.UUID) -> Transfer:
        """Return a restore's transfer; whoever comes first makes it."""
        return self._known.setdefault(restore_id, Transfer())

    def forget(self, restore_id: uuid.UUID) -> None:
        """Drop a transfer that is over."""
        self._known.pop(restore_id, None)
