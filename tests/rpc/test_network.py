"""Messages, calls and connections between networks on the loopback."""

import asyncio

import pytest

from lictor.model.errors import Forbidden, LictorError, NoLeader, NotLeader, TooLarge, Unsupported
from lictor.model.transport import Caller, Unreachable
from lictor.rpc.limits import Limits
from tests.rpc.networks import DEADLINE, address, echo, network, on_both_loops, raising, until

NOBODY = "127.0.0.1:1"


@on_both_loops
async def test_messages_arrive_in_the_order_in_which_they_were_sent() -> None:
    async with network() as caller, network() as callee:
        got: list[bytes] = []
        callee.on_message("count", lambda _, body: got.append(body))
        to = await address(callee)
        sent = [b"%d" % number for number in range(5000)]
        for body in sent[:1000]:
            assert caller.send(to, "count", body), "the first messages wait for the connection"
        await until(lambda: len(got) == 1000)
        for body in sent[1000:]:
            assert caller.send(to, "count", body)
        await until(lambda: len(got) == len(sent))
        assert got == sent


@on_both_loops
async def test_messages_and_calls_on_one_connection_keep_their_order() -> None:
    async with network() as caller, network() as callee:
        got: list[bytes] = []
        callee.on_message("count", lambda _, body: got.append(body))
        callee.on_call("echo", echo)
        to = await address(callee)
        caller.send(to, "count", b"1")
        await caller.call(to, "echo", b"", DEADLINE)
        assert got == [b"1"]


@on_both_loops
async def test_the_answers_of_calls_find_their_callers_in_any_order() -> None:
    async with network() as caller, network() as callee:
        waiting: list[asyncio.Future[None]] = []

        async def wait(_: Caller, body: bytes) -> bytes:
            turn = asyncio.get_running_loop().create_future()
            waiting.append(turn)
            await turn
            return body

        callee.on_call("wait", wait)
        to = await address(callee)
        calls = [asyncio.create_task(caller.call(to, "wait", b"%d" % number, DEADLINE)) for number in range(100)]
        await until(lambda: len(waiting) == 100)
        for turn in reversed(waiting):
            turn.set_result(None)
            await asyncio.sleep(0)
        assert await asyncio.gather(*calls) == [b"%d" % number for number in range(100)]


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (NotLeader("s2"), NotLeader("s2")),
        (NoLeader(), NoLeader()),
        (Forbidden("not you"), Forbidden("not you")),
        (Unreachable("s3: it is gone"), LictorError("s3: it is gone")),
        (KeyError("x"), LictorError("fail failed on the server that was asked; its log says why")),
    ],
)
@on_both_loops
async def test_errors_come_back_as_what_they_were(raised: Exception, expected: LictorError) -> None:
    async with network() as caller, network() as callee:
        callee.on_call("fail", raising(raised))
        with pytest.raises(LictorError) as caught:
            await caller.call(await address(callee), "fail", b"", DEADLINE)
        assert type(caught.value) is type(expected)
        assert str(caught.value) == str(expected)


@on_both_loops
async def test_a_method_that_nobody_handles_is_refused() -> None:
    async with network() as caller, network() as callee:
        to = await address(callee)
        with pytest.raises(Unsupported, match="does not know 'nothing'"):
            await caller.call(to, "nothing", b"", DEADLINE)
        with pytest.raises(Unsupported, match="does not know 'nothing'"):
            async for _ in caller.stream(to, "nothing", b""):
                pass


