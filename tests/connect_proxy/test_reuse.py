"""TLS connections that serve one program after another: judged anew each time, and never for two at once."""

from __future__ import annotations

import asyncio
import json
import random
import time
from pathlib import Path

import pytest

from lictor.connect_proxy import inbound as inbound_module
from lictor.connect_proxy import listener as listener_module
from lictor.connect_proxy import outbound as outbound_module
from lictor.connect_proxy.access_log import AccessLog
from lictor.connect_proxy.certificates import Identity
from lictor.connect_proxy.idle import Idle
from lictor.connect_proxy.inbound import InboundListener
from lictor.connect_proxy.metrics import render
from lictor.connect_proxy.outbound import OutboundListener
from lictor.model.connect_ca import plain_serial
from lictor.model.service import AccessLogs
from tests.connect_proxy.authority import Authority, service_uri
from tests.connect_proxy.loops import on_uvloop
from tests.connect_proxy.mesh import Mesh, echo, intention, is_refused, port, say, target
from tests.patience import soon

Pair = tuple[InboundListener, OutboundListener]


def kept(listener: InboundListener | OutboundListener) -> int:
    """How many TLS connections wait for another use."""
    return sum(len(shelf.ends) for shelf in listener.shelves)


async def once(mesh: Mesh, pair: Pair, data: bytes = b"hello") -> None:
    """Use the upstream once, until both proxies have nothing to do any more."""
    inbound, outbound = pair
    streams = await mesh.connect(outbound)
    assert await say(streams, data) == data
    streams[1].close()
    await soon(lambda: not outbound.passages and not inbound.passages, "the connection is closed")


@on_uvloop
async def test_one_connection_serves_many_programs_one_after_the_other() -> None:
    async with Mesh() as mesh:
        inbound, outbound = pair = await mesh.pair()
        for number in range(20):
            await once(mesh, pair, f"program {number}".encode() * (number * 3000 + 1))
            assert (kept(inbound), kept(outbound), len(mesh.idle)) == (1, 1, 2)
        assert inbound.reused == outbound.reused == 19
        assert inbound.accepted == inbound.ends["closed"] == outbound.ends["closed"] == 20
        assert mesh.connections == 20, "each has a connection of its own to the service"
        assert inbound.from_secure == inbound.from_plain == outbound.from_plain == outbound.from_secure > 0
        text = render([inbound, outbound], mesh.loop.time())
        assert 'lictor_proxy_tls_connections_reused_total{direction="inbound",service="web"} 19\n' in text
        assert 'lictor_proxy_tls_connections_idle{direction="inbound",service="web"} 1\n' in text


@on_uvloop
async def test_each_use_has_its_line_in_the_access_log(tmp_path: Path) -> None:
    async with Mesh() as mesh:
        access = AccessLog(AccessLogs(enabled=True, type="file", path=str(tmp_path / "log")))
        inbound = await mesh.inbound(await mesh.service(), access=access)
        outbound = await mesh.outbound(target(inbound), access=access)
        for size in (1, 20, 300):
            await once(mesh, (inbound, outbound), b"x" * size)
        lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
        for direction in ("inbound", "outbound"):
            own = [line for line in lines if line["direction"] == direction]
            assert [(line["bytes_received"], line["bytes_sent"]) for line in own] == [(1, 1), (20, 20), (300, 300)]
        inner = [line for line in lines if line["direction"] == "inbound"]
        assert {line["downstream_peer_uri_san"] for line in inner} == {service_uri("client")}
        assert len({line["downstream_remote_address"] for line in inner}) == 1
        access.close()


@on_uvloop
async def test_two_at_once_have_two_connections() -> None:
    async with Mesh() as mesh:
        inbound, outbound = pair = await mesh.pair()
        await once(mesh, pair)
        lasting, other = await mesh.connect(outbound), await mesh.connect(outbound)
        assert await say(lasting, b"one") == b"one"
        assert await say(other, b"two") == b"two"
        assert (inbound.live, outbound.live, inbound.reused) == (2, 2, 1)
        assert inbound.by_peer == {service_uri("client"): 2}
        assert kept(inbound) == kept(outbound) == 0
        for _, writer in (lasting, other):
            writer.close()
        await soon(lambda: kept(inbound) == kept(outbound) == 2, "both may be used again")
        assert inbound.by_peer == {}


