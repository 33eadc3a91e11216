"""`/v1/snapshot`: the whole state saved and restored."""

import asyncio
from collections.abc import AsyncIterator
from typing import IO, Any

from lictor.http.api import Api
from lictor.http.reply import Headers, Reply, Stream
from lictor.http.request import Request
from lictor.http.routes import Family
from lictor.model.authorizer import WRITE
from lictor.model.errors import NoLeader
from lictor.server import archive
from lictor.store import snapshot

family = Family(at_servers=True)


@family.action("GET", "/v1/snapshot", streamed=True)
async def save(api: Api, request: Request) -> Any:
    """An archive of the state as it is now."""
    server = api.agent.server
    if server is None:
        raise NoLeader
    request.require("snapshot", "", WRITE)
    await api.confirm(request)
    image = snapshot.Image(api.agent.store)
    peers, term = server.consensus.peers(), int(server.consensus.stats().get("term", "0"))
    moment = server.clock()

    def build() -> IO[bytes]:
        return archive.write(image.encode(), index=image.index, term=term, moment=moment, peers=peers)

    file = await asyncio.to_thread(build)
    contact, known = api.freshness.contact(request.consistency)
    headers: Headers = (
        ("X-Consul-Index", str(image.index)),
        ("X-Consul-Knownleader", str(known).lower()),
        ("X-Consul-Lastcontact", str(contact)),
    )
    return Stream(_pieces(file), "application/x-gzip", headers)


async def _pieces(file: IO[bytes]) -> AsyncIterator[bytes]:
    try:
        while piece := await asyncio.to_thread(file.read, archive.CHUNK):
            yield piece
    finally:
        file.close()


@family.action("PUT", "/v1/snapshot", body_limit=archive.MAX_ARCHIVE, at_servers=False, elsewhere=True)
async def restore(api: Api, request: Request) -> Any:
    """Replace the state by that of an archive; a damaged one changes nothing."""
    request.require("snapshot", "", WRITE)
    state = await asyncio.to_thread(archive.restorable_state, request.body)
    await api.agent.restore(state)
    return Reply()
