"""The life of connections and listeners: limits, idleness, draining, and certificates that change under way."""

from __future__ import annotations

import asyncio
import ssl
import time

import pytest

from lictor.connect_proxy import certificates
from lictor.connect_proxy.certificates import Identity
from lictor.connect_proxy.inbound import InboundListener
from lictor.connect_proxy.outbound import OutboundListener
from lictor.model.connect_ca import plain_serial
from tests.connect_proxy.authority import Authority
from tests.connect_proxy.loops import on_uvloop
from tests.connect_proxy.mesh import Mesh, is_refused, say, target
from tests.patience import soon


@on_uvloop
async def test_connections_beyond_the_limit_are_refused_on_both_sides() -> None:
    async with Mesh() as mesh:
        inbound = await mesh.inbound(await mesh.service(), max_connections=2)
        outbound = await mesh.outbound(target(inbound))
        kept = [await mesh.connect(outbound) for _ in range(2)]
        for streams in kept:
            assert await say(streams, b"hello") == b"hello"
        assert await is_refused(await mesh.connect(outbound))
        limited = await mesh.outbound(target(await mesh.inbound(await mesh.service())), max_connections=1)
        first = await mesh.connect(limited)
        assert await say(first, b"hello") == b"hello"
        assert await is_refused(await mesh.connect(limited))
        kept[0][1].close()
        await soon(lambda: inbound.live == 1, "there is room again")
        assert await say(await mesh.connect(outbound), b"hello") == b"hello"


@on_uvloop
async def test_an_idle_connection_is_cut_and_one_in_use_is_not() -> None:
    async with Mesh() as mesh:
        inbound = await mesh.inbound(await mesh.service(), idle_timeout=2.0)
        outbound = await mesh.outbound(target(inbound))
        busy, idle = await mesh.connect(outbound), await mesh.connect(outbound)
        assert await say(idle, b"hello") == b"hello"
        ended = asyncio.create_task(idle[0].read(-1))
        while not ended.done():
            assert await say(busy, b"x") == b"x"
            await asyncio.sleep(0.05)
        assert isinstance(ended.exception(), ConnectionResetError)
        assert inbound.ends["idle"] == 1


@on_uvloop
async def test_a_drain_lets_connections_end_and_takes_no_more() -> None:
    async with Mesh() as mesh:
        inbound, outbound = await mesh.pair()
        streams = await mesh.connect(outbound)
        assert await say(streams, b"hello") == b"hello"
        draining = asyncio.create_task(inbound.drain(600))
        await soon(lambda: not inbound.serving, "nothing is accepted any more")
        assert await is_refused(await mesh.connect(outbound))
        assert await say(streams, b"still here") == b"still here"
        streams[1].write_eof()
        assert await streams[0].read(-1) == b""
        await draining
        assert not inbound.passages


@on_uvloop
async def test_a_drain_ends_with_its_time() -> None:
    async with Mesh() as mesh:
        inbound, outbound = await mesh.pair()
        streams = await mesh.connect(outbound)
        assert await say(streams, b"hello") == b"hello"
        await inbound.drain(0.2)
        with pytest.raises(ConnectionResetError):
            await streams[0].read(-1)


@on_uvloop
async def test_a_renewed_certificate_ends_no_connection() -> None:
    async with Mesh() as mesh:
        inbound, outbound = await mesh.pair()
        streams = await mesh.connect(outbound)
        assert await say(streams, b"hello") == b"hello"
        inbound.renew(mesh.authority.identity("web"))
        outbound.renew(mesh.authority.identity("client"))
        assert await say(streams, b"again") == b"again"
        assert await say(await mesh.connect(outbound), b"and anew") == b"and anew"


@on_uvloop
async def test_a_rotation_of_the_root_ends_no_connection_and_refuses_none() -> None:
    async with Mesh() as mesh:
        old, new = mesh.authority, Authority()
        inbound, outbound = await mesh.pair()
        kept = await mesh.connect(outbound)
        assert await say(kept, b"hello") == b"hello"
        both = old.roots(new)
        steps: list[tuple[InboundListener | OutboundListener, Identity]] = [
            (inbound, Identity(inbound.identity.leaf, both)),
            (outbound, Identity(old.leaf("client"), both)),
            (inbound, Identity(new.leaf("web"), both)),
            (outbound, Identity(new.leaf("client"), both)),
            (inbound, Identity(new.leaf("web"), new.roots())),
            (outbound, Identity(new.leaf("client"), new.roots())),
        ]
        for listener, identity in steps:
            listener.renew(identity)
            assert await say(await mesh.connect(outbound), b"new") == b"new"
            assert await say(kept, b"kept") == b"kept"
        outbound.renew(Identity(old.leaf("client"), both))
        assert await is_refused(await mesh.connect(outbound)), "the old root is not trusted any more"