@on_uvloop
async def test_a_direction_may_end_first_in_any_use() -> None:
    async def after_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.read(-1)
        writer.write(b"you said " + asked)

    async with Mesh() as mesh:
        inbound, outbound = await mesh.pair(after_the_end)
        for _ in range(3):
            reader, writer = await mesh.connect(outbound)
            writer.write(b"all of this")
            writer.write_eof()
            assert await reader.read(-1) == b"you said all of this"
            await soon(lambda: not outbound.passages and not inbound.passages, "it is over")
        assert inbound.reused == 2


@on_uvloop
async def test_a_service_that_is_slow_to_read_is_not_cut_short_by_the_next_program() -> None:
    heard: asyncio.Queue[int] = asyncio.Queue()
    go = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write_eof()
        if await reader.read(1) == b"x":
            await go.wait()
        await heard.put(1 + len(await reader.read(-1)))

    async with Mesh() as mesh:
        inbound, outbound = await mesh.pair(slow)
        size = 180_000  # what fits into the buffers between them
        _, writer = await mesh.connect(outbound)
        writer.write(b"x" * size)
        writer.write_eof()
        await soon(lambda: kept(outbound) == 1, "all of it is on its way, and the connection is free")
        _, writer = await mesh.connect(outbound)
        writer.write(b"y")
        writer.write_eof()
        assert await heard.get() == 1
        go.set()
        assert await heard.get() == size
        assert inbound.reused == 1


@on_uvloop
async def test_who_still_reads_the_last_use_does_not_let_the_next_one_flow() -> None:
    go = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write_eof()
        await go.wait()

    async with Mesh() as mesh:
        inbound, outbound = await mesh.pair(deaf)
        _, writer = await mesh.connect(outbound)
        await soon(lambda: any(one.was_joined for one in inbound.passages), "it is let in")
        (last,) = inbound.passages
        plain = last.plain
        assert plain is not None and plain.transport is not None
        sent = 0

        def arrived() -> bool:
            return last.from_secure == sent

        while plain.transport.get_write_buffer_size() == 0:
            writer.write(bytes(100_000))
            sent += 100_000
            await soon(arrived, "it is on its way")
        writer.write_eof()
        await soon(lambda: kept(outbound) == 1, "the connection is free")
        _, writer = await mesh.connect(outbound)
        writer.write(bytes(32 << 20))
        await soon(lambda: len(inbound.passages) == 2, "it is used again")
        (secure,) = [one.secure for one in inbound.passages if one is not last]
        assert secure is not None
        transport = secure.transport
        assert transport is not None
        await soon(lambda: not transport.is_reading(), "the service has more than it takes")
        plain.resume_writing()
        assert not transport.is_reading()
        writer.transport.abort()
        go.set()


@on_uvloop
async def test_who_breaks_off_takes_the_connection_along() -> None:
    async with Mesh() as mesh:
        inbound, outbound = await mesh.pair()
        streams = await mesh.connect(outbound)
        assert await say(streams, b"hello") == b"hello"
        sock = streams[1].transport.get_extra_info("socket")
        sock.setsockopt(1, 13, b"\x01\0\0\0\0\0\0\0")
        streams[1].transport.abort()
        await soon(lambda: not outbound.passages and not inbound.passages, "it is gone")
        assert kept(inbound) == kept(outbound) == 0
        assert inbound.ends["closed"] == 0


# -- who may, each time ------------------------------------------------------------------------------------------------


@on_uvloop
async def test_every_use_is_judged_by_the_intentions_as_they_are_then() -> None:
    async with Mesh() as mesh:
        inbound, outbound = pair = await mesh.pair()
        await once(mesh, pair)
        assert inbound.authorize([intention("client", "deny")], False) == 0, "who does nothing is not cut"
        assert kept(inbound) == 1
        assert await is_refused(await mesh.connect(outbound))
        await soon(lambda: not inbound.passages, "it is refused")
        assert mesh.connections == 1, "the service hears nothing of it"
        assert inbound.ends["intention"] == 2, "as another use, and as a connection of its own"
        assert kept(inbound) == kept(outbound) == 0
        inbound.authorize([intention("client", "allow")], False)
        await once(mesh, pair)


@on_uvloop
async def test_a_changed_intention_cuts_a_later_use() -> None:
    async with Mesh() as mesh:
        inbound, outbound = pair = await mesh.pair()
        await once(mesh, pair)
        streams = await mesh.connect(outbound)
        assert await say(streams, b"hello") == b"hello"
        assert inbound.reused == 1
        assert inbound.authorize([intention("client", "deny")], False) == 1
        with pytest.raises(ConnectionResetError):
            await streams[0].read(-1)
        assert kept(outbound) == 0


