"""Connections that break off wherever they can, many at once: nothing is left of them, and others lose nothing."""

from __future__ import annotations

import asyncio
import os
import random

import pytest

from tests.connect_proxy.loops import on_uvloop
from tests.connect_proxy.mesh import Mesh, intention, say
from tests.patience import soon

DATA = bytes(range(256)) * 1000


@pytest.mark.parametrize("seed", range(4))
@on_uvloop
async def test_nothing_is_left_of_what_breaks_off(seed: int) -> None:
    chance = random.Random(seed)

    async def moody(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mood = chance.randrange(5)
        if mood == 0:
            writer.transport.abort()
            return
        got = await reader.read(chance.randrange(1, 65536))
        if mood == 1:
            writer.transport.abort()
        elif mood == 2:
            writer.write(got)
            writer.close()
        else:
            writer.write(DATA)
            writer.write_eof()
            await reader.read(-1)

    async with Mesh() as mesh:
        inbound, outbound = await mesh.pair(moody)

        async def one() -> None:
            reader, writer = await mesh.connect(outbound)
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            try:
                mood = chance.randrange(5)
                if mood:
                    writer.write(DATA[: chance.randrange(1, len(DATA))])
                if mood == 1:
                    writer.write_eof()
                if mood > 2:
                    await reader.read(chance.randrange(1, 300_000))
                if chance.randrange(2):
                    writer.transport.abort()
            except (OSError, RuntimeError):
                pass  # the other side was quicker
            finally:
                writer.close()

        descriptors = len(os.listdir("/proc/self/fd"))
        for _ in range(4):
            work = [asyncio.ensure_future(one()) for _ in range(50)]
            for action in ("deny", "allow"):
                await asyncio.sleep(0.01)
                inbound.authorize([intention("client", action)], False)
            await asyncio.gather(*work)
        await soon(lambda: not inbound.passages and not outbound.passages, "all are forgotten")
        assert inbound.live == outbound.live == inbound.opening == 0
        assert inbound.by_peer == {}
        assert sum(outbound.ends.values()) == outbound.accepted
        assert sum(inbound.ends.values()) == inbound.accepted
        await soon(lambda: len(os.listdir("/proc/self/fd")) <= descriptors, "every socket is closed")


@on_uvloop
async def test_others_lose_nothing_by_it() -> None:
    async with Mesh() as mesh:
        _, outbound = await mesh.pair()
        kept = await mesh.connect(outbound)
        for number in range(100):
            reader, writer = await mesh.connect(outbound)
            del reader
            writer.write(DATA)
            writer.transport.abort()
            data = DATA[: number * 100 + 1]
            assert await say(kept, data) == data
