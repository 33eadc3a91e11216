"""What goes into one entry of the log, and what cannot."""

import asyncio
from pathlib import Path

import pytest

from lictor.model.command import ConfigWrite, KVWrite
from lictor.model.errors import InvalidRequest, TooLarge
from lictor.raft.consensus import Peer
from lictor.server import server as module
from lictor.server.server import Server
from lictor.store.store import Store


def peer() -> Peer:
    return Peer("id", "n1", "127.0.0.1:8300", leader=True, voter=True)


async def test_what_cannot_be_stored_takes_no_other_write_with_it() -> None:
    server = Server(Store(), peer, None)
    await server.start()
    huge = ConfigWrite("upsert", "proxy-defaults", "global", {"Config": {"x": 10**30}})
    outcomes: list[object] = await asyncio.gather(
        server.apply(KVWrite("set", "a", b"1")), server.apply(huge), return_exceptions=True
    )
    assert outcomes[0] is True
    assert isinstance(outcomes[1], InvalidRequest)
    assert server.store.kv.get("a") is not None
    await server.close()


async def test_large_writes_at_once_go_into_several_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_BYTES", 10_000)
    monkeypatch.setattr(module, "MAX_COMMAND", 50_000)
    server = Server(Store(), peer, tmp_path)
    await server.start()
    writes = [KVWrite("set", f"k{n}", bytes(size)) for n, size in enumerate((4000, 4000, 4000, 30_000, 10, 10))]
    assert await asyncio.gather(*(server.apply(write) for write in writes)) == [True] * 6
    assert server.consensus.stats()["last_log_index"] == "4"
    with pytest.raises(TooLarge):
        await server.apply(KVWrite("set", "k", bytes(60_000)))
    await server.close()
    again = Server(Store(), peer, tmp_path)
    await again.start()
    assert len(again.store.kv) == 6
    await again.close()
