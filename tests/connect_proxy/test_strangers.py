"""Who may not come in: every kind of wrong certificate, and of wrong bytes. None of it harms others."""

from __future__ import annotations

import asyncio
import datetime
import random
import ssl

import pytest

from lictor.connect_proxy.certificates import Identity
from lictor.connect_proxy.inbound import InboundListener
from lictor.connect_proxy.secure_end import RECORD
from tests.connect_proxy.authority import DAY, DOMAIN, Authority, service_uri
from tests.connect_proxy.loops import on_uvloop
from tests.connect_proxy.mesh import Mesh, both_ways, is_refused, port, say, target
from tests.patience import soon


def context(authority: Authority, **leaf: object) -> ssl.SSLContext:
    """The context of a client with a certificate of an authority."""
    return Identity(authority.leaf("client", **leaf), authority.roots()).client  # type: ignore[arg-type]


def trusting_anybody(context: ssl.SSLContext) -> ssl.SSLContext:
    """The same, for one that does not mind whom it talks to."""
    context.verify_mode = ssl.CERT_NONE
    return context


async def still_serves(mesh: Mesh, inbound: InboundListener) -> bool:
    """Whether a connection that is allowed passes."""
    outbound = await mesh.outbound(target(inbound))
    return await say(await mesh.connect(outbound), b"hello") == b"hello"


async def turned_away(mesh: Mesh, inbound: InboundListener, wanted: ssl.SSLContext) -> bool:
    """Whether somebody with this context gets nothing. With TLS 1.3 the refusal comes after the client's handshake."""
    try:
        return await is_refused(await mesh.connect_tls(inbound, wanted))
    except (OSError, ssl.SSLError):
        return True


STRANGE_URIS: list[tuple[str, list[str]]] = [
    ("no id", []),
    ("an agent", [f"spiffe://{DOMAIN}/agent/client/dc/dc1/id/n1"]),
    ("the authority", [f"spiffe://{DOMAIN}"]),
    ("two ids", [service_uri("client"), service_uri("admin")]),
    ("another trust domain", [service_uri("client", "99999999-2222-3333-4444-555555555555.consul")]),
    ("no spiffe", ["https://example.com/svc/client"]),
    ("nonsense", [f"spiffe://{DOMAIN}/ns/default/dc/dc1/svc/"]),
]


@pytest.mark.parametrize("uris", [uris for _, uris in STRANGE_URIS], ids=[name for name, _ in STRANGE_URIS])
@on_uvloop
async def test_a_certificate_of_our_authority_that_names_no_service_of_ours_is_refused(uris: list[str]) -> None:
    async with Mesh() as mesh:
        inbound = await mesh.inbound(await mesh.service())
        assert await turned_away(mesh, inbound, context(mesh.authority, uris=uris))
        await soon(lambda: not inbound.passages, "it is forgotten")
        assert mesh.connections == 0, "the service must not hear of it"
        assert await still_serves(mesh, inbound)


@on_uvloop
async def test_no_certificate_at_all_is_refused() -> None:
    async with Mesh() as mesh:
        inbound = await mesh.inbound(await mesh.service())
        bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        bare.check_hostname = False
        bare.verify_mode = ssl.CERT_NONE
        assert await turned_away(mesh, inbound, bare)
        assert mesh.connections == 0


@on_uvloop
async def test_another_meshs_certificate_is_refused() -> None:
    async with Mesh() as mesh:
        inbound = await mesh.inbound(await mesh.service())
        assert await turned_away(mesh, inbound, trusting_anybody(context(Authority())))
        assert mesh.connections == 0
        assert inbound.ends["handshake"] == 1


@on_uvloop
async def test_a_certificate_out_of_its_time_is_refused() -> None:
    async with Mesh() as mesh:
        inbound = await mesh.inbound(await mesh.service())
        minute = datetime.timedelta(minutes=1)
        assert await turned_away(mesh, inbound, context(mesh.authority, lives=-minute))
        assert await turned_away(mesh, inbound, context(mesh.authority, begins=DAY / 2))
        assert mesh.connections == 0


@on_uvloop
async def test_an_old_version_of_tls_is_refused() -> None:
    async with Mesh() as mesh:
        inbound = await mesh.inbound(await mesh.service())
        old = context(mesh.authority)
        with pytest.warns(DeprecationWarning):
            old.minimum_version = ssl.TLSVersion.TLSv1
        with pytest.warns(DeprecationWarning):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        assert await turned_away(mesh, inbound, old)
        assert mesh.connections == 0


@on_uvloop
async def test_tls_1_2_is_enough() -> None:
    async with Mesh() as mesh:
        inbound = await mesh.inbound(await mesh.service())
        older = context(mesh.authority)
        older.maximum_version = ssl.TLSVersion.TLSv1_2
        assert await say(await mesh.connect_tls(inbound, older), b"hello") == b"hello"


