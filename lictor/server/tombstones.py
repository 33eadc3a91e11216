"""A duty of the leader: has what was removed long ago forgotten, by all servers at the same place of the log."""

import asyncio
from collections import deque

from lictor.model.command import Reap
from lictor.server.server import Server

TOMBSTONE_TTL = 15 * 60.0  # seconds
REAP_INTERVAL = 30.0


async def reap(server: Server) -> None:
    """Note the index at intervals; what was removed at or before the one of `TOMBSTONE_TTL` ago is forgotten."""
    store, loop = server.store, asyncio.get_running_loop()
    noted: deque[tuple[float, int]] = deque()
    while True:
        await asyncio.sleep(REAP_INTERVAL)
        now = loop.time()
        noted.append((now, store.index))
        up_to = 0
        while noted and noted[0][0] <= now - TOMBSTONE_TTL:
            up_to = noted.popleft()[1]
        if up_to and store.has_removed(up_to):
            await server.apply_leading([Reap(up_to)])
