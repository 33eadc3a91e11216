"""Streams: whole, broken off, given up, and never ahead of who takes them."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from lictor.model.errors import NotFound
from lictor.model.transport import Caller, Unreachable
from lictor.rpc.credit import PIECE, WINDOW
from lictor.rpc.limits import Limits
from tests.rpc.networks import DEADLINE, address, echo, network, on_both_loops, until


class Source:
    """A handler that gives numbered pieces, and says how far it is, and when it was ended."""

    def __init__(self, count: int, size: int) -> None:
        self.count = count
        self.size = size
        self.given = 0
        self.ended = False

    async def __call__(self, caller: Caller, body: bytes) -> AsyncIterator[bytes]:
        try:
            while self.given < self.count:
                self.given += 1
                yield self.given.to_bytes(4, "big") + bytes(self.size - 4)
        finally:
            self.ended = True


@on_both_loops
async def test_a_stream_comes_whole_and_in_order() -> None:
    async with network() as caller, network() as callee:
        callee.on_stream("pieces", Source(3000, 5000))
        stream = caller.stream(await address(callee), "pieces", b"")
        assert [int.from_bytes(piece[:4], "big") async for piece in stream] == list(range(1, 3001))


@on_both_loops
async def test_an_empty_stream_ends() -> None:
    async with network() as caller, network() as callee:
        callee.on_stream("pieces", Source(0, 4))
        assert [piece async for piece in caller.stream(await address(callee), "pieces", b"")] == []


@pytest.mark.parametrize("size", [4, 5000, 700_000])
@on_both_loops
async def test_a_slow_consumer_holds_its_producer(size: int) -> None:
    async with network() as caller, network() as callee:
        source = Source(1_000_000, size)
        callee.on_stream("pieces", source)
        callee.on_call("echo", echo)
        to = await address(callee)
        stream = caller.stream(to, "pieces", b"")
        await anext(stream)
        given = -1
        while given != source.given:
            given = source.given
            for _ in range(20):
                await caller.call(to, "echo", b"", DEADLINE)
        ahead = WINDOW // (size + PIECE) + 3
        assert source.given <= ahead
        for _ in range(2 * ahead):
            await anext(stream)
        assert source.given > 2 * ahead


@on_both_loops
async def test_a_slow_consumer_holds_nobody_else() -> None:
    async with network() as caller, network() as callee:
        callee.on_stream("held", Source(1000, 100_000))
        callee.on_stream("free", Source(500, 100_000))
        to = await address(callee)
        held = caller.stream(to, "held", b"")
        await anext(held)
        assert len([piece async for piece in caller.stream(to, "free", b"")]) == 500
        assert len([piece async for piece in held]) == 999


@on_both_loops
async def test_a_stream_that_is_given_up_ends_its_producer() -> None:
    async with network(Limits(open=1)) as caller, network() as callee:
        source = Source(1_000_000, 100_000)
        callee.on_stream("pieces", source)
        callee.on_call("echo", echo)
        to = await address(callee)
        stream = caller.stream(to, "pieces", b"")
        await anext(stream)
        await stream.aclose()
        await until(lambda: source.ended)
        assert await caller.call(to, "echo", b"next", DEADLINE) == b"next", "its place is free for another call"


@on_both_loops
async def test_a_consumer_that_goes_away_ends_the_producer() -> None:
    async with network() as callee:
        source = Source(1_000_000, 100_000)
        callee.on_stream("pieces", source)
        async with network() as caller:
            await anext(caller.stream(await address(callee), "pieces", b""))
        await until(lambda: source.ended)


@on_both_loops
async def test_what_came_before_an_error_is_given_first() -> None:
    async with network() as caller, network() as callee:

        async def failing(_: Caller, body: bytes) -> AsyncIterator[bytes]:
            yield b"1"
            yield b"2"
            raise NotFound("no third")

        callee.on_stream("pieces", failing)
        got: list[bytes] = []
        with pytest.raises(NotFound, match="no third"):
            async for piece in caller.stream(await address(callee), "pieces", b""):
                got.append(piece)
        assert got == [b"1", b"2"]


@on_both_loops
async def test_a_stream_whose_server_goes_away_breaks_off() -> None:
    async with network() as caller:
        async with network() as callee:
            callee.on_stream("pieces", Source(1_000_000, 100_000))
            stream = caller.stream(await address(callee), "pieces", b"")
            await anext(stream)
        with pytest.raises(Unreachable):
            async for _ in stream:
                pass


@on_both_loops
async def test_nobody_there_is_unreachable() -> None:
    async with network() as caller:
        with pytest.raises(Unreachable):
            await anext(caller.stream("127.0.0.1:1", "pieces", b""))


@on_both_loops
async def test_many_streams_and_calls_share_a_connection() -> None:
    async with network() as caller, network() as callee:
        callee.on_call("echo", echo)
        to = await address(callee)
        for number in range(20):
            callee.on_stream(f"pieces{number}", Source(100 + number, 20_000))

        async def count(number: int) -> int:
            return len([piece async for piece in caller.stream(to, f"pieces{number}", b"")])

        counts = asyncio.gather(*(count(number) for number in range(20)))
        echoes = asyncio.gather(*(caller.call(to, "echo", b"%d" % number, DEADLINE) for number in range(500)))
        assert await counts == [100 + number for number in range(20)]
        assert await echoes == [b"%d" % number for number in range(500)]
