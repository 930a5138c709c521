"""The change feed: says which topic of a tenant changed, never what. Readers fetch that themselves."""

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager


class Subscription:
    """One reader's topics since it last looked; bounded, because a topic is kept once."""

    def __init__(self, tenant_id: uuid.UUID) -> None:
        self.tenant_id = tenant_id
        self._loop = asyncio.get_running_loop()
        self._topics: set[str] = set()
        self._changed = asyncio.Event()

    async def wait(self, seconds: float) -> frozenset[str]:
        """Return the topics that changed, at once when there are some; none after `seconds`."""
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except TimeoutError:
            return frozenset()
        self._changed.clear()
        topics, self._topics = frozenset(self._topics), set()
        return topics

    def _add(self, topic: str) -> None:
        self._topics.add(topic)
        self._changed.set()

    def _tell(self, topic: str) -> None:
        try:
            self._loop.call_soon_threadsafe(self._add, topic)
        except RuntimeError:
            pass  # the reader's loop has just closed


class Feed:
    """Broadcasts topics to the readers in this process; any thread may publish."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()
        self._lock = threading.Lock()

    def publish(self, tenant_id: uuid.UUID, topic: str) -> None:
        """Tell every reader of this tenant that `topic` changed. Call it after the commit."""
        with self._lock:
            readers = [each for each in self._subscriptions if each.tenant_id == tenant_id]
        for reader in readers:
            reader._tell(topic)

    def publish_all(self, topics: Iterable[tuple[uuid.UUID, str]]) -> None:
        """Publish several topics; fits `Database.after_commit`."""
        for tenant_id, topic in topics:
            self.publish(tenant_id, topic)

    @asynccontextmanager
    async def subscribe(self, tenant_id: uuid.UUID) -> AsyncIterator[Subscription]:
        """Subscribe to a tenant's topics until the block ends."""
        subscription = Subscription(tenant_id)
        with self._lock:
            self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            with self._lock:
                self._subscriptions.discard(subscription)
