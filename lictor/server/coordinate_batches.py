"""A duty of the leader: collects the coordinates that nodes report, and writes them a batch at a time.

Every node reports its own every few seconds; one write for each would drown all others. Of what comes for one node
between two writes the last counts. The limits are Consul's.
"""

import asyncio
import logging

from lictor.model.command import CoordinateUpdate
from lictor.model.coordinate_entry import CoordinateEntry
from lictor.server.server import Server

PERIOD = 5.0  # seconds between two writes
BATCH = 128  # coordinates in one command
MOST = 5 * BATCH  # that are kept for one write

log = logging.getLogger("lictor.server.leader")


class CoordinateBatches:
    """What has been reported and is not written yet."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._waiting: dict[tuple[str, str], CoordinateEntry] = {}
        self._dropped = 0

    def take(self, entry: CoordinateEntry) -> None:
        """A node has reported its coordinate. Beyond the limit it is dropped: the node will report again."""
        key = (entry.node.lower(), entry.segment)
        if key in self._waiting or len(self._waiting) < MOST:
            self._waiting[key] = entry
        else:
            self._dropped += 1

    async def run(self) -> None:
        """Write what has come, once each period."""
        self._waiting.clear()
        while True:
            await asyncio.sleep(PERIOD)
            if self._dropped:
                log.warning("discarded coordinate updates: number=%d", self._dropped)
                self._dropped = 0
            if self._waiting:
                entries = tuple(self._waiting.values())
                self._waiting.clear()
                batches = [entries[start : start + BATCH] for start in range(0, len(entries), BATCH)]
                await self._server.apply_leading([CoordinateUpdate(batch) for batch in batches])
