"""What goes into one entry of the log, and what cannot."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lictor.model.command import ConfigWrite, KVWrite
from lictor.model.errors import InvalidRequest, TooLarge
from lictor.server import server as module
from lictor.store.store import Store
from tests.server.alone import in_memory, on_disk


async def test_what_cannot_be_stored_takes_no_other_write_with_it() -> None:
    server = await in_memory(Store())
    huge = ConfigWrite("upsert", "proxy-defaults", "global", {"Config": {"x": 10**30}})
    outcomes: list[object] = await asyncio.gather(
        server.apply(KVWrite("set", "a", b"1")), server.apply(huge), return_exceptions=True
    )
    assert outcomes[0] is True
    assert isinstance(outcomes[1], InvalidRequest)
    assert server.store.kv.get("a") is not None
    await server.close()


async def test_large_writes_at_once_go_into_several_proposals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_BYTES", 10_000)
    monkeypatch.setattr(module, "MAX_COMMAND", 50_000)
    server = await on_disk(Store(), tmp_path)
    proposed = []
    propose = server.consensus.propose

    async def counted(proposal: bytes, timeout: float) -> Any:
        proposed.append(proposal)
        return await propose(proposal, timeout)

    monkeypatch.setattr(server.consensus, "propose", counted)
    writes = [KVWrite("set", f"k{n}", bytes(size)) for n, size in enumerate((4000, 4000, 4000, 30_000, 10, 10))]
    assert await asyncio.gather(*(server.apply(write) for write in writes)) == [True] * 6
    assert len(proposed) == 4
    with pytest.raises(TooLarge):
        await server.apply(KVWrite("set", "k", bytes(60_000)))
    await server.close()
    again = await on_disk(Store(), tmp_path)
    await again.confirm(quorum=True)
    assert len(again.store.kv) == 6
    await again.close()
