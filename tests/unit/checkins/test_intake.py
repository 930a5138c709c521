"""The intake: one transaction for many hosts, and one host's trouble stays its own."""

import asyncio
import json
import threading
import time
import uuid
from contextlib import asynccontextmanager

import pytest
from saveos.accounts.service import revoke_agent_tokens, set_agent_token
from saveos.checkins import intake as module
from saveos.checkins import service
from saveos.checkins.intake import Intake
from saveos.checkins.models import Run
from saveos.core.errors import Forbidden, Invalid, Unauthenticated, Unavailable
from saveos.core.security import new_token, token_hash
from saveos.hosts.models import Host
from sqlalchemy import event, func, select
from sqlalchemy.exc import IntegrityError, OperationalError


@pytest.fixture
def tokens(database, tenant_id):
    """Tokens of twenty hosts."""
    made = []
    with database.session(writes=True) as session:
        for number in range(20):
            host = Host(tenant_id=tenant_id, name=f"h{number}", address="x", state="enrolled")
            session.add(host)
            session.flush()
            made.append(new_token("agent"))
            set_agent_token(session, tenant_id, host.id, host.name, token_hash(made[-1]))
    return made


@asynccontextmanager
async def opened(database):
    intake = Intake(database)
    try:
        yield intake
    finally:
        await asyncio.to_thread(intake.close)


def records(*run_ids, **changes):
    told = {"started_at": "2026-01-01T00:00:00Z", "finished_at": "2026-01-01T00:01:00Z", "state": "failed"}
    return json.dumps({"runs": [told | {"run_id": run_id} | changes for run_id in run_ids]}).encode()


def some_id():
    return str(uuid.uuid4())


def stored(database):
    with database.session() as session:
        return session.scalar(select(func.count()).select_from(Run))


async def tell(intake, token, body):
    return await intake.submit(token, "192.0.2.1", body, service.read_records)


def test_what_comes_together_is_stored_in_few_transactions(database, tokens):
    commits = []
    event.listen(database.engine, "commit", commits.append)

    async def story():
        async with opened(database) as intake:
            await asyncio.gather(*(tell(intake, token, records(some_id())) for token in tokens))
            commits.clear()
            return await asyncio.gather(*(tell(intake, token, records(some_id())) for token in tokens * 5))

    outcomes = asyncio.run(story())
    assert [outcome.accepted for outcome in outcomes] == [1] * 100
    assert stored(database) == 120
    assert len(commits) <= 20  # a reading and a writing one each


def test_one_that_cannot_be_read_or_is_unknown_fails_alone(database, tokens, installation):
    async def story():
        async with opened(database) as intake:
            return await asyncio.gather(
                tell(intake, tokens[0], records(some_id())),
                tell(intake, tokens[1], records(some_id(), state="fine")),
                tell(intake, tokens[2], b"{"),
                tell(intake, "agent_nobody", records(some_id())),
                tell(intake, installation.token, records(some_id())),
                tell(intake, tokens[3], records(some_id())),
                return_exceptions=True,
            )

    kinds = [type(outcome) for outcome in asyncio.run(story())]
    assert kinds[1:5] == [Invalid, Invalid, Unauthenticated, Forbidden]
    assert stored(database) == 2


def test_one_that_the_database_refuses_fails_alone(database, tokens, monkeypatch):
    bad = some_id()
    real = module.take_over

    def refuse_one(session, messages):
        found = real(session, messages)
        if any(str(record.run_id) == bad for message in messages for record in message.records):
            raise IntegrityError("INSERT", {}, Exception("refused"))
        return found

    monkeypatch.setattr(module, "take_over", refuse_one)

    async def story():
        async with opened(database) as intake:
            told = [tell(intake, token, records(some_id())) for token in tokens[:9]]
            return await asyncio.gather(*told, tell(intake, tokens[9], records(bad)), return_exceptions=True)

    outcomes = asyncio.run(story())
    assert [outcome.accepted for outcome in outcomes[:9]] == [1] * 9
    assert isinstance(outcomes[9], IntegrityError)
    assert stored(database) == 9


def test_without_a_database_all_hear_of_it_at_once_and_the_next_are_served(database, tokens, monkeypatch):
    real, broken = module.take_over, threading.Event()
    broken.set()

    def fail(session, messages):
        if broken.is_set():
            raise OperationalError("INSERT", {}, Exception("database or disk is full"))
        return real(session, messages)

    monkeypatch.setattr(module, "take_over", fail)

    async def story():
        async with opened(database) as intake:
            told = [tell(intake, token, records(some_id())) for token in tokens]
            first = await asyncio.gather(*told, return_exceptions=True)
            broken.clear()
            return first, await tell(intake, tokens[0], records(some_id()))

    first, then = asyncio.run(story())
    assert {type(each) for each in first} == {OperationalError}
    assert then.accepted == 1 and stored(database) == 1


def test_two_that_tell_of_one_run_at_once_store_it_once(database, tokens):
    run_id = some_id()

    async def story():
        async with opened(database) as intake:
            told = [tell(intake, token, records(run_id)) for token in (tokens[0], tokens[0], tokens[1])]
            return await asyncio.gather(*told)

    outcomes = asyncio.run(story())
    assert sum(outcome.accepted for outcome in outcomes) == 1
    assert stored(database) == 1
    owner = 0 if outcomes[0].accepted + outcomes[1].accepted else 2
    thieves = [outcomes[2]] if owner == 0 else outcomes[:2]
    assert all("another host" in each.refused[0].detail for each in thieves)


def test_a_revoked_token_is_refused_at_once(database, tokens, tenant_id):
    async def story():
        async with opened(database) as intake:
            await tell(intake, tokens[0], records(some_id()))
            with database.session(writes=True) as session:
                host = session.scalars(select(Host).where(Host.name == "h0")).one()
                revoke_agent_tokens(session, tenant_id, [host.id])
            with pytest.raises(Unauthenticated):
                await tell(intake, tokens[0], records(some_id()))

    asyncio.run(story())
    assert stored(database) == 1


def test_too_much_that_waits_is_refused_and_one_alone_does_not_wait(database, tokens, monkeypatch):
    monkeypatch.setattr(module, "WAITING_BYTES", 3000)

    async def story():
        async with opened(database) as intake:
            with pytest.raises(Unavailable):
                await tell(intake, tokens[0], b" " * 3000)
            took = []
            for _ in range(3):  # the machine may be busy with something else
                began = time.monotonic()
                await tell(intake, tokens[0], records(some_id()))
                took.append(time.monotonic() - began)
            return took

    assert min(asyncio.run(story())) < 2


def test_closing_stores_what_waits_and_takes_no_more(database, tokens):
    async def story():
        intake = Intake(database)
        told = [asyncio.ensure_future(tell(intake, token, records(some_id()))) for token in tokens]
        await asyncio.sleep(0)
        await asyncio.to_thread(intake.close)
        outcomes = await asyncio.gather(*told)
        with pytest.raises(Unavailable):
            await tell(intake, tokens[0], records(some_id()))
        return outcomes

    assert sum(outcome.accepted for outcome in asyncio.run(story())) == 20
    assert stored(database) == 20
