"""A duty of the leader: has revoked leaves forgotten, once they would have ended by themselves."""

import asyncio

from lictor.model.command import RevokedForget
from lictor.server.server import Server
from lictor.store.revoked import GRACE

INTERVAL = 300.0  # seconds: all who verify certificates are told of each change


async def forget(server: Server) -> None:
    """Look at intervals for what has ended."""
    while True:
        await asyncio.sleep(INTERVAL)
        ended = server.clock() - GRACE
        if any(leaf.until <= ended for leaf in server.store.ca_revoked):
            await server.apply_leading([RevokedForget(ended)])