@on_uvloop
async def test_a_certificate_that_expires_ends_the_uses() -> None:
    async with Mesh() as mesh:
        now = time.time()
        inbound = await mesh.inbound(await mesh.service(), clock=lambda: now)
        outbound = await mesh.outbound(target(inbound))
        await once(mesh, (inbound, outbound))
        now += 2 * 86400
        assert await is_refused(await mesh.connect(outbound))
        await soon(lambda: not inbound.passages, "it is refused")
        assert inbound.ends["identity"] == 2
        assert mesh.connections == 1


@on_uvloop
async def test_what_is_revoked_or_renewed_ends_what_is_kept() -> None:
    async with Mesh() as mesh:
        inbound, outbound = pair = await mesh.pair()
        serials = frozenset({plain_serial(outbound.identity.leaf.serial_number)})
        await once(mesh, pair)
        inbound.revoke(serials)
        assert kept(inbound) == 0
        assert await is_refused(await mesh.connect(outbound))
        inbound.revoke(frozenset())
        for change in (
            lambda: inbound.renew(mesh.authority.identity("web")),
            lambda: outbound.renew(mesh.authority.identity("client")),
            lambda: outbound.revoke(frozenset({"ab"})),
        ):
            await once(mesh, pair)
            assert kept(inbound) == kept(outbound) == 1
            change()
            await soon(lambda: kept(inbound) == kept(outbound) == 0, "both sides close it")
        lasting = await mesh.connect(outbound)
        assert await say(lasting, b"hello") == b"hello"
        inbound.renew(mesh.authority.identity("web"))
        assert await say(lasting, b"still there") == b"still there"
        lasting[1].close()
        await soon(lambda: not inbound.passages and not outbound.passages, "it is closed")
        await soon(lambda: kept(inbound) == kept(outbound) == 0, "one of a former certificate is not kept")


@on_uvloop
async def test_connections_beyond_the_limit_are_refused_in_a_later_use() -> None:
    async with Mesh() as mesh:
        inbound = await mesh.inbound(await mesh.service(), max_connections=1)
        outbound, other = await mesh.outbound(target(inbound)), await mesh.outbound(target(inbound))
        await once(mesh, (inbound, outbound))
        lasting = await mesh.connect(other)
        assert await say(lasting, b"hello") == b"hello", "one that is idle does not count"
        assert await is_refused(await mesh.connect(outbound))
        assert inbound.ends["limit"] == 2
        lasting[1].close()
        await soon(lambda: not inbound.passages, "there is room again")
        await once(mesh, (inbound, outbound))


@on_uvloop
async def test_a_rotation_under_load_refuses_nobody() -> None:
    async with Mesh() as mesh:
        old, new = mesh.authority, Authority()
        inbound, outbound = await mesh.pair()
        both = old.roots(new)
        steps: list[tuple[InboundListener | OutboundListener, Identity]] = [
            (inbound, Identity(inbound.identity.leaf, both)),
            (outbound, Identity(old.leaf("client"), both)),
            (inbound, Identity(new.leaf("web"), both)),
            (outbound, Identity(new.leaf("client"), both)),
            (inbound, Identity(new.leaf("web"), new.roots())),
            (outbound, Identity(new.leaf("client"), new.roots())),
        ]
        done = 0
        ended = False

        async def load() -> None:
            nonlocal done
            while not ended:
                streams = await mesh.connect(outbound)
                assert await say(streams, b"hello") == b"hello"
                streams[1].close()
                done += 1

        loads = [asyncio.create_task(load()) for _ in range(4)]
        for listener, identity in steps:
            before = done
            await soon(lambda before=before: done > before + 20, "some are served")  # type: ignore[misc]
            listener.renew(identity)
        before = done
        await soon(lambda: done > before + 20, "and some more")
        ended = True
        await asyncio.gather(*loads)
        assert outbound.reused > done / 2
        assert set(outbound.ends) == {"closed"}


# -- how long ----------------------------------------------------------------------------------------------------------


@on_uvloop
async def test_a_drain_closes_what_is_kept_and_keeps_no_more() -> None:
    async with Mesh() as mesh:
        inbound, outbound = pair = await mesh.pair()
        await once(mesh, pair)
        lasting = await mesh.connect(outbound)
        assert await say(lasting, b"hello") == b"hello"
        other = await mesh.connect(outbound)
        assert await say(other, b"hello") == b"hello"
        other[1].close()
        await soon(lambda: kept(inbound) == 1, "one is free")
        draining = asyncio.create_task(inbound.drain(600))
        await soon(lambda: kept(inbound) == kept(outbound) == 0, "it is closed at once")
        assert await say(lasting, b"still there") == b"still there"
        lasting[1].close()
        await draining
        await soon(lambda: not outbound.passages, "it is closed")
        assert kept(inbound) == kept(outbound) == 0
        await outbound.drain(600)


