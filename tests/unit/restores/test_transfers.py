"""Both ends of a transfer meet in bounded memory, and the failure of one ends the other."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from saveos.core.errors import Conflict, TooSlow
from saveos.restores import transfers
from saveos.restores.transfers import Broken, Transfer, Transfers


async def pieces(*sizes: int, log: list[int] | None = None) -> AsyncIterator[bytes]:
    for number, size in enumerate(sizes):
        if log is not None:
            log.append(number)
        yield bytes([number % 256]) * size


async def both(transfer: Transfer, *sizes: int) -> tuple[bytes, None]:
    async def read() -> bytes:
        assert await transfer.begun(5)
        return b"".join([piece async for piece in transfer.read()])

    return await asyncio.gather(read(), transfer.send(pieces(*sizes), "tar"))


@pytest.mark.parametrize("sizes", [(), (1,), (200_000, 3), (65_536,) * 40])
def test_what_is_sent_is_what_is_read(sizes: tuple[int, ...]) -> None:
    transfer = Transfer()
    read, _ = asyncio.run(both(transfer, *sizes))
    assert len(read) == transfer.sent == sum(sizes)
    assert transfer.complete


def test_a_host_is_held_back_where_nobody_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "STILL_SECONDS", 0.2)
    log: list[int] = []

    async def story() -> Transfer:
        transfer = Transfer()
        sending = asyncio.create_task(transfer.send(pieces(*([65_536] * 1000), log=log), "tar"))
        assert await transfer.begun(5)
        with pytest.raises(Conflict, match="took nothing"):
            await sending
        with pytest.raises(Broken, match="took nothing"):
            [piece async for piece in transfer.read()]
        return transfer

    asyncio.run(story())
    assert len(log) <= transfers.QUEUED + 2


def test_a_reader_that_leaves_ends_the_host_s_end() -> None:
    async def story() -> None:
        transfer = Transfer()
        sending = asyncio.create_task(transfer.send(pieces(*([65_536] * 1000)), "tar"))
        assert await transfer.begun(5)
        async for _ in transfer.read():
            break
        transfer.leave()
        with pytest.raises(Conflict, match="went away"):
            await sending

    asyncio.run(story())


def test_a_host_that_breaks_off_is_no_end() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"some"
        raise OSError("gone")

    async def story() -> None:
        transfer = Transfer()
        sending = asyncio.create_task(transfer.send(broken(), "tar"))
        assert await transfer.begun(5)
        with pytest.raises(Broken, match="broke off"):
            [piece async for piece in transfer.read()]
        with pytest.raises(OSError, match="gone"):
            await sending

    asyncio.run(story())


def test_a_host_that_nobody_reads_gives_up_and_says_what_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "READER_SECONDS", 0.1)
    with pytest.raises(TooSlow, match="several controller processes"):
        asyncio.run(Transfer().send(pieces(1), "tar"))


def test_there_is_one_reader_and_one_host() -> None:
    async def story() -> None:
        transfer = Transfer()
        assert not await transfer.begun(0)
        sending = asyncio.create_task(transfer.send(pieces(*([65_536] * 1000)), "tar"))
        assert await transfer.begun(5)
        with pytest.raises(Conflict, match="read already"):
            await transfer.begun(5)
        with pytest.raises(Conflict, match="begun already"):
            await transfer.send(pieces(1), "tar")
        sending.cancel()

    asyncio.run(story())


def test_a_slow_trickle_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that takes a little now and then would hold the host's lock for ever."""
    monkeypatch.setattr(transfers, "FLOOR_AFTER", 0.3)
    monkeypatch.setattr(transfers, "FLOOR", 100 * 1024 * 1024)

    async def trickle(transfer: Transfer) -> None:
        with pytest.raises(Broken, match="takes less than"):
            async for _ in transfer.read():
                await asyncio.sleep(0.05)

    async def story() -> None:
        transfer = Transfer()
        sending = asyncio.create_task(transfer.send(pieces(*([65_536] * 1000)), "tar"))
        assert await transfer.begun(5)
        reading = asyncio.create_task(trickle(transfer))
        with pytest.raises(Conflict, match="takes less than"):
            await sending
        await reading

    asyncio.run(story())


def test_transfers_are_forgotten() -> None:
    import uuid

    known, one = Transfers(), uuid.uuid4()
    first = known.of(one)
    assert known.of(one) is first
    known.forget(one)
    assert known.of(one) is not first