@on_uvloop
async def test_a_revoked_certificate_is_refused_and_cut_by_either_side() -> None:
    async with Mesh() as mesh:
        inbound, outbound = await mesh.pair()
        streams, other = await mesh.connect(outbound), await mesh.connect(outbound)
        assert await say(streams, b"hello") == b"hello"
        assert await say(other, b"hello") == b"hello"
        serial = plain_serial(outbound.identity.leaf.serial_number)
        assert inbound.revoke(frozenset({"ab"})) == 0
        assert inbound.revoke(frozenset({"ab", serial})) == 2
        for reader, _ in (streams, other):
            with pytest.raises(ConnectionResetError):
                await reader.read(-1)
        assert inbound.ends["revoked"] == 2
        assert await is_refused(await mesh.connect(outbound)), "nor is a session resumed"
        outbound.renew(mesh.authority.identity("client"))
        streams = await mesh.connect(outbound)
        assert await say(streams, b"hello") == b"hello"
        assert outbound.revoke(frozenset({plain_serial(inbound.identity.leaf.serial_number)})) >= 1
        with pytest.raises(ConnectionResetError):
            await streams[0].read(-1)
        assert await is_refused(await mesh.connect(outbound))
        inbound.renew(mesh.authority.identity("web"))
        assert await say(await mesh.connect(outbound), b"hello") == b"hello"


@on_uvloop
async def test_sessions_are_resumed_and_end_with_the_trust_they_were_made_under() -> None:
    async with Mesh() as mesh:
        inbound, outbound = await mesh.pair(reuse=False)

        async def once() -> None:
            streams = await mesh.connect(outbound)
            assert await say(streams, b"hello") == b"hello"
            streams[1].close()
            await soon(lambda: not outbound.passages and not inbound.passages, "the connection is closed")

        for _ in range(3):
            await once()
        assert inbound.resumed == outbound.resumed == 2
        inbound.renew(mesh.authority.identity("web"))
        await once()
        assert inbound.resumed == 2, "a new certificate begins with full handshakes"
        await once()
        assert inbound.resumed == 3


@on_uvloop
async def test_a_resumed_session_of_an_expired_certificate_is_refused() -> None:
    async with Mesh() as mesh:
        now = time.time()
        inbound = await mesh.inbound(await mesh.service(), clock=lambda: now, reuse=False)
        outbound = await mesh.outbound(target(inbound))
        streams = await mesh.connect(outbound)
        assert await say(streams, b"hello") == b"hello"
        streams[1].close()
        await soon(lambda: not outbound.passages and not inbound.passages, "the connection is closed")
        now += 2 * 86400
        assert await is_refused(await mesh.connect(outbound))
        assert inbound.ends["identity"] == 1


@on_uvloop
async def test_the_session_of_a_connection_without_a_byte_is_resumed() -> None:
    async with Mesh() as mesh:
        inbound, outbound = await mesh.pair()
        _, writer = await mesh.connect(outbound)
        (endpoint,) = outbound.endpoints.all
        await soon(lambda: endpoint.session is not None, "the server's ticket does not wait for bytes")
        assert await say(await mesh.connect(outbound), b"hello") == b"hello"
        assert inbound.resumed == outbound.resumed == 1
        writer.close()


@on_uvloop
async def test_the_session_of_a_connection_that_lasts_is_resumed() -> None:
    async with Mesh() as mesh:
        inbound, outbound = await mesh.pair()
        lasting = await mesh.connect(outbound)
        assert await say(lasting, b"hello") == b"hello"
        assert await say(await mesh.connect(outbound), b"hello") == b"hello"
        assert inbound.resumed == outbound.resumed == 1, "a ticket came with the first bytes, and was kept"
        assert await say(lasting, b"still there") == b"still there"


@on_uvloop
async def test_sessions_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "SESSIONS", 2 * certificates.FULL)
    async with Mesh() as mesh:
        inbound, one = await mesh.pair(reuse=False)
        other = await mesh.outbound(target(inbound))
        seen = []
        for outbound in (one, one, other, one, one):
            streams = await mesh.connect(outbound)
            assert await say(streams, b"hello") == b"hello"
            streams[1].close()
            await soon(lambda: not one.passages and not other.passages and not inbound.passages, "it is closed")
            seen.append(inbound.resumed)
        assert seen == [0, 1, 1, 1, 2], "all are forgotten once there are too many, and full handshakes begin again"


@on_uvloop
async def test_a_connection_that_is_cut_does_not_end_the_session_for_others() -> None:
    async with Mesh() as mesh:
        inbound, outbound = await mesh.pair()
        for _ in range(6):
            assert await say(await mesh.connect(outbound), b"hello") == b"hello"
            inbound.cut_all("drained")
            await soon(lambda: not outbound.passages and not inbound.passages, "the connection is gone")
        assert inbound.resumed == outbound.resumed == 5


@on_uvloop
async def test_a_service_that_speaks_first_is_heard() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"welcome")
        assert await reader.read(100) == b"thanks"
        writer.write(b"bye")

    async with Mesh() as mesh:
        inbound, outbound = await mesh.pair(greet, reuse=False)
        for _ in range(2):
            reader, writer = await mesh.connect(outbound)
            assert await reader.readexactly(7) == b"welcome"
            writer.write(b"thanks")
            assert await reader.read(100) == b"bye"
            writer.close()
            await soon(lambda: not outbound.passages and not inbound.passages, "the connection is closed")
        assert inbound.resumed == outbound.resumed == 1


@on_uvloop
async def test_sessions_by_tls_1_2_end_their_handshakes_too() -> None:
    async with Mesh() as mesh:
        identity = mesh.authority.identity("client")
        identity.client.maximum_version = ssl.TLSVersion.TLSv1_2
        inbound = await mesh.inbound(await mesh.service())
        outbound = await mesh.outbound(target(inbound), identity=identity)
        for _ in range(2):
            streams = await mesh.connect(outbound)
            assert await say(streams, b"hello") == b"hello"
            streams[1].close()
        await soon(lambda: not outbound.passages and not inbound.passages, "the connections are closed")