@on_uvloop
async def test_what_is_kept_has_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbound_module, "IDLE", 3)
    async with Mesh() as mesh:
        inbound, outbound = await mesh.pair()
        other = await mesh.outbound(target(inbound))
        all_of_them = [await mesh.connect(listener) for listener in (outbound, other, outbound, other, outbound)]
        for streams in all_of_them:
            assert await say(streams, b"hello") == b"hello"
        for _, writer in all_of_them:
            writer.close()
        await soon(lambda: not inbound.passages and not outbound.passages and not other.passages, "all are closed")
        await soon(lambda: kept(inbound) == kept(outbound) + kept(other) == 3, "the oldest are closed")


@on_uvloop
async def test_a_process_keeps_so_many_in_all() -> None:
    async with Mesh() as mesh:
        mesh.idle = Idle(mesh.loop, 2)
        inbound, outbound = pair = await mesh.pair()
        await once(mesh, pair)
        another = await mesh.pair()
        await once(mesh, another)
        await soon(lambda: kept(inbound) == kept(outbound) == 0, "the oldest make room")
        assert len(mesh.idle) == kept(another[0]) + kept(another[1]) == 2


@on_uvloop
async def test_what_nobody_uses_is_closed_by_either_side(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (inbound_module, outbound_module):
        with monkeypatch.context() as patch:
            patch.setattr(module, "IDLE_SECONDS", 0.1)
            async with Mesh() as mesh:
                inbound, outbound = pair = await mesh.pair()
                await once(mesh, pair)
                await soon(lambda inbound=inbound, outbound=outbound: kept(inbound) == kept(outbound) == 0, "closed")  # type: ignore[misc]
                await once(mesh, pair)


@on_uvloop
async def test_so_many_uses_and_so_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_module, "USES", 3)
    async with Mesh() as mesh:
        inbound, _ = pair = await mesh.pair()
        for _ in range(9):
            await once(mesh, pair)
        assert inbound.reused == 6
        monkeypatch.setattr(listener_module, "AGE", 0.0)
        await once(mesh, pair)
        assert kept(inbound) == 0


@on_uvloop
async def test_an_endpoint_that_is_gone_is_not_used_again() -> None:
    async with Mesh() as mesh:
        inbound, outbound = pair = await mesh.pair()
        await once(mesh, pair)
        other = await mesh.inbound(await mesh.service())
        outbound.endpoints.update([target(other)])
        outbound.forget_endpoints()
        assert kept(outbound) == 0
        await soon(lambda: kept(inbound) == 0, "it is closed")
        await once(mesh, (other, outbound))
        assert other.accepted == 1
        outbound.endpoints.update([type(target(other))("127.0.0.1", port(other), "web", "dc2")])
        assert await is_refused(await mesh.connect(outbound)), "it is to be of another datacenter now"


# -- with what is not as it seems --------------------------------------------------------------------------------------


class Spoiler:
    """How somebody in between treats the connections that are doomed."""

    def __init__(self, mood: str) -> None:
        self.mood = mood
        self.known: set[asyncio.StreamReader] = set()
        self.doomed: set[asyncio.StreamReader] = set()

    async def deal(self, writer: asyncio.StreamWriter, far_writer: asyncio.StreamWriter) -> None:
        """The client has asked for another use."""
        if self.mood == "reset":
            writer.transport.get_extra_info("socket").setsockopt(1, 13, b"\x01\0\0\0\0\0\0\0")
            writer.transport.abort()
        elif self.mood == "silent":
            await asyncio.get_running_loop().create_future()


async def between(mesh: Mesh, inbound: InboundListener, outbound: OutboundListener, spoil: Spoiler) -> None:
    """Put somebody between two proxies, who has `spoil` deal with the connections that are doomed."""

    async def man(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port(inbound))

        async def back() -> None:
            while data := await far_reader.read(65536):
                writer.write(data)

        task = asyncio.create_task(back())
        try:
            while data := await reader.read(65536):
                if reader in spoil.doomed:
                    await spoil.deal(writer, far_writer)
                    return
                spoil.known.add(reader)
                far_writer.write(data)
        finally:
            task.cancel()
            far_writer.transport.abort()

    place = await mesh.service(man)
    outbound.endpoints.update([type(target(inbound))(place.host, place.port, "web", "dc1")])


