"""What one process commits, every other process hears, on PostgreSQL."""

import time
import uuid

import pytest
from saveos.core.database import Database, touch
from saveos.core.notify import Listener
from sqlalchemy import event

OURS = uuid.uuid4()


@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_topics_of_a_commit_reach_another_process_in_one_statement(database, database_url):
    other = Database(database_url, b"k" * 32)
    told, sent = set(), []
    hearing, telling = Listener(other, [told.update]), Listener(database, [])
    event.listen(database.engine, "before_cursor_execute", lambda *words: sent.append(words[2]))
    wanted = {(OURS, f"host:{number}") for number in range(300)}
    until = time.monotonic() + 30
    try:
        while (OURS, "ready") not in told and time.monotonic() < until:
            with database.session() as session:
                touch(session, OURS, "ready")
            time.sleep(0.05)
        sent.clear()
        with pytest.raises(LookupError), database.session() as session:
            touch(session, OURS, "not committed")
            raise LookupError
        with database.session() as session:
            for topic in wanted:
                touch(session, *topic)
        while not wanted <= told and time.monotonic() < until:
            time.sleep(0.05)
    finally:
        hearing.close()
        telling.close()
        other.close()
    assert told == wanted | {(OURS, "ready")}
    assert len(sent) == 1
