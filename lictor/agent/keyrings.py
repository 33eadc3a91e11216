"""The gossip keys of all pools: an operation on a server's own pools, and on those of the other datacenters, whose
servers do it for theirs.
"""

import asyncio
from typing import TYPE_CHECKING, Annotated

import msgspec

from lictor.agent.pools import KEY_OPERATIONS, KeyringState
from lictor.model.authorizer import READ, WRITE, require
from lictor.model.errors import InvalidRequest, LictorError
from lictor.model.transport import UNREADABLE
from lictor.server.datacenters import Datacenters, Origin

if TYPE_CHECKING:
    from lictor.agent.agent import Agent

KEYRING = "keyring"
SECONDS = 60.0  # in which a datacenter's members have answered
LIST = KEY_OPERATIONS[0]

Text = Annotated[str, msgspec.Meta(max_length=256)]


class KeyOperation(msgspec.Struct, frozen=True, array_like=True):
    """One of `KEY_OPERATIONS` with a key in base64; `relays` is through how many others each answer comes besides."""

    operation: Text
    key: Text
    relays: int
    token: Text = ""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(KeyOperation).decode
_decode_states = msgspec.msgpack.Decoder(list[KeyringState]).decode


async def on_keyrings(agent: "Agent", wanted: KeyOperation, *, local: bool) -> list[KeyringState]:
    """How an operation went in each pool: in the one between datacenters, this datacenter's own, and the others'. With
    `local` only in this datacenter's own.
    """
    own = agent.pools.keys(wanted.operation, wanted.key, wanted.relays, local=local)
    wan = agent.wan
    if local or wan is None:
        return await own
    others = wan.by_distance()[1:]
    states, *further = await asyncio.gather(own, *(_in(wan.datacenters, name, wanted) for name in others))
    return [*states, *(state for found in further for state in found)]


async def _in(datacenters: Datacenters, datacenter: str, wanted: KeyOperation) -> list[KeyringState]:
    try:
        return _decode_states(await datacenters.call(datacenter, KEYRING, _encode(wanted), SECONDS))
    except (LictorError, *UNREADABLE) as error:
        return [KeyringState(False, datacenter, {}, {}, 0, {}, str(error))]


def serve_keyrings(agent: "Agent", datacenters: Datacenters) -> None:
    """Do it for other datacenters with this one's own pool, from now on."""

    async def answer(origin: Origin, body: bytes) -> bytes:
        try:
            wanted = _decode(body)
        except UNREADABLE as error:
            raise InvalidRequest(f"the operation cannot be read: {error}") from None
        if wanted.operation not in KEY_OPERATIONS:
            raise InvalidRequest(f"keys know no operation {wanted.operation!r}")
        require(agent.authorizer(wanted.token), "keyring", "", READ if wanted.operation == LIST else WRITE)
        return _encode(await agent.pools.keys(wanted.operation, wanted.key, wanted.relays, local=True))

    datacenters.on_call(KEYRING, answer)
