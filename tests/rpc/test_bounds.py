"""What strangers can make a listener hold, and an agent keep: bounded, whoever they are and however many."""

import asyncio
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from lictor.agent.config import RuntimeConfig
from lictor.agent.config.security import Tls
from lictor.agent.rpc_tls import rpc_tls
from lictor.model.errors import LictorError
from lictor.model.transport import Caller, Unreachable
from lictor.rpc import frame
from lictor.rpc.limits import Limits
from tests.rpc.certificates import authority
from tests.rpc.networks import DEADLINE, address, echo, network, on_both_loops, until, until_called
from tests.rpc.raw import Peer, peer, peers, way

QUICK = Limits(beat=0.2)


def begun(size: int) -> bytes:
    """The length of a frame that will never be whole."""
    return size.to_bytes(4, "big")


# Frames that are not whole


@on_both_loops
async def test_many_strangers_together_hold_no_more_than_the_bound(caplog: pytest.LogCaptureFixture) -> None:
    async with network(Limits(partial=1_000_000)) as callee, AsyncExitStack() as stack:
        callee.on_call("echo", echo)
        to = await address(callee)
        strangers = [await stack.enter_async_context(peer(to)) for _ in range(20)]
        for stranger in strangers:
            stranger.write(begun(60_000_000), bytes(100_000))
        await until(lambda: "all connections together hold too much" in caplog.text)
        async with network() as other:
            for _ in range(5):
                assert len(await other.call(to, "echo", bytes(60_000), DEADLINE)) == 60_000
        assert sum(one.held for one in callee._listener._serving.values()) <= 1_000_000
        assert len(callee._listener._serving) < 20


@on_both_loops
async def test_who_holds_much_for_long_goes_before_who_has_just_begun() -> None:
    async with network(Limits(partial=1_000_000)) as callee:
        callee.on_call("echo", echo)
        to = await address(callee)
        async with peer(to) as slow, peer(to) as quick:
            slow.write(begun(900_000), bytes(600_000))
            await until(lambda: [one.held for one in callee._listener._serving.values() if one.held >= 600_000])
            connection = next(one for one in callee._listener._serving.values() if one.held)
            connection.held_since -= 60.0  # as if it had begun a minute ago
            body = frame.encode(frame.CALL, 1, "echo", bytes(700_000))
            quick.write(body[0], body[1][:650_000])
            assert await slow.ended()
            quick.write(body[1][650_000:])
            assert (await quick.next())[0][0] == frame.ANSWER


@on_both_loops
async def test_a_server_that_has_shown_its_name_goes_last(tmp_path: Path) -> None:
    ours = authority(tmp_path / "ours")
    strict = {"verify_incoming": True, "verify_outgoing": True, "verify_server_hostname": True}
    server = rpc_tls(RuntimeConfig(tls=Tls(defaults=ours.settings("-server", **strict))))
    client = rpc_tls(RuntimeConfig(tls=Tls(defaults=ours.settings("-client", **strict))))
    async with network(Limits(partial=1_000_000), server) as callee:
        got: list[int] = []
        callee.on_message("data", lambda _, body: got.append(len(body)), agents=True)
        to = await address(callee)
        async with network(security=server) as other, network(security=client) as agent:
            assert other.send(to, "data", bytes(10))
            assert agent.send(to, "data", bytes(10))
            await until(lambda: len(got) == 2)
            named, nameless = sorted(callee._listener._serving.values(), key=lambda one: not one.trusted)
            assert named.trusted and not nameless.trusted
            named.data_received(begun(60_000_000) + bytes(900_000))
            nameless.data_received(begun(60_000_000) + bytes(90_000))
            nameless.data_received(bytes(50_000))
            assert nameless.closed and not named.closed
            named.data_received(bytes(200_000))
            assert named.closed


