"""What servers ask of the network between them: an interface, and its errors.

Three kinds of traffic, each under a method's name:

- a *message* goes one way: it may be lost, but what arrives from one sender arrives in the order in which it was sent;
- a *call* is answered once, or fails;
- a *stream* is answered piece by piece, no faster than the caller takes the pieces.

Where callers have to show that they are servers (`tls.internal_rpc.verify_server_hostname`), a method is for servers
alone, unless it was registered as one for all `agents`: any caller may use those who may connect at all, which with
`verify_incoming` is anybody whose certificate the authorities have signed.

`lictor.rpc.network.Network` is the real one; tests put a simulated one in its place.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import msgspec

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding raises where bytes from the network are not what they should be."""


class Unreachable(Exception):
    """There was no answer: whether the other side acted is not known. The message says what failed, and where."""


class Caller(msgspec.Struct, frozen=True):
    """Who called. `address` is host:port of the connection's other end, `names` what its certificate was verified to
    be for, nothing without TLS.
    """

    address: str
    names: tuple[str, ...] = ()


OnMessage = Callable[[Caller, bytes], None]
OnCall = Callable[[Caller, bytes], Awaitable[bytes]]
OnStream = Callable[[Caller, bytes], AsyncIterator[bytes]]


class Transport(Protocol):
    """The network. Addresses are host:port of a server's `ports.server`."""

    def on_message(self, method: str, handler: OnMessage, *, agents: bool = False) -> None:
        """Have messages of a method handled. The handler must be quick: it runs as the bytes arrive. Without `agents`
        only servers may send them.
        """
        ...

    def on_call(self, method: str, handler: OnCall, *, agents: bool = False) -> None:
        """Have calls of a method answered. What it raises of `LictorError` is raised again at the caller. Without
        `agents` only servers may call.
        """
        ...

    def on_stream(self, method: str, handler: OnStream, *, agents: bool = False) -> None:
        """Have streams of a method answered, until the handler ends or the caller goes away. Without `agents` only
        servers may ask for them.
        """
        ...

    def send(self, address: str, method: str, body: bytes) -> bool:
        """Send a message. Returns False where it was dropped: nobody is there, or too much is on its way already. The
        first to an address begins to connect, and waits for the connection.
        """
        ...

    async def call(self, address: str, method: str, body: bytes, timeout: float) -> bytes:
        """Call, and return the answer. `timeout` is in seconds. Raises `Unreachable` and the callee's `LictorError`."""
        ...

    def stream(self, address: str, method: str, body: bytes) -> AsyncIterator[bytes]:
        """Ask for a stream. Iterating raises `Unreachable` where it breaks off, and the callee's `LictorError`."""
        ...