@pytest.mark.parametrize("mood", ["reset", "closed", "silent"])
@on_uvloop
async def test_a_program_does_not_notice_that_a_connection_was_gone(mood: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound_module, "ANSWER", 0.3)
    heard: list[bytes] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read(-1)
        heard.append(data)
        writer.write(b"got " + data)

    async with Mesh() as mesh:
        inbound, outbound = await mesh.pair(note)
        spoiler = Spoiler(mood)
        await between(mesh, inbound, outbound, spoiler)
        for number in range(3):
            reader, writer = await mesh.connect(outbound)
            writer.write(b"payment %d" % number)
            writer.write_eof()
            assert await reader.read(-1) == b"got payment %d" % number
            await soon(lambda: not outbound.passages and not inbound.passages, "it is closed")
            if number == 0:
                spoiler.doomed |= spoiler.known
            await soon(lambda: kept(outbound) == 1, "it is to be used again")
        assert heard == [b"payment 0", b"payment 1", b"payment 2"], "each once"
        assert outbound.stale == 1
        assert outbound.retries == 0, "the endpoint is not to blame"


@on_uvloop
async def test_a_service_that_is_away_is_told_in_a_later_use_too() -> None:
    async with Mesh() as mesh:
        inbound, outbound = pair = await mesh.pair()
        await once(mesh, pair)
        mesh._servers[0].close()
        await mesh._servers[0].wait_closed()
        assert await is_refused(await mesh.connect(outbound))
        await soon(lambda: not inbound.passages and not outbound.passages, "it is refused")
        assert inbound.ends["service"] == 2
        assert kept(inbound) == kept(outbound) == 0


@pytest.mark.parametrize("sides", [(False, True), (True, False), (False, False)])
@on_uvloop
async def test_either_side_may_have_it_off(sides: tuple[bool, bool]) -> None:
    async with Mesh() as mesh:
        inbound = await mesh.inbound(await mesh.service(), reuse=sides[0])
        outbound = await mesh.outbound(target(inbound), reuse=sides[1])
        for _ in range(2):
            await once(mesh, (inbound, outbound))
        assert inbound.reused == outbound.reused == kept(inbound) == kept(outbound) == 0
        assert inbound.resumed == 1


@on_uvloop
async def test_it_may_be_switched_off_under_way() -> None:
    async with Mesh() as mesh:
        address = await mesh.service(echo)
        inbound = await mesh.inbound(address)
        outbound = await mesh.outbound(target(inbound))
        await once(mesh, (inbound, outbound))
        inbound.settings = type(inbound.settings)(bind=inbound.settings.bind, target=address, reuse=False)
        for _ in range(2):
            await once(mesh, (inbound, outbound))
        assert (inbound.reused, kept(inbound), kept(outbound)) == (0, 0, 0)


@pytest.mark.parametrize("seed", range(3))
@on_uvloop
async def test_no_byte_of_a_program_reaches_another(seed: int) -> None:
    """Programs end and break off as they like: each gets what it said, or the beginning of it, and nothing else."""
    chance = random.Random(seed)

    async def moody_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = chance.choice((1 << 30, 1 << 30, 1 << 30, 5, 50_000))
        while left > 0 and (data := await reader.read(chance.choice((10, 65536)))):
            left -= len(data)
            writer.write(data)
            await writer.drain()
        if left <= 0 and chance.randrange(2):
            writer.transport.abort()
        elif not writer.transport.is_closing():
            writer.write_eof()

    async with Mesh() as mesh:
        inbound, outbound = await mesh.pair(moody_echo)
        whole = 0

        async def program(number: int) -> None:
            nonlocal whole
            data = f"<{number}>".encode() * chance.choice((1, 100, 30_000))
            reader, writer = await mesh.connect(outbound)
            try:
                writer.write(data)
                ends = chance.randrange(4) > 0
                if ends:
                    writer.write_eof()
                found = await reader.read(-1 if ends and chance.randrange(3) else len(data))
            except (OSError, RuntimeError):
                return
            finally:
                (writer.transport.abort if chance.randrange(3) == 0 else writer.close)()
            assert data.startswith(found)
            whole += found == data

        async def programs(first: int) -> None:
            for number in range(first, first + 40):
                await program(number)

        await asyncio.gather(*(programs(1000 * task) for task in range(1, 7)))
        await soon(lambda: not inbound.passages and not outbound.passages, "all are gone")
        assert whole > 20
        assert inbound.reused > 20
        await soon(lambda: kept(inbound) == kept(outbound), "both sides know of the same")
        assert all(end.transport is not None for shelf in outbound.shelves for end in shelf.ends)
