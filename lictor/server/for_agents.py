"""What a server does for agents that are no servers: it applies what they say of their own nodes, and answers when it
has.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from lictor.model.command import Command, CoordinateUpdate, Deregister, LeavesRevoke, Register, Restore, RestorePart
from lictor.model.errors import Forbidden, InvalidRequest
from lictor.model.transport import UNREADABLE, Caller, Transport
from lictor.store.numbered_results import encode_result
from lictor.store.store import Store

APPLY = "server.apply"
TAKEN = (Register, Deregister, CoordinateUpdate, LeavesRevoke, RestorePart, Restore)
"""What agents send as commands. All else comes to servers as a request, which is judged like any other."""


class Applied(msgspec.Struct, frozen=True, array_like=True):
    """A command's result, encoded, and the index of a store that has it."""

    result: bytes
    index: int


encode_command = msgspec.msgpack.Encoder().encode
_decode_command = msgspec.msgpack.Decoder(Command).decode
_encode_applied = msgspec.msgpack.Encoder().encode
decode_applied = msgspec.msgpack.Decoder(Applied).decode


def serve_agents(transport: Transport, store: Store, apply: Callable[[Command], Awaitable[Any]]) -> None:
    """Answer agents' calls from now on."""

    async def answer(caller: Caller, body: bytes) -> bytes:
        try:
            command = _decode_command(body)
        except UNREADABLE as error:
            raise InvalidRequest(f"the command cannot be read: {error}") from None
        if not isinstance(command, TAKEN):
            raise Forbidden(f"agents send no {type(command).__name__} commands")
        if isinstance(command, LeavesRevoke):
            _check_revoked(store, command)
        result = await apply(command)
        return _encode_applied(Applied(encode_result(result), store.index))

    transport.on_call(APPLY, answer, agents=True)


def _check_revoked(store: Store, command: LeavesRevoke) -> None:
    """An agent takes back what it had signed for its own node, and the catalog knows that. Raises `Forbidden`."""
    nodes = {leaf.node.lower() for leaf in command.leaves}
    if len(nodes) > 1 or any(store.nodes.get(node) is None for node in nodes):
        raise Forbidden("an agent revokes the certificates of its own node, which must be in the catalog")
