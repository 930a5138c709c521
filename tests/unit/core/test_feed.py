"""The change feed: each reader gets its tenant's topics, from any thread, once."""

import asyncio
import threading
import uuid

from saveos.core.database import Database, touch
from saveos.core.feed import Feed

OURS, THEIRS = uuid.uuid4(), uuid.uuid4()


def test_topics_reach_the_tenants_readers_once():
    async def scenario():
        feed = Feed()
        async with feed.subscribe(OURS) as reader, feed.subscribe(THEIRS) as other:
            publish = [(OURS, "hosts"), (OURS, "hosts"), (OURS, "jobs")]
            publisher = threading.Thread(target=feed.publish_all, args=(publish,))
            publisher.start()
            publisher.join()  # so that all is on its way before the reader looks
            assert await reader.wait(5) == {"hosts", "jobs"}
            assert await reader.wait(0.01) == await other.wait(0.01) == frozenset()
        feed.publish(OURS, "hosts")  # nobody listens any more

    asyncio.run(scenario())


def test_a_unit_of_work_tells_its_topics_after_the_commit_only():
    database = Database("sqlite://", b"k" * 32)
    told = []
    database.after_commit.append(told.append)
    with database.session() as session:
        touch(session, OURS, "hosts")
        touch(session, OURS, "hosts")
        assert told == []
    assert told == [frozenset({(OURS, "hosts")})]
    try:
        with database.session() as session:
            touch(session, OURS, "jobs")
            raise LookupError
    except LookupError:
        pass
    assert len(told) == 1
    database.close()
