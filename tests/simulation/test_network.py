"""The simulated network keeps what `Transport` promises, and breaks what it may break."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import pytest

from lictor.model.errors import Refused
from lictor.model.transport import Caller, Unreachable
from tests.simulation.loop import Clock, SimLoop, run
from tests.simulation.network import Network, SimTransport, Weather

T = TypeVar("T")


class Two:
    """Two processes, a and b, and the network between them."""

    def __init__(self, seed: int = 1) -> None:
        self.loop = SimLoop()  # type: ignore[abstract]
        self.network = Network(self.loop, random.Random(seed), lambda what: None, lambda: None)
        self.a, self.b = self.process("a:1"), self.process("b:1")
        self.got: list[bytes] = []
        self.b.on_message("note", lambda caller, body: self.got.append(body))
        self.b.on_call("echo", self.echo)
        self.b.on_call("refuse", self.refuse)
        self.b.on_call("never", self.never)
        self.b.on_stream("count", self.count)

    def process(self, address: str) -> SimTransport:
        clock = Clock(lambda: self.loop.now, 1.0, 100.0)
        return self.network.join(self.loop.own(address, clock), address)

    async def echo(self, caller: Caller, body: bytes) -> bytes:
        return b"echo of " + body

    async def refuse(self, caller: Caller, body: bytes) -> bytes:
        raise Refused("not today")

    async def never(self, caller: Caller, body: bytes) -> bytes:
        await asyncio.sleep(1e6)
        return b""

    async def count(self, caller: Caller, body: bytes) -> AsyncIterator[bytes]:
        for number in range(int(body)):
            yield b"%d" % number

    def play(self, story: Callable[[], Awaitable[T]]) -> T:
        """Run a story as a's code."""

        async def main() -> T:
            result: asyncio.Future[T] = self.loop.create_future()

            async def work() -> None:
                try:
                    result.set_result(await story())
                except Exception as error:
                    result.set_exception(error)

            self.loop.later(0.0, lambda: asyncio.ensure_future(work()), owner=self.a.owner)
            return await result

        return run(self.loop, main())


def test_messages_arrive_once_and_in_order_however_slow_single_ones_are() -> None:
    two = Two()
    two.network.weather = Weather(tail=0.3, slow=5.0)
    sent = [b"%d" % number for number in range(200)]

    async def story() -> None:
        for body in sent:
            assert two.a.send("b:1", "note", body)
            await asyncio.sleep(0.001)
        await asyncio.sleep(60.0)

    two.play(story)
    assert two.got == sent


def test_in_bad_weather_messages_are_lost_doubled_and_overtaken() -> None:
    two = Two()
    two.network.weather = Weather(loss=0.2, doubles=0.2, shuffles=0.2)
    sent = [b"%d" % number for number in range(200)]

    async def story() -> None:
        for body in sent:
            two.a.send("b:1", "note", body)
            await asyncio.sleep(0.01)
        await asyncio.sleep(60.0)

    two.play(story)
    assert set(two.got) < set(sent)
    assert len(two.got) > len(set(two.got))
    assert two.got != sorted(two.got, key=int)


def test_calls_are_answered_and_refusals_come_back() -> None:
    two = Two()

    async def story() -> bytes:
        with pytest.raises(Refused, match="not today"):
            await two.a.call("b:1", "refuse", b"", 5.0)
        return await two.a.call("b:1", "echo", b"this", 5.0)

    assert two.play(story) == b"echo of this"


def test_calls_without_an_answer_end_in_time() -> None:
    two = Two()

    async def story() -> float:
        with pytest.raises(Unreachable, match="no answer within"):
            await two.a.call("b:1", "never", b"", 5.0)
        return two.loop.now

    assert two.play(story) == pytest.approx(5.0)


def test_nobody_listens() -> None:
    two = Two()

    async def story() -> None:
        assert not two.a.send("c:1", "note", b"")
        with pytest.raises(Unreachable):
            await two.a.call("c:1", "echo", b"", 5.0)

    two.play(story)


def test_what_a_short_cut_held_up_arrives_late_and_a_long_one_breaks_the_connection() -> None:
    two = Two()

    async def story() -> None:
        two.a.send("b:1", "note", b"before")
        await asyncio.sleep(1.0)
        two.network.cut.add(("a:1", "b:1"))
        two.a.send("b:1", "note", b"held up")
        await asyncio.sleep(0.5)
        assert two.got == [b"before"]
        two.network.cut.clear()
        await asyncio.sleep(10.0)
        assert two.got == [b"before", b"held up"]
        two.network.cut.add(("b:1", "a:1"))
        with pytest.raises(Unreachable, match="broke"):
            await two.a.call("b:1", "echo", b"", 100.0)
        assert two.network.broken == 1

    two.play(story)


def test_a_killed_process_breaks_its_connections_and_a_lost_machine_is_missed_later() -> None:
    for silently in (False, True):
        two = Two()

        async def story(two: Two = two, silently: bool = silently) -> float:
            await two.a.call("b:1", "echo", b"", 5.0)
            two.loop.kill(two.b.owner)
            two.network.leave(two.b, silently=silently)
            began = two.loop.now
            with pytest.raises(Unreachable):
                await two.a.call("b:1", "echo", b"", 100.0)
            return two.loop.now - began

        taken = two.play(story)
        assert taken > 0.5 if silently else taken < 0.5


def test_a_stream_arrives_whole_in_order_no_faster_than_it_is_taken() -> None:
    two = Two()
    begun: list[int] = []

    async def count(caller: Caller, body: bytes) -> AsyncIterator[bytes]:
        for number in range(int(body)):
            begun.append(number)
            yield b"%d" % number

    two.b.on_stream("count", count)

    async def story() -> list[bytes]:
        taken = []
        async for piece in two.a.stream("b:1", "count", b"50"):
            taken.append(piece)
            assert len(begun) <= len(taken) + 6
            await asyncio.sleep(0.1)
        return taken

    assert two.play(story) == [b"%d" % number for number in range(50)]


def test_a_stream_breaks_off_with_its_connection() -> None:
    two = Two()

    async def story() -> int:
        taken = 0
        with pytest.raises(Unreachable):
            async for _ in two.a.stream("b:1", "count", b"50"):
                taken += 1
                if taken == 10:
                    two.network.break_some(1.0)
        return taken

    assert 10 <= two.play(story) < 50