@on_both_loops
async def test_a_handler_that_fails_on_a_message_does_not_end_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    async with network() as caller, network() as callee:
        got: list[bytes] = []

        def handler(_: Caller, body: bytes) -> None:
            got.append(1 // int(body) * body)

        callee.on_message("divide", handler)
        to = await address(callee)
        lost: list[str] = []
        caller.on_lost(lost.append)
        caller.send(to, "divide", b"0")
        caller.send(to, "divide", b"1")
        await until(lambda: got == [b"1"])
        assert lost == []
        assert "the handler of divide failed for 127.0.0.1:" in caplog.text


@on_both_loops
async def test_nobody_there_is_unreachable() -> None:
    async with network() as caller:
        with pytest.raises(Unreachable, match=r"cannot connect to 127\.0\.0\.1:1: .*refused"):
            await caller.call(NOBODY, "echo", b"", DEADLINE)


@pytest.mark.parametrize("text", ["", "nowhere", "h:", "h:0", "h:65536", ":8300", "h:x", "h:²", "a" * 300 + ":1"])
@on_both_loops
async def test_what_is_no_address_is_unreachable(text: str) -> None:
    async with network() as caller:
        with pytest.raises(Unreachable):
            await caller.call(text, "echo", b"", DEADLINE)
        caller.send(text, "count", b"")


@on_both_loops
async def test_a_call_that_is_not_answered_in_time_fails_and_is_cancelled_there() -> None:
    async with network() as caller, network() as callee:
        ended: list[str] = []

        async def forever(_: Caller, body: bytes) -> bytes:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("cancelled")
            return body

        callee.on_call("forever", forever)
        to = await address(callee)
        with pytest.raises(Unreachable, match="forever was not answered in time"):
            await caller.call(to, "forever", b"", 0.2)
        await until(lambda: ended)


@on_both_loops
async def test_a_call_that_its_caller_gives_up_is_cancelled_there() -> None:
    async with network(Limits(open=1)) as caller, network() as callee:
        begun: list[str] = []
        ended: list[str] = []

        async def forever(_: Caller, body: bytes) -> bytes:
            begun.append("")
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("cancelled")
            return body

        callee.on_call("forever", forever)
        callee.on_call("echo", echo)
        to = await address(callee)
        call = asyncio.create_task(caller.call(to, "forever", b"", DEADLINE))
        await until(lambda: begun)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(lambda: ended)
        assert await caller.call(to, "echo", b"next", DEADLINE) == b"next", "its place is free for another call"


@on_both_loops
async def test_calls_beyond_the_bound_wait_their_turn() -> None:
    async with network(Limits(open=3)) as caller, network() as callee:
        running = most = 0

        async def slow(_: Caller, body: bytes) -> bytes:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.001)
            running -= 1
            return body

        callee.on_call("slow", slow)
        to = await address(callee)
        calls = [caller.call(to, "slow", b"%d" % number, DEADLINE) for number in range(50)]
        assert await asyncio.gather(*calls) == [b"%d" % number for number in range(50)]
        assert most <= 3


@on_both_loops
async def test_calls_fail_and_the_loss_is_told_when_the_connection_breaks() -> None:
    async with network() as caller:
        lost: list[str] = []
        begun: list[str] = []
        caller.on_lost(lost.append)

        async def forever(_: Caller, body: bytes) -> bytes:
            begun.append("")
            await asyncio.Event().wait()
            return body

        async with network() as callee:
            callee.on_call("forever", forever)
            to = await address(callee)
            call = asyncio.create_task(caller.call(to, "forever", b"", DEADLINE))
            await until(lambda: begun)
        with pytest.raises(Unreachable, match=to):
            await call
        assert lost == [to]


@on_both_loops
async def test_the_way_is_found_again_after_the_other_side_began_anew() -> None:
    async with network() as caller:
        async with network() as callee:
            callee.on_call("echo", echo)
            port = await callee.listen("127.0.0.1", 0)
            to = f"127.0.0.1:{port}"
            assert await caller.call(to, "echo", b"1", DEADLINE) == b"1"
        with pytest.raises(Unreachable):
            await caller.call(to, "echo", b"2", DEADLINE)
        async with network() as callee:
            got: list[bytes] = []
            callee.on_message("count", lambda _, body: got.append(body))
            await callee.listen("127.0.0.1", port)

            def arrived() -> bool:
                caller.send(to, "count", b"3")
                return bool(got)

            await until(arrived)


@on_both_loops
async def test_what_no_frame_can_hold_is_refused_and_ends_nothing() -> None:
    small = Limits(frame=10_000)
    async with network(small) as caller, network(small) as callee:
        callee.on_call("echo", echo)
        callee.on_call("large", lambda caller, _: echo(caller, bytes(10_000)))
        to = await address(callee)
        assert await caller.call(to, "echo", bytes(9_000), DEADLINE) == bytes(9_000)
        with pytest.raises(TooLarge):
            await caller.call(to, "echo", bytes(10_000), DEADLINE)
        with pytest.raises(TooLarge):
            await caller.call(to, "large", b"", DEADLINE)
        assert not caller.send(to, "count", bytes(10_000))
        assert await caller.call(to, "echo", b"still", DEADLINE) == b"still"
