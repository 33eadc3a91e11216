"""Strangers, peers that misbehave, and ways that break: the network goes on, and stays within its bounds."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lictor.model.transport import Caller, Unreachable
from lictor.rpc import frame
from lictor.rpc.credit import WINDOW
from lictor.rpc.frame import PREAMBLE, encode_count
from lictor.rpc.limits import Limits
from lictor.rpc.network import Network
from tests.rpc.networks import DEADLINE, address, echo, network, on_both_loops, until, until_called
from tests.rpc.raw import Peer, peer, peers, way

QUICK = Limits(beat=0.2)


def complaints() -> list[dict[str, Any]]:
    """What the loop has to complain of from now on."""
    found: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context))
    return found


async def serves(callee: Network, to: str) -> bool:
    """Whether a network still answers to others."""
    async with network() as other:
        return await other.call(to, "echo", b"hello", DEADLINE) == b"hello"


# Strangers


@pytest.mark.parametrize("seed", range(20))
@on_both_loops
async def test_random_bytes_end_their_own_connection_and_nothing_else(seed: int) -> None:
    chance = random.Random(seed)
    errors = complaints()
    async with network(Limits(frame=10_000)) as callee:
        callee.on_call("echo", echo)
        to = await address(callee)
        for _ in range(10):
            begin = PREAMBLE if chance.random() < 0.7 else b""
            async with peer(to, begin) as stranger:
                for _ in range(chance.randrange(1, 5)):
                    stranger.write(chance.randbytes(chance.randrange(1, 3000)))
                    await asyncio.sleep(0)
                stranger.write_end()
                assert await stranger.ended()
        assert await serves(callee, to)
    assert errors == []


@pytest.mark.parametrize("seed", range(20))
@on_both_loops
async def test_frames_that_make_no_sense_end_at_most_their_own_connection(seed: int) -> None:
    chance = random.Random(seed)
    errors = complaints()
    async with network(Limits(open=5)) as callee:

        async def pieces(caller: Caller, body: bytes) -> AsyncIterator[bytes]:
            for _ in range(5):
                yield bytes(WINDOW // 2)

        callee.on_call("echo", echo)
        callee.on_stream("pieces", pieces)
        to = await address(callee)
        for _ in range(10):
            async with peer(to) as stranger:
                for _ in range(chance.randrange(1, 30)):
                    method = chance.choice(["echo", "pieces", "none", ""])
                    body = chance.choice([b"", encode_count(chance.randrange(2**64)), chance.randbytes(20)])
                    stranger.frame(chance.randrange(1, 11), chance.randrange(4), method, body)
                    if chance.random() < 0.3:
                        await asyncio.sleep(0)
                stranger.write_end()
                assert await stranger.ended()
        assert await serves(callee, to)
    assert errors == []


@pytest.mark.parametrize("seed", range(20))
@on_both_loops
async def test_answers_that_make_no_sense_fail_what_waits_for_them(seed: int) -> None:
    chance = random.Random(seed)
    errors = complaints()

    async def serve(peer: Peer) -> None:
        peer.write(PREAMBLE)
        await peer.next()
        for _ in range(chance.randrange(1, 10)):
            kind = chance.choice([frame.ANSWER, frame.ITEM, frame.END, frame.ERROR, frame.ALIVE, 77])
            peer.frame(kind, chance.randrange(5), chance.choice(["", "NotLeader", "None"]), chance.randbytes(9))
        if chance.random() < 0.5:
            peer.write(chance.randbytes(100))

    async with network() as caller, peers(serve) as to:
        for _ in range(3):
            calls = [caller.call(to, "echo", b"", 0.2) for _ in range(3)]
            await asyncio.gather(*calls, return_exceptions=True)
    assert errors == []


@pytest.mark.parametrize(
    "frames",
    [
        [(frame.ANSWER, 1)],
        [(frame.ITEM, 1)],
        [(frame.STREAM, 1, "pieces"), (frame.CREDIT, 1, "", encode_count(WINDOW * 2))],
        [(frame.STREAM, 1, "pieces"), (frame.CREDIT, 1, "", b"much")],
        [(frame.CALL, 1, "forever"), (frame.CALL, 1, "forever")],
        [(frame.CALL, 1, "m" * 200)],
    ],
    ids=["answer", "item", "credit", "count", "number", "method"],
)
@on_both_loops
async def test_who_breaks_the_rules_is_cut_off(frames: list[tuple[Any, ...]]) -> None:
    async with network() as callee:

        async def forever(_: Caller, body: bytes) -> bytes:
            await asyncio.Event().wait()
            return body

        async def pieces(_: Caller, body: bytes) -> AsyncIterator[bytes]:
            yield await forever(_, body)

        callee.on_call("forever", forever)
        callee.on_call("echo", echo)
        callee.on_stream("pieces", pieces)
        to = await address(callee)
        async with peer(to) as stranger:
            for one in frames:
                stranger.frame(*one)
            assert await stranger.ended()
        assert await serves(callee, to)


@on_both_loops
async def test_calls_beyond_the_bound_are_refused() -> None:
    async with network(Limits(open=2)) as callee:
        begun: list[bytes] = []

        async def forever(_: Caller, body: bytes) -> bytes:
            begun.append(body)
            await asyncio.Event().wait()
            return body

        callee.on_call("forever", forever)
        async with peer(await address(callee)) as stranger:
            for number in (1, 2, 3):
                stranger.frame(frame.CALL, number, "forever")
            assert await stranger.next() == [
                (frame.ERROR, 3, "LictorError", b"too many calls at once on one connection")
            ]
            assert len(begun) == 2


@on_both_loops
async def test_who_asks_and_takes_no_answers_is_cut_off() -> None:
    async with network(Limits(buffered=100_000)) as callee, peer(await address(callee)) as stranger:
        with pytest.raises(ConnectionError):
            for number in range(10_000_000):
                stranger.frame(frame.CALL, number, "none" * 20)
                await stranger.writer.drain()


@on_both_loops
async def test_who_does_not_say_what_it_is_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    async with network(Limits(setup=0.1)) as callee, peer(await address(callee), PREAMBLE[:3]) as stranger:
        assert await stranger.ended()
    assert "it did not say what it is in time" in caplog.text


@on_both_loops
async def test_who_takes_its_time_to_greet_is_greeted_first() -> None:
    async with network(Limits(beat=0.02, silent_beats=1000)) as callee:
        to = await address(callee)
        async with peer(to) as other, peer(to, b"") as late:
            await other.reader.readexactly(len(PREAMBLE))
            for _ in range(3):
                other.frame(frame.ALIVE)
                await other.reader.readexactly(len(b"".join(frame.encode(frame.ALIVE))))
            late.write(PREAMBLE)
            assert await late.reader.readexactly(len(PREAMBLE)) == PREAMBLE


@on_both_loops
async def test_strangers_are_logged_but_not_each_of_a_flood(caplog: pytest.LogCaptureFixture) -> None:
    async with network() as callee:
        to = await address(callee)
        for _ in range(50):
            async with peer(to, b"GET / HTTP/1.1\r\n\r\n") as stranger:
                assert await stranger.ended()
    lines = [record.getMessage() for record in caplog.records if "ended a connection from" in record.getMessage()]
    assert 1 <= len(lines) < 10
    assert "it does not speak this protocol: it began with b'GET / HT'" in lines[0]


@on_both_loops
async def test_one_host_gets_no_more_connections_than_its_share() -> None:
    async with network(Limits(incoming_per_host=3)) as callee:
        callee.on_call("echo", echo)
        to = await address(callee)
        async with peer(to) as one, peer(to) as two, peer(to) as three:
            for held in (one, two, three):
                held.frame(frame.CALL, 1, "echo")
                assert await held.next() == [(frame.ANSWER, 1, "", b"")]
            async with peer(to) as fourth:
                assert await fourth.ended()
        async with network() as other:
            await until_called(other, to)  # a place that is free again is given to the next


@on_both_loops
async def test_there_is_a_bound_on_all_connections_together() -> None:
    async with network(Limits(incoming=1)) as callee:
        callee.on_call("echo", echo)
        to = await address(callee)
        async with peer(to) as held:
            held.frame(frame.CALL, 1, "echo")
            assert await held.next()
            async with peer(to) as second:
                assert await second.ended()
        async with network() as other:
            await until_called(other, to)


@on_both_loops
async def test_there_is_a_bound_on_what_is_held_of_unfinished_frames() -> None:
    async with network(Limits(partial=100_000)) as callee:
        callee.on_call("echo", echo)
        to = await address(callee)
        async with peer(to) as small, peer(to) as large:
            small.write((2_000_000).to_bytes(4, "big"), bytes(50_000))
            large.write((2_000_000).to_bytes(4, "big"), bytes(90_000))
            assert await large.ended()
            small.write(bytes(40_000))
            assert await serves(callee, to)
            small.write(bytes(20_000))
            assert await small.ended()
        assert await serves(callee, to)


# Other sides that do not answer as they should


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "it does not speak this protocol"),
        (b"\x15\x03\x01\x00\x02\x02\x28", "it speaks TLS where a plain connection was expected"),
        (b"Lictor\n\x02", "it speaks version 2 of the protocol, and this side version 1"),
        (b"", "the other side closed the connection"),
    ],
)
@on_both_loops
async def test_why_a_server_is_none_is_said(answer: bytes, words: str) -> None:
    async def serve(peer: Peer) -> None:
        await peer.reader.read(8)
        peer.write(answer)
        peer.write_end()
        await peer.ended()

    async with network() as caller, peers(serve) as to:
        with pytest.raises(Unreachable, match=words):
            await caller.call(to, "echo", b"", DEADLINE)


@on_both_loops
async def test_a_server_that_never_greets_is_given_up() -> None:
    async def serve(peer: Peer) -> None:
        await peer.ended()

    async with network(Limits(setup=0.1)) as caller, peers(serve) as to:
        with pytest.raises(Unreachable, match="no answer in time"):
            await caller.call(to, "echo", b"", DEADLINE)


@on_both_loops
async def test_messages_beyond_the_bound_are_dropped_and_the_others_arrive_in_order() -> None:
    go_on = asyncio.Event()
    got: list[bytes] = []

    async def serve(peer: Peer) -> None:
        peer.write(PREAMBLE)
        await go_on.wait()
        while True:
            got.extend(body for kind, _, _, body in await peer.next() if kind == frame.MESSAGE)

    async with network(Limits(buffered=1_000_000)) as caller, peers(serve) as to:
        sent: list[bytes] = []
        dropped = 0
        caller.send(to, "data", b"")
        number = 0
        while dropped < 10:
            body = number.to_bytes(4, "big") + bytes(50_000)
            if caller.send(to, "data", body):
                sent.append(body)
            else:
                dropped += 1
            number += 1
            await asyncio.sleep(0.001)
        go_on.set()
        await until(lambda: len(got) == len(sent) + 1)
        assert got[1:] == sent
        await until(lambda: caller.send(to, "data", b"last"))
        await until(lambda: got[-1] == b"last")


@on_both_loops
async def test_messages_that_wait_for_a_connection_are_bounded() -> None:
    async with network(Limits(waiting=10_000)) as caller, network() as callee:
        got: list[bytes] = []
        callee.on_message("data", lambda _, body: got.append(body))
        to = await address(callee)
        taken = [caller.send(to, "data", bytes(1000)) for _ in range(20)]
        assert taken == sorted(taken, reverse=True)
        assert 8 <= sum(taken) <= 10
        await until(lambda: len(got) == sum(taken))


@on_both_loops
async def test_calls_wait_while_too_much_is_on_its_way() -> None:
    go_on = asyncio.Event()

    async def serve(peer: Peer) -> None:
        peer.write(PREAMBLE)
        await go_on.wait()
        while True:
            for kind, number, _, body in await peer.next():
                if kind == frame.CALL:
                    peer.frame(frame.ANSWER, number, "", body[:4])

    async with network(Limits(buffered=1_000_000)) as caller, peers(serve) as to:
        bodies = [number.to_bytes(4, "big") + bytes(500_000) for number in range(100)]
        calls = asyncio.gather(*(caller.call(to, "data", body, DEADLINE) for body in bodies))
        await asyncio.sleep(0)  # they are before this one
        with pytest.raises(Unreachable, match="no connection with room for data within 0.3 s"):
            await caller.call(to, "data", bytes(4), 0.3)
        go_on.set()
        assert await calls == [body[:4] for body in bodies]


@on_both_loops
async def test_who_gives_up_waiting_for_room_lets_the_next_go_first() -> None:
    go_on = asyncio.Event()

    async def serve(peer: Peer) -> None:
        peer.write(PREAMBLE)
        await go_on.wait()
        while True:
            for kind, number, _, body in await peer.next():
                if kind == frame.CALL:
                    peer.frame(frame.ANSWER, number, "", body[:1])

    errors = complaints()
    async with network(Limits(open=1)) as caller, peers(serve) as to:
        calls = [asyncio.create_task(caller.call(to, "data", b"%d" % number, DEADLINE)) for number in range(10)]
        await until(lambda: caller.send(to, "data", b""))
        for _ in range(20):
            await asyncio.sleep(0)
        for call in calls[:-1]:
            call.cancel()
        go_on.set()
        assert await calls[-1] == b"9"
        await asyncio.gather(*calls, return_exceptions=True)
    assert errors == []


# Ways that break


@on_both_loops
async def test_a_way_that_falls_silent_is_noticed_on_both_sides() -> None:
    async with network(QUICK) as caller, network(QUICK) as callee:
        ended: list[str] = []
        lost: list[str] = []
        caller.on_lost(lost.append)

        async def forever(_: Caller, body: bytes) -> bytes:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("ended")
            return body

        callee.on_call("forever", forever)
        callee.on_call("echo", echo)
        async with way(await address(callee)) as (to, between):
            assert await caller.call(to, "echo", b"", DEADLINE) == b""
            call = asyncio.create_task(caller.call(to, "forever", b"", DEADLINE))
            await asyncio.sleep(0)
            between.silent = True
            with pytest.raises(Unreachable, match="nothing was heard of it for 0.8 s"):
                await call
            assert lost == [to]
            between.silent = False
            await until_called(caller, to)


@on_both_loops
async def test_a_caller_that_falls_silent_is_noticed() -> None:
    async with network(QUICK) as callee, peer(await address(callee)) as fallen:
        assert await fallen.ended()


@on_both_loops
async def test_a_connection_on_which_nothing_is_said_stays() -> None:
    async with network(QUICK) as caller, network(QUICK) as callee:
        callee.on_call("echo", echo)
        lost: list[str] = []
        caller.on_lost(lost.append)
        async with way(await address(callee)) as (to, between):
            await caller.call(to, "echo", b"", DEADLINE)
            for _ in range(2 * QUICK.silent_beats):
                await asyncio.sleep(QUICK.beat)
            await caller.call(to, "echo", b"", DEADLINE)
            assert between.opened == 1
            assert lost == []


@on_both_loops
async def test_a_long_call_outlives_the_silence() -> None:
    async with network(QUICK) as caller, network(QUICK) as callee:
        loop = asyncio.get_running_loop()

        async def late(_: Caller, body: bytes) -> bytes:
            end = loop.time() + 2 * QUICK.beat * QUICK.silent_beats
            await until(lambda: loop.time() >= end)
            return body

        callee.on_call("late", late)
        assert await caller.call(await address(callee), "late", b"x", DEADLINE) == b"x"


@on_both_loops
async def test_after_a_failure_the_next_attempt_waits() -> None:
    tried: list[str] = []

    async def serve(peer: Peer) -> None:
        tried.append("")

    async with network(Limits(retry=1000.0, retry_most=1000.0)) as caller, peers(serve) as to:
        with pytest.raises(Unreachable, match="cannot connect"):
            await caller.call(to, "echo", b"", DEADLINE)
        assert not caller.send(to, "data", b"")
        with pytest.raises(Unreachable, match="no connection with room for echo within 0.2 s"):
            await caller.call(to, "echo", b"", 0.2)
        assert len(tried) == 1


@on_both_loops
async def test_a_connection_that_nobody_uses_is_closed_and_made_again_when_it_is_needed() -> None:
    limits = Limits(beat=0.05, idle=0.1)
    async with network(limits) as caller, network(limits) as callee:
        callee.on_call("echo", echo)
        lost: list[str] = []
        caller.on_lost(lost.append)
        async with way(await address(callee)) as (to, between):
            for times in (1, 2, 3):
                await caller.call(to, "echo", b"", DEADLINE)
                assert between.opened == times
                await until(lambda: between.open == 0)
        assert lost == []


@on_both_loops
async def test_what_waits_when_the_network_closes_fails() -> None:
    asked: list[str] = []

    async def serve(peer: Peer) -> None:
        peer.write(PREAMBLE)
        await peer.next()
        asked.append("")
        await peer.ended()

    async def mute(peer: Peer) -> None:
        asked.append("")
        await peer.ended()

    async with peers(serve) as to, peers(mute) as nobody:
        async with network() as caller:
            calls = [asyncio.create_task(caller.call(one, "echo", b"", DEADLINE)) for one in (to, nobody)]
            await until(lambda: len(asked) == 2)
        for call in calls:
            with pytest.raises(Unreachable, match="this agent stops"):
                await call
        with pytest.raises(Unreachable, match="this agent stops"):
            await caller.call(to, "echo", b"", DEADLINE)
        assert not caller.send(to, "data", b"")
