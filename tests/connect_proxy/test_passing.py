"""Bytes through two proxies: both ways, in any amount, each direction ending by itself."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import cast

import pytest

from tests.connect_proxy.loops import on_uvloop
from tests.connect_proxy.mesh import Mesh, echo, is_refused, say, target
from tests.patience import soon


@on_uvloop
async def test_bytes_pass_both_ways() -> None:
    async with Mesh() as mesh:
        inbound, outbound = await mesh.pair()
        streams = await mesh.connect(outbound)
        assert await say(streams, b"hello") == b"hello"
        assert await say(streams, b"again") == b"again"
        assert (inbound.live, outbound.live) == (1, 1)
        streams[1].close()
        await soon(lambda: inbound.live == outbound.live == 0, "both proxies have let go of the connection")
        assert not inbound.passages and not outbound.passages


@on_uvloop
async def test_a_large_transfer_arrives_whole() -> None:
    data = random.Random(7).randbytes(5_000_000)
    async with Mesh() as mesh:
        _, outbound = await mesh.pair()
        reader, writer = await mesh.connect(outbound)

        async def write() -> None:
            writer.write(data)
            await writer.drain()
            writer.write_eof()

        writing = asyncio.create_task(write())
        found = await reader.read(-1)
        await writing
        assert found == data


@on_uvloop
async def test_either_direction_may_end_before_the_other() -> None:
    async def after_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.read(-1)
        writer.write(b"you said " + asked)

    async with Mesh() as mesh:
        _, outbound = await mesh.pair(after_the_end)
        reader, writer = await mesh.connect(outbound)
        writer.write(b"all of this")
        writer.write_eof()
        assert await reader.read(-1) == b"you said all of this"


@on_uvloop
async def test_the_service_may_stop_speaking_and_still_listen() -> None:
    heard = asyncio.Queue[bytes]()

    async def stop_speaking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"no more")
        writer.write_eof()
        await heard.put(await reader.read(-1))

    async with Mesh() as mesh:
        _, outbound = await mesh.pair(stop_speaking)
        reader, writer = await mesh.connect(outbound)
        assert await reader.read(-1) == b"no more"
        writer.write(b"understood")
        writer.write_eof()
        assert await heard.get() == b"understood"


@on_uvloop
async def test_a_slow_reader_holds_the_writer_back() -> None:
    written = 0
    go = asyncio.Event()

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        for _ in range(1000):
            writer.write(bytes(65536))
            await writer.drain()
            written += 65536

    async with Mesh() as mesh:
        _, outbound = await mesh.pair(pour)
        reader, writer = await mesh.connect(outbound)
        del writer
        before = -1
        while before != written or not written:
            before = written
            for _ in range(20):
                await asyncio.sleep(0.01)
        assert written < 40_000_000, "the service must wait for whoever does not read"
        go.set()
        found = 0
        while data := await reader.read(1 << 20):
            found += len(data)
        assert found == 65_536_000


@on_uvloop
async def test_who_speaks_first_does_not_matter() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ready")
        await echo(reader, writer)

    async with Mesh() as mesh:
        _, outbound = await mesh.pair(greet)
        streams = await mesh.connect(outbound)
        assert await streams[0].readexactly(9) == b"220 ready"
        assert await say(streams, b"HELO") == b"HELO"


@on_uvloop
async def test_much_may_be_said_before_the_other_side_is_there() -> None:
    data = bytes(1_000_000)
    async with Mesh() as mesh:
        _, outbound = await mesh.pair()
        reader, writer = await mesh.connect(outbound)
        writer.write(data)
        assert await reader.readexactly(len(data)) == data


@on_uvloop
async def test_a_service_that_breaks_off_is_not_taken_for_one_that_has_finished() -> None:
    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(5)
        writer.transport.get_extra_info("socket").setsockopt(1, 13, b"\x01\0\0\0\0\0\0\0")
        writer.transport.abort()

    async with Mesh() as mesh:
        _, outbound = await mesh.pair(break_off)
        reader, writer = await mesh.connect(outbound)
        writer.write(b"hello")
        with pytest.raises(ConnectionResetError):
            await reader.read(-1)


@on_uvloop
async def test_unix_sockets_on_both_sides(tmp_path: Path) -> None:
    async with Mesh() as mesh:
        inbound = await mesh.inbound(await mesh.service(path=str(tmp_path / "service")))
        path = tmp_path / "upstream"
        outbound = await mesh.outbound(target(inbound), path=str(path), mode=0o660)
        assert path.stat().st_mode & 0o777 == 0o660
        streams = await mesh.connect(outbound)
        assert await say(streams, b"over sockets") == b"over sockets"
        await outbound.drain(0)
        assert not path.exists()


@on_uvloop
async def test_a_service_that_is_away_is_told_by_a_closed_connection() -> None:
    async with Mesh() as mesh:
        address = await mesh.service()
        mesh._servers[0].close()
        inbound = await mesh.inbound(address)
        outbound = await mesh.outbound(target(inbound))
        assert await is_refused(await mesh.connect(outbound))
        assert inbound.ends["service"] == 1


@on_uvloop
async def test_many_at_once() -> None:
    async with Mesh() as mesh:
        inbound, outbound = await mesh.pair()

        async def one(number: int) -> None:
            streams = await mesh.connect(outbound)
            for turn in range(5):
                data = f"{number} {turn} ".encode() * 100
                assert await say(streams, data) == data
            streams[1].close()

        await asyncio.gather(*(one(number) for number in range(100)))
        await soon(lambda: not inbound.passages and not outbound.passages, "all are gone")
        assert inbound.from_secure == inbound.from_plain == outbound.from_plain == outbound.from_secure


@on_uvloop
async def test_what_is_said_early_to_a_service_that_does_not_listen_is_bounded() -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        cast(asyncio.Transport, writer.transport).pause_reading()
        await asyncio.get_running_loop().create_future()

    async with Mesh() as mesh:
        inbound, outbound = await mesh.pair(deaf)
        _, writer = await mesh.connect(outbound)
        writer.write(bytes(64_000_000))
        held = -1
        while held != inbound.from_secure + sum(passage.moved for passage in inbound.passages) or held <= 0:
            held = inbound.from_secure + sum(passage.moved for passage in inbound.passages)
            for _ in range(20):
                await asyncio.sleep(0.01)
        buffers = [
            end.transport.get_write_buffer_size()
            for listener in (inbound, outbound)
            for passage in listener.passages
            for end in (passage.plain, passage.secure)
            if end is not None and end.transport is not None
        ]
        assert max(buffers) < 1_000_000, buffers