@on_both_loops
async def test_before_tls_is_agreed_on_little_is_read(tmp_path: Path) -> None:
    """A handshake that goes on and on is cut off, and none of it counts as a frame."""
    ours = authority(tmp_path / "ours")
    security = rpc_tls(RuntimeConfig(tls=Tls(defaults=ours.settings("-server", verify_incoming=True))))
    async with network(Limits(setup=DEADLINE), security) as callee:
        to = await address(callee)
        async with peer(to, b"") as stranger:
            hello = b"\x01\xff\xff\xff" + bytes(16380)  # a ClientHello of 16 MB
            for _ in range(1000):
                stranger.write(b"\x16\x03\x01\x40\x00", hello)
                hello = bytes(16384)
                await asyncio.sleep(0)
                if stranger.writer.transport.is_closing():
                    break
            assert await stranger.ended()
            assert sum(one.held for one in callee._listener._serving.values()) == 0


# Calls and answers


@on_both_loops
async def test_what_is_asked_at_once_is_bounded_over_all_connections() -> None:
    async with network(Limits(asked=1_000_000)) as callee:
        go_on = asyncio.Event()

        async def wait(_: Caller, body: bytes) -> bytes:
            await go_on.wait()
            return body[:1]

        callee.on_call("wait", wait)
        callee.on_call("echo", echo)
        to = await address(callee)
        async with network() as one, network() as two:
            first = asyncio.create_task(one.call(to, "wait", b"1" + bytes(600_000), DEADLINE))
            await until(lambda: callee._listener._taken >= 600_000)
            with pytest.raises(LictorError, match="too much is being asked of this server at once"):
                await two.call(to, "wait", bytes(600_000), DEADLINE)
            assert await two.call(to, "echo", b"small", DEADLINE) == b"small"
            go_on.set()
            assert await first == b"1"
            assert await two.call(to, "wait", b"2" + bytes(600_000), DEADLINE) == b"2"
        await until(lambda: callee._listener._taken == 0)


@on_both_loops
async def test_who_asks_for_much_and_takes_no_answers_is_cut_off() -> None:
    async with network(Limits(asked=3_000_000, answers=100_000)) as callee:

        async def large(_: Caller, body: bytes) -> bytes:
            return bytes(1_000_000)

        callee.on_call("large", large)
        callee.on_call("echo", echo)
        to = await address(callee)
        async with peer(to) as stranger:
            sock: socket.socket = stranger.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stranger.writer.transport.pause_reading()  # type: ignore[attr-defined]
            for number in range(1, 100):
                stranger.frame(frame.CALL, number, "large")
            await until(lambda: not callee._listener._serving)
        async with network() as other:
            assert await other.call(to, "echo", b"hello", DEADLINE) == b"hello"
        await until(lambda: callee._listener._taken == 0)


# Addresses


@on_both_loops
async def test_addresses_that_nobody_uses_make_room_for_others() -> None:
    async with network(Limits(outgoing=10)) as caller, network() as callee:
        callee.on_call("echo", echo)
        to = await address(callee)
        await caller.call(to, "echo", b"", DEADLINE)
        for port in range(1, 100):
            caller.send(f"127.0.0.1:{port}", "data", b"")
            assert len(caller._links) <= 10
        assert await caller.call(to, "echo", b"still", DEADLINE) == b"still"
        assert len(caller._links) <= 10


@on_both_loops
async def test_an_address_at_which_nobody_was_is_forgotten() -> None:
    async with network(Limits(beat=0.02, forget=0.1)) as caller, network() as callee:
        callee.on_call("echo", echo)
        to = await address(callee)
        await caller.call(to, "echo", b"", DEADLINE)
        caller.send("127.0.0.1:1", "data", b"")
        await until(lambda: list(caller._links) == [to])


@on_both_loops
async def test_what_goes_wrong_with_an_address_is_said_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    async with network(Limits(retry=0.001, retry_most=0.001)) as caller:
        for _ in range(30):
            with pytest.raises(Unreachable):
                await caller.call("127.0.0.1:1", "echo", b"", DEADLINE)
    assert caplog.text.count("cannot connect to 127.0.0.1:1") == 1


