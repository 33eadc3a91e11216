"""What is revoked in other datacenters of the mesh is refused here too: any server tells those of other datacenters
which leaves are revoked in its own, and a duty of the leader follows each of them.

Each tells all that it knows, so that two datacenters which do not reach each other hear of each other by a third.
"""

import asyncio
import logging
import random
from typing import Annotated

import msgspec

from lictor.model.command import LeavesRevoke
from lictor.model.connect_ca import RevokedLeaf, plain_serial
from lictor.model.errors import InvalidRequest, LictorError, NoLeader, NotLeader, Refused
from lictor.model.transport import UNREADABLE
from lictor.server.datacenters import Datacenters, Origin
from lictor.server.for_secondaries import LAG, WAIT
from lictor.server.from_primary import PACE, Trying
from lictor.server.server import Server
from lictor.server.waiting_for import touched
from lictor.store.connect_ca import ONLY
from lictor.store.revoked import AT_ONCE

CALL = "datacenter.revoked"
LOOK = 10.0  # seconds between two looks at which datacenters there are

Text = Annotated[str, msgspec.Meta(max_length=256)]
Index = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]

log = logging.getLogger("lictor.connect")


class Ask(msgspec.Struct, frozen=True):
    """For leaves revoked after an index of the servers whose name is `servers`, of the mesh with this cluster id."""

    servers: Text = ""
    after: Index = 0
    cluster: Text = ""


class Told(msgspec.Struct, frozen=True):
    """The next of them, and the index up to which they are known then."""

    servers: Text
    upto: Index
    leaves: tuple[RevokedLeaf, ...]


_encode = msgspec.msgpack.Encoder().encode
_decode_ask = msgspec.msgpack.Decoder(Ask).decode
_decode_told = msgspec.msgpack.Decoder(Told).decode


class RevokedElsewhere:
    """See above. `chance` names this run, where the cluster has no name."""

    def __init__(self, server: Server, datacenters: Datacenters, chance: random.Random | None = None) -> None:
        self._server = server
        self._datacenters = datacenters
        self._run = f"run-{(chance or random.SystemRandom()).getrandbits(64):016x}"
        datacenters.on_call(CALL, self._on_ask)

    def _cluster(self) -> str:
        """The id of the cluster whose mesh this is, empty while there is none."""
        configuration = self._server.store.authority.get(ONLY)
        return configuration.cluster if configuration is not None else ""

    # -- telling ------------------------------------------------------------------------------------------------------

    async def _on_ask(self, origin: Origin, body: bytes) -> bytes:
        try:
            asked = _decode_ask(body)
        except UNREADABLE as error:
            raise InvalidRequest(f"the call cannot be read: {error}") from None
        if not asked.cluster or asked.cluster != self._cluster():
            raise Refused("this datacenter is not of the same mesh")
        store, name = self._server.store, self._server.consensus.cluster or self._run
        await self._server.confirm(quorum=False)
        same = asked.servers == name and store.base <= asked.after <= store.index
        after, end = asked.after if same else 0, asyncio.get_running_loop().time() + WAIT
        while True:
            new = sorted(
                (leaf for leaf in store.ca_revoked if leaf.create_index > after), key=lambda leaf: leaf.create_index
            )
            if new or asyncio.get_running_loop().time() >= end:
                break
            await touched(store, (("ca-revoked",),), end)
        upto = store.index
        if len(new) > AT_ONCE:
            # What one command has revoked goes together: an index says how far the other side is.
            upto = new[AT_ONCE - 1].create_index
            new = [leaf for leaf in new if leaf.create_index <= upto]
        return _encode(Told(name, upto, tuple(new)))

    # -- following ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """The duty: follow all other datacenters there are. Raises `NotLeader`."""
        following: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                others = [name for name in self._datacenters.known() if name != self._datacenters.own]
                for name in [name for name in following if name not in others]:
                    following.pop(name).cancel()
                for name in others:
                    if name not in following:
                        following[name] = asyncio.get_running_loop().create_task(self._follow(name))
                if following:
                    await asyncio.wait(following.values(), timeout=LOOK, return_when=asyncio.FIRST_EXCEPTION)
                else:
                    await asyncio.sleep(LOOK)
                for task in following.values():
                    if task.done():
                        task.result()
        finally:
            for task in following.values():
                task.cancel()
            await asyncio.gather(*following.values(), return_exceptions=True)

    async def _follow(self, datacenter: str) -> None:
        trying, known = Trying(), Ask()
        while True:
            known = msgspec.structs.replace(known, cluster=self._cluster())
            try:
                told = await self._ask(datacenter, known)
                await self._take(datacenter, told)
            except (NoLeader, NotLeader):
                raise
            except LictorError as error:
                pause = trying.failed(error)
                if trying.telling:
                    log.info("what is revoked in datacenter %s is not followed: %s", datacenter, error)
                await asyncio.sleep(pause)
                continue
            trying.succeeded()
            known = Ask(told.servers, told.upto)
            await asyncio.sleep(PACE)

    async def _ask(self, datacenter: str, known: Ask) -> Told:
        if not known.cluster:
            raise Refused("there is no mesh here yet")
        try:
            return _decode_told(await self._datacenters.call(datacenter, CALL, _encode(known), WAIT + LAG))
        except UNREADABLE as error:
            raise Refused(f"the answer cannot be read: {error}") from None

    async def _take(self, datacenter: str, told: Told) -> None:
        store, now = self._server.store, self._server.clock()
        new = [one for one in told.leaves if one.until > now and store.ca_revoked.get(plain_serial(one.serial)) is None]
        for start in range(0, len(new), AT_ONCE):
            [done] = await self._server.apply_leading([LeavesRevoke(tuple(new[start : start + AT_ONCE]))])
            if isinstance(done, LictorError):
                raise done
        if new:
            log.info("leaves were revoked in datacenter %s, and are refused here too: leaves=%d", datacenter, len(new))
