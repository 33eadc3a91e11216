"""The PROXY protocol: headers that are read, written, and refused."""

from __future__ import annotations

import asyncio
import random

import pytest

from lictor.connect_proxy.proxy_header import LONGEST_V2, SIGNATURE, Ends, encode_v1, encode_v2, read
from tests.connect_proxy.loops import on_uvloop
from tests.connect_proxy.mesh import Mesh, both_ways, port, target

V4 = Ends("192.0.2.1", 56324, "192.0.2.2", 443)
V6 = Ends("2001:db8::1", 1, "2001:db8::2", 65535)

HEADERS = {
    "v1 ipv4": (b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n", V4),
    "v1 ipv6": (b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n", V6),
    "v1 unknown": (b"PROXY UNKNOWN\r\n", None),
    "v1 unknown with more": (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
    "v2 ipv4": (SIGNATURE + bytes.fromhex("2111000cc0000201c0000202dc0401bb"), V4),
    "v2 local": (SIGNATURE + bytes.fromhex("20000000"), None),
    "v2 with a vector behind": (SIGNATURE + bytes.fromhex("21110010c0000201c0000202dc0401bb04000100"), V4),
    "v2 of unix sockets": (SIGNATURE + bytes.fromhex("213100040102030f"), None),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_is_read_wherever_it_is_cut(name: str) -> None:
    header, ends = HEADERS[name]
    assert read(header + b"more") == (ends, len(header))
    for length in range(len(header)):
        assert read(header[:length]) is None


@pytest.mark.parametrize("ends", [V4, V6, None])
def test_what_is_written_is_read_again(ends: Ends | None) -> None:
    for encode in (encode_v1, encode_v2):
        assert read(encode(ends)) == (ends, len(encode(ends)))


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 56324\r\n",
        b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 65536\r\n",
        b"PROXY TCP5 192.0.2.1 192.0.2.2 56324 1\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 \xd9\xa1 1\r\n",
        b"PROXY " + b"x" * 200,
        SIGNATURE + bytes.fromhex("3111000cc0000201c0000202dc0401bb"),
        SIGNATURE + bytes.fromhex("2211000cc0000201c0000202dc0401bb"),
        SIGNATURE + bytes.fromhex("21110004c0000201"),
        SIGNATURE + b"\x21\x11\xff\xff",
    ],
)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"PROXY header"):
        read(data)


def test_any_bytes_are_a_header_or_refused_or_wait_for_a_bounded_rest() -> None:
    chance = random.Random(11)
    for _ in range(5000):
        start = chance.choice([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11"])
        data = start + chance.randbytes(chance.randrange(0, 200))
        try:
            found = read(data)
        except ValueError:
            continue
        if found is None:
            assert len(data) < LONGEST_V2
        else:
            assert 0 < found[1] <= len(data)


@pytest.mark.parametrize("version", ["v1", "v2"])
@on_uvloop
async def test_the_service_is_told_who_connects(version: str) -> None:
    heard = asyncio.Queue[bytes]()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await heard.put(await reader.read(-1))

    async with Mesh() as mesh:
        inbound = await mesh.inbound(await mesh.service(listen), proxy_protocol=version)
        outbound = await mesh.outbound(target(inbound))
        _, writer = await mesh.connect(outbound)
        writer.write(b"hello")
        writer.write_eof()
        data = await heard.get()
        found = read(data)
        assert found is not None and found[0] is not None
        assert found[0].source == found[0].destination == "127.0.0.1"
        assert found[0].destination_port == port(inbound)
        assert data[found[1] :] == b"hello"


@on_uvloop
async def test_a_load_balancers_word_is_passed_on() -> None:
    heard = asyncio.Queue[bytes]()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await heard.put(await reader.read(-1))

    async with Mesh() as mesh:
        inbound = await mesh.inbound(await mesh.service(listen), accept_proxy_protocol=True, proxy_protocol="v2")

        async def balance(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port(inbound))
            header = encode_v1(V4)
            try:
                far_writer.write(header[:9])
                await far_writer.drain()
                far_writer.write(header[9:] + await reader.read(65536))
                await both_ways(reader, writer, far_reader, far_writer)
            finally:
                far_writer.transport.abort()

        balancer = await mesh.service(balance)
        outbound = await mesh.outbound(type(target(inbound))(balancer.host, balancer.port, "web", "dc1"))
        _, writer = await mesh.connect(outbound)
        writer.write(b"hello")
        writer.write_eof()
        data = await heard.get()
        assert read(data) == (V4, len(data) - 5)
