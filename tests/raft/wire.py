"""A network within one process, for replicas that run on one event loop: messages in order, calls, and cuts."""

import asyncio
from collections.abc import AsyncIterator

from lictor.model.transport import Caller, OnCall, OnMessage, OnStream, Unreachable


class Wire:
    """All that is connected. A pair in `cut`, by addresses, hears nothing of each other in that direction."""

    def __init__(self) -> None:
        self.ends: dict[str, End] = {}
        self.cut: set[tuple[str, str]] = set()

    def end(self, address: str) -> "End":
        """The network as the server at an address sees it; takes the place of any former one."""
        self.ends[address] = End(self, address)
        return self.ends[address]

    def isolate(self, address: str) -> None:
        """Nothing reaches a server or comes from it."""
        for other in self.ends:
            self.cut |= {(address, other), (other, address)}

    def reached(self, sender: str, target: str) -> "End":
        """The other end. Raises `Unreachable`."""
        end = self.ends.get(target)
        if end is None or (sender, target) in self.cut:
            raise Unreachable(f"{target}: nobody is there")
        return end


class End:
    """A `Transport`."""

    def __init__(self, wire: Wire, address: str) -> None:
        self._wire = wire
        self._address = address
        self._messages: dict[str, OnMessage] = {}
        self._calls: dict[str, OnCall] = {}
        self._streams: dict[str, OnStream] = {}

    def on_message(self, method: str, handler: OnMessage, *, agents: bool = False) -> None:
        self._messages[method] = handler

    def on_call(self, method: str, handler: OnCall, *, agents: bool = False) -> None:
        self._calls[method] = handler

    def on_stream(self, method: str, handler: OnStream, *, agents: bool = False) -> None:
        self._streams[method] = handler

    def send(self, address: str, method: str, body: bytes) -> bool:
        try:
            end = self._wire.reached(self._address, address)
        except Unreachable:
            return False
        handler = end._messages.get(method)
        if handler is not None:
            asyncio.get_running_loop().call_soon(handler, Caller(self._address), body)
        return True

    async def call(self, address: str, method: str, body: bytes, timeout: float) -> bytes:
        end = self._wire.reached(self._address, address)
        handler = end._calls.get(method)
        if handler is None:
            raise Unreachable(f"{address} does not answer {method}")
        try:
            async with asyncio.timeout(timeout):
                answer = await handler(Caller(self._address), body)
        except TimeoutError:
            raise Unreachable(f"{address}: no answer to {method}") from None
        self._wire.reached(address, self._address)
        return answer

    async def stream(self, address: str, method: str, body: bytes) -> AsyncIterator[bytes]:
        end = self._wire.reached(self._address, address)
        async for piece in end._streams[method](Caller(self._address), body):
            self._wire.reached(address, self._address)
            yield piece