@on_uvloop
async def test_an_endpoint_that_is_another_service_is_not_talked_to() -> None:
    async with Mesh() as mesh:
        impostor = await mesh.inbound(await mesh.service(), identity=mesh.authority.identity("other"))
        outbound = await mesh.outbound(target(impostor))
        assert await is_refused(await mesh.connect(outbound), b"a secret")
        assert outbound.ends["upstream"] == 1
        await soon(lambda: not impostor.passages, "it is let go")
        assert impostor.from_secure == 0, "not a byte may reach it"


@on_uvloop
async def test_an_endpoint_of_another_mesh_is_not_talked_to() -> None:
    async with Mesh() as mesh:
        elsewhere = await mesh.inbound(await mesh.service(), identity=Authority().identity("web"))
        outbound = await mesh.outbound(target(elsewhere))
        assert await is_refused(await mesh.connect(outbound), b"a secret")
        assert elsewhere.from_secure == 0


@on_uvloop
async def test_who_is_slow_to_shake_hands_is_cut() -> None:
    async with Mesh() as mesh:
        inbound = await mesh.inbound(await mesh.service(), handshake_timeout=0.3)
        reader, writer = await asyncio.open_connection("127.0.0.1", port(inbound))
        writer.write(b"\x16\x03\x01")
        with pytest.raises(ConnectionResetError):
            await reader.read(-1)
        writer.close()
        assert inbound.ends["slow"] == 1


@on_uvloop
async def test_those_who_only_begin_are_limited_and_others_come_in() -> None:
    async with Mesh() as mesh:
        inbound = await mesh.inbound(await mesh.service(), max_handshakes=5)
        idlers = [await asyncio.open_connection("127.0.0.1", port(inbound)) for _ in range(8)]
        await soon(lambda: inbound.ends["limit"] == 3, "those beyond the limit are cut")
        assert inbound.opening == 5
        for _, writer in idlers:
            writer.transport.abort()
        await soon(lambda: inbound.opening == 0, "there is room again")
        assert await still_serves(mesh, inbound)


@pytest.mark.parametrize("seed", range(6))
@on_uvloop
async def test_garbage_is_refused(seed: int) -> None:
    chance = random.Random(seed)
    async with Mesh() as mesh:
        inbound = await mesh.inbound(await mesh.service(), accept_proxy_protocol=bool(seed % 2))
        beginnings = [
            b"",
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\xff\xff",
            b"PROXY TCP4 ",
            b"\r\n\r\n\x00\r\nQUIT\n\x21\x11",
        ]
        for _ in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", port(inbound))
            writer.write(chance.choice(beginnings) + chance.randbytes(chance.randrange(1, 3000)))
            writer.write_eof()
            try:
                await reader.read(-1)
            except ConnectionResetError:
                pass
            writer.close()
        await soon(lambda: not inbound.passages, "all are forgotten")
        assert mesh.connections == 0


@on_uvloop
async def test_a_handshake_that_breaks_off_anywhere_leaves_nothing() -> None:
    async with Mesh() as mesh:
        inbound = await mesh.inbound(await mesh.service())
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context(mesh.authority).wrap_bio(incoming, outgoing)
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        hello = outgoing.read()
        for length in range(1, len(hello), 37):
            reader, writer = await asyncio.open_connection("127.0.0.1", port(inbound))
            writer.write(hello[:length])
            writer.write_eof()
            await reader.read(-1)
            writer.close()
        await soon(lambda: not inbound.passages, "all are forgotten")
        assert await still_serves(mesh, inbound)


@on_uvloop
async def test_damage_under_way_ends_the_connection() -> None:
    async with Mesh() as mesh:
        inbound = await mesh.inbound(await mesh.service())
        chance = random.Random(3)

        async def damaged(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port(inbound))
            passed = 0

            def spoil(data: bytes) -> bytes:
                nonlocal passed
                passed += len(data)
                if passed <= 4 * RECORD:
                    return data
                spoilt = bytearray(data)
                spoilt[chance.randrange(len(spoilt))] ^= 0x40
                return bytes(spoilt)

            try:
                await both_ways(reader, writer, far_reader, far_writer, spoil)
            finally:
                far_writer.transport.abort()

        between = await mesh.service(damaged)
        outbound = await mesh.outbound(target(inbound))
        outbound.endpoints.update([type(target(inbound))(between.host, between.port, "web", "dc1")])
        reader, writer = await mesh.connect(outbound)
        writer.write(bytes(20 * RECORD))
        found = 0
        try:
            while data := await reader.read(65536):
                assert not any(data)
                found += len(data)
        except ConnectionResetError:
            pass
        assert found < 20 * RECORD
        await soon(lambda: not inbound.passages and not outbound.passages, "both sides have let go")
