"""What servers of the primary datacenter do for those of the others: they tell the authority's roots and the config
entries, and have other authorities signed. Any of them answers; the leader signs.

Who asks for what may change waits for it, for a while: an answer that is the same as before says that it is the same.
"""

import asyncio
import hashlib
import logging
import random
from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from lictor.model.authorizer import READ, WRITE, Authorizer, require
from lictor.model.connect_ca import CARoot
from lictor.model.errors import InvalidRequest
from lictor.model.transport import UNREADABLE
from lictor.server.connect_ca import ConnectCA
from lictor.server.datacenters import Datacenters, Origin
from lictor.server.server import Server
from lictor.server.waiting_for import touched
from lictor.store.connect_ca import ONLY
from lictor.store.reads import connect_ca
from lictor.store.reads.config_changes import ENTRIES_MOST, Changed, Position, changes_after
from lictor.store.store import Answer

ROOTS = "primary.roots"
SIGN = "primary.sign-intermediate"
ENTRIES = "primary.entries"

WAIT = 30.0  # seconds that an answer waits for something new
LAG = 10.0  # seconds that such an answer may be late
SIGN_PATIENCE = 60.0  # seconds that a signature may take: the authority may be somewhere else
LONGEST = 64 * 1024  # bytes of what is asked

log = logging.getLogger("lictor.connect")

Text = Annotated[str, msgspec.Meta(max_length=LONGEST)]


class AskRoots(msgspec.Struct, frozen=True):
    """For roots other than those whose digest is `seen`, empty for any."""

    seen: Text = ""


class ToldRoots(msgspec.Struct, frozen=True):
    """The primary's roots, and its cluster's id, empty where it has no authority yet; `seen` is their digest."""

    cluster: str
    roots: tuple[CARoot, ...]
    seen: str


class AskSignature(msgspec.Struct, frozen=True):
    """For the certificate of another datacenter's authority, whose request this is."""

    request: Text
    token: Text = ""


class AskEntries(msgspec.Struct, frozen=True):
    """For config entries that have changed since a position."""

    position: Position
    token: Text = ""


encode = msgspec.msgpack.Encoder().encode
decode_roots = msgspec.msgpack.Decoder(ToldRoots).decode
decode_signed = msgspec.msgpack.Decoder(str).decode
decode_changed = msgspec.msgpack.Decoder(Changed).decode
_decode_ask_roots = msgspec.msgpack.Decoder(AskRoots).decode
_decode_ask_signature = msgspec.msgpack.Decoder(AskSignature).decode
_decode_ask_entries = msgspec.msgpack.Decoder(AskEntries).decode


class ForSecondaries:
    """See above: it answers from being made. `authorizer` gives the rights of a token; `chance` names this run, where
    the cluster has no name.
    """

    def __init__(
        self,
        server: Server,
        connect_ca: ConnectCA,
        datacenters: Datacenters,
        authorizer: Callable[[str], Authorizer],
        chance: random.Random | None = None,
    ) -> None:
        self._server = server
        self._run = f"run-{(chance or random.SystemRandom()).getrandbits(64):016x}"
        self._connect_ca = connect_ca
        self._authorizer = authorizer
        datacenters.on_call(ROOTS, self._on_roots)
        datacenters.on_call(SIGN, self._on_sign)
        datacenters.on_call(ENTRIES, self._on_entries)

    async def _on_roots(self, origin: Origin, body: bytes) -> bytes:
        asked: AskRoots = _read(_decode_ask_roots, body)
        found = await self._changed(self._roots, lambda told: told.seen != asked.seen)
        return encode(found)

    def _roots(self) -> Answer[ToldRoots]:
        store = self._server.store
        found = store.read(connect_ca.roots)
        configuration = store.authority.get(ONLY)
        active = any(root.active for root in found.value)
        cluster = configuration.cluster if configuration is not None and active else ""
        digest = hashlib.sha256(encode((cluster, found.value))).hexdigest()
        return Answer(ToldRoots(cluster, tuple(found.value), digest), found.index, found.seen)

    async def _on_sign(self, origin: Origin, body: bytes) -> bytes:
        asked: AskSignature = _read(_decode_ask_signature, body)
        require(self._authorizer(asked.token), "operator", "", WRITE)
        signed = await self._connect_ca.sign_intermediate(asked.request)
        log.info("signed the authority of another datacenter: datacenter=%s server=%s", origin.datacenter, origin.id)
        return encode(signed)

    async def _on_entries(self, origin: Origin, body: bytes) -> bytes:
        asked: AskEntries = _read(_decode_ask_entries, body)
        require(self._authorizer(asked.token), "operator", "", READ)
        name, position = self._server.consensus.cluster or self._run, asked.position

        def look() -> Answer[Changed]:
            return self._server.store.read(changes_after, name, position, ENTRIES_MOST)

        return encode(await self._changed(look, lambda found: bool(found.put or found.delete or found.more)))

    async def _changed(self, look: Callable[[], Answer[Any]], is_new: Callable[[Any], bool]) -> Any:
        """What a look finds that is new, or after a while what it finds. The store holds all that was acknowledged."""
        await self._server.confirm(quorum=False)
        loop = asyncio.get_running_loop()
        end = loop.time() + WAIT
        while True:
            found = look()
            if is_new(found.value) or loop.time() >= end:
                return found.value
            await touched(self._server.store, found.seen, end)


def _read(decode: Callable[[bytes], Any], body: bytes) -> Any:
    try:
        return decode(body)
    except UNREADABLE as error:
        raise InvalidRequest(f"the call cannot be read: {error}") from None