@on_both_loops
async def test_handlers_that_fail_again_and_again_fill_no_log(caplog: pytest.LogCaptureFixture) -> None:
    async with network() as callee, network() as caller:

        async def fail(_: Caller, body: bytes) -> bytes:
            raise RuntimeError("no")

        callee.on_call("fail", fail)
        to = await address(callee)
        for _ in range(100):
            with pytest.raises(LictorError, match="fail failed on the server"):
                await caller.call(to, "fail", b"", DEADLINE)
    assert 1 <= caplog.text.count("the handler of fail failed") < 10


# Connections that are kept


@on_both_loops
async def test_a_connection_that_is_kept_is_there_before_it_is_needed_and_made_again() -> None:
    limits = Limits(beat=0.05, silent_beats=200, idle=0.1, retry=0.01, retry_most=0.02)
    async with network(limits) as caller, network(limits) as callee:
        callee.on_call("echo", echo)
        async with way(await address(callee)) as (to, between):
            caller.keep([to])
            await until(lambda: caller.is_up(to))
            since = asyncio.get_running_loop().time()
            await until(lambda: asyncio.get_running_loop().time() - since > 5 * limits.idle)
            assert (caller.is_up(to), between.opened) == (True, 1)
            for incoming in list(callee._listener._serving.values()):
                incoming.abort("a test")
            await until(lambda: between.opened == 2 and caller.is_up(to))
            caller.keep([])
            await until(lambda: between.open == 0)
            assert not caller.is_up(to)


@on_both_loops
async def test_a_server_that_does_not_run_on_is_noticed_and_its_calls_fail() -> None:
    """It still takes bytes, as a process that was stopped does; other servers are asked meanwhile."""
    stopped = asyncio.Event()

    async def serve(stopping: Peer) -> None:
        stopping.write(frame.PREAMBLE)
        while not stopped.is_set():
            for kind, number, _, body in await stopping.next():
                if kind == frame.CALL and not stopped.is_set():
                    stopping.frame(frame.ANSWER, number, "", body)
        while await stopping.reader.read(1 << 16):
            pass

    async with network(QUICK) as caller, network() as well, peers(serve) as to:
        well.on_call("echo", echo)
        other = await address(well)
        caller.keep([to, other])
        await until_called(caller, to)
        stopped.set()
        with pytest.raises(Unreachable, match="nothing was heard of it for 0.8 s"):
            await caller.call(to, "echo", b"2", DEADLINE)
        await until_called(caller, other)
        assert caller.is_up(other)


@on_both_loops
async def test_a_server_that_does_not_run_on_is_noticed_also_when_nobody_calls() -> None:
    async def serve(mute: Peer) -> None:
        mute.write(frame.PREAMBLE)
        await mute.ended()

    lost: list[str] = []
    async with network(QUICK) as caller, peers(serve) as to:
        caller.on_lost(lost.append)
        caller.keep([to])
        await until(lambda: lost)
        assert lost[0] == to


@on_both_loops
async def test_connections_on_which_nothing_is_said_cost_the_server_little() -> None:
    """Of many, each beat looks only at those that have said something."""
    async with network(Limits(beat=0.1, idle_beats=1_000_000)) as callee, AsyncExitStack() as stack:
        to = await address(callee)
        quiet = [await stack.enter_async_context(peer(to)) for _ in range(50)]
        for one in quiet:
            assert await one.reader.readexactly(len(frame.PREAMBLE)) == frame.PREAMBLE
        await until(lambda: not callee._listener._owing)
        async with network() as caller:
            assert not callee._listener._owing
            callee.on_call("echo", echo)
            await caller.call(to, "echo", b"", DEADLINE)
            assert len(callee._listener._owing) <= 1
