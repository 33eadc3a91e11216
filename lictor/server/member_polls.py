"""Asks the other servers how they are, over and over, and has `Members` note what comes."""

import asyncio
import contextlib
import logging

from lictor.model.errors import LictorError
from lictor.model.member import FAILED, STATUS_NAMES
from lictor.model.transport import UNREADABLE, Transport, Unreachable
from lictor.raft.consensus import Consensus
from lictor.server import hello
from lictor.server.members import UNKNOWN, Known, Members

INTERVAL = 1.0  # seconds between two questions to a server, and for which an answer is waited for

log = logging.getLogger("lictor.server.members")


class MemberPolls:
    """The loop. `transport` is None for a server that is always alone."""

    def __init__(self, members: Members, consensus: Consensus, transport: Transport | None) -> None:
        self._members = members
        self._consensus = consensus
        self._transport = transport
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._statuses: dict[str, int] = {}
        consensus.on_peers(self._wake.set)

    def start(self) -> None:
        """Begin to ask."""
        if self._transport is not None:
            self._task = asyncio.get_running_loop().create_task(self._run(self._transport))

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self, transport: Transport) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            self._wake.clear()
            self._members.follow(self._consensus.peers(), began)
            await asyncio.gather(*(self._ask(transport, known) for known in self._members.targets()))
            self._tell()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(began + INTERVAL):
                    await self._wake.wait()

    def _tell(self) -> None:
        """Log whose status has changed."""
        for known in self._members.others():
            before = self._statuses.get(known.id, UNKNOWN)
            self._statuses[known.id] = known.status
            if known.status != before:
                level = logging.WARNING if known.status == FAILED else logging.INFO
                status = STATUS_NAMES[known.status]
                log.log(level, "a server is %s: server=%s address=%s", status, known.node, known.address)

    async def _ask(self, transport: Transport, known: Known) -> None:
        loop = asyncio.get_running_loop()
        try:
            answer = hello.decode_hello(await transport.call(known.address, hello.METHOD, b"", INTERVAL))
        except (Unreachable, LictorError, *UNREADABLE) as error:
            log.debug("a server did not answer: server=%s address=%s error=%s", known.node, known.address, error)
            self._members.missed(known.id, loop.time())
        else:
            self._members.heard(known.id, answer, loop.time())
