"""Has the servers revoke the leaves of services that this node has no more.

What was signed for a service is kept, also on disk, until it has ended (`leaves_issued`). When the last instance of the
service on this node is deregistered, all of it is revoked; while the servers are away that is tried again, also after
a restart. An agent that only stops, or leaves, revokes nothing: its services come back with it.

Proxies that the agent itself has started are drained when their service is deregistered: there, the leaf that their
connections go on with is revoked when they have had the time for it.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Container, Iterable

from lictor.agent.leaves_book import Leaf
from lictor.agent.leaves_files import LeafFiles
from lictor.agent.leaves_issued import Issued, Ledger
from lictor.agent.logs import logger
from lictor.model.connect_ca import RevokedLeaf, fingerprint
from lictor.model.errors import LictorError

AT_ONCE = 500  # leaves in one command
SENDING = 30.0  # seconds that the servers have for it
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds after a failure, doubled with each that follows

DRAINING = 30.0  # seconds that proxies have which the agent has started

Revoke = Callable[[tuple[RevokedLeaf, ...]], Awaitable[object]]
"""Has the servers revoke leaves: to do it twice does no harm. Raises `LictorError`."""

log = logger("agent.leaf-certs")


async def nobody(leaves: tuple[RevokedLeaf, ...]) -> None:
    """There are no servers that could be told."""


class Revoking:
    """What was signed on this node, and its end. `is_local` says whether a service, its name in lower case, has an
    instance or a proxy on this node; `keep` calls what writes to disk.
    """

    def __init__(
        self,
        node: str,
        files: LeafFiles,
        keep: Callable[..., None],
        revoke: Revoke,
        is_local: Callable[[str], bool],
        *,
        chance: Callable[[], float] = random.random,
        wall: Callable[[], float],
    ) -> None:
        self._node = node
        self._files = files
        self._keep = keep
        self._revoke = revoke
        self._is_local = is_local
        self._later: dict[str, float] = {}  # services whose leaves are still used, and until when on the loop's clock
        self._chance = chance
        self._wall = wall
        self._ledger = Ledger()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self.revoked = 0

    def start(self, leaves: Iterable[Leaf]) -> list[str]:
        """Take over what an earlier run has kept, with the leaves that it had. Returns the services that were
        registered then and are no more: their leaves are being revoked.
        """
        now = self._wall()
        for record in self._files.issued():
            self._ledger.load(record, now)
        for leaf in leaves:
            self._ledger.signed(leaf.service, _issued(leaf), now, registered=self._is_local(leaf.service.lower()))
        gone = self.services_changed(self._ledger.registered())
        self._save()
        self._begin()
        return gone

    async def close(self) -> None:
        """End; what is still to be revoked is on disk."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def signed(self, leaf: Leaf) -> None:
        """A leaf was signed, and may be handed out."""
        registered = self._is_local(leaf.service.lower())
        self._ledger.signed(leaf.service, _issued(leaf), self._wall(), registered=registered)
        self._save()

    def services_changed(self, names: Iterable[str], draining: Container[str] = ()) -> list[str]:
        """Instances of services of these names were registered or deregistered on this node; of those `draining`, in
        lower case, the agent has started a proxy, which goes on for a while with the leaf that it has. Returns the
        services that it has no more, as their leaves spell them: their keys are to be forgotten.
        """
        gone: list[str] = []
        now = self._wall()
        for name in {name.lower() for name in names}:
            if not self._ledger.named(name):
                continue
            if self._is_local(name):
                self._ledger.here(name, now)
            else:
                gone += self._ledger.left(name, now)
        self._save()
        if gone:
            end = asyncio.get_running_loop().time() + DRAINING
            self._later.update({service: end for service in gone if service.lower() in draining})
            self._begin()
        return gone

    def _save(self) -> None:
        for record in self._ledger.changed():
            if self._files.kept:
                self._keep(self._files.save_issued, record)

    def _begin(self) -> None:
        if self._closed or (self._task is not None and not self._task.done()):
            return
        if self._ledger.to_revoke(1, self._wall()):
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        failures, loop = 0, asyncio.get_running_loop()
        while True:
            self._later = {service: end for service, end in self._later.items() if end > loop.time()}
            found = self._ledger.to_revoke(AT_ONCE, self._wall(), self._later)
            if not found and self._later:
                await asyncio.sleep(min(self._later.values()) - loop.time())
                continue
            if not found:
                return
            leaves = tuple(
                RevokedLeaf(leaf.serial, leaf.fingerprint, service, self._node, leaf.until) for service, leaf in found
            )
            try:
                async with asyncio.timeout(SENDING):
                    await self._revoke(leaves)
            except (LictorError, TimeoutError) as error:
                failures += 1
                if failures == 1:
                    log.warn(
                        "certificates of services that were deregistered are not revoked yet",
                        count=len(leaves),
                        error=str(error) or "the servers took too long",
                    )
                pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 30))
                await asyncio.sleep(pause * (0.5 + 0.5 * self._chance()))
                continue
            failures = 0
            self.revoked += len(leaves)
            for service, leaf in found:
                log.info("a certificate is revoked: its service was deregistered", service=service, serial=leaf.serial)
            self._ledger.revoked(found, self._wall())
            self._save()


def _issued(leaf: Leaf) -> Issued:
    return Issued(leaf.serial, fingerprint(leaf.certificate), leaf.valid_before)
