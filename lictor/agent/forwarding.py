"""Requests that a client agent passes on to a server, whole: what travels there and back, and how a write that has to
be sent again counts once.

The agent numbers the requests that may write. The commands that a request comes to at the server get numbers of its
own, the same each time that it comes (see `lictor.store.numbered`).
"""

import random
from contextvars import ContextVar
from typing import Annotated

import msgspec

from lictor.model.command import Command, Numbered, Plain

REQUEST = "http.request"  # a call
RESOLVE = "dns.query"  # a call; the answer is the packet
STREAM = "http.stream"  # the first piece is the answer's head, the rest are the body's
SPAN = 16  # commands that one request comes to at most
PASSED_ON = ("x-consul-token", "authorization", "accept-encoding", "cache-control", "content-type")

Number = Annotated[int, msgspec.Meta(ge=0, le=(1 << 58) - 1)]
Text = Annotated[str, msgspec.Meta(max_length=256)]


class Asked(msgspec.Struct, frozen=True, array_like=True):
    """A request. `headers` are those of PASSED_ON, `peer` is the address of who asked the agent, `node` its node.
    `number` is 0 for what writes nothing. `translate` is the datacenter in which it was asked, where addresses of
    others are to be those for that.
    """

    method: Text
    target: Annotated[str, msgspec.Meta(max_length=1 << 20)]
    headers: dict[Text, Annotated[str, msgspec.Meta(max_length=1 << 16)]]
    peer: Text
    node: Text
    body: bytes = b""
    origin: Number = 0
    number: Number = 0
    low: Number = 0
    translate: Text = ""


class Question(msgspec.Struct, frozen=True, array_like=True):
    """A DNS request: its packet, the address of who asked the agent, and whether it came over TCP."""

    packet: Annotated[bytes, msgspec.Meta(max_length=1 << 16)]
    sender: Text
    tcp: bool


class Answered(msgspec.Struct, frozen=True, array_like=True):
    """An answer's bytes up to the value of `Date`, without what every answer of an agent has, and those after it;
    the index of the server's store behind it, and whether the server knew of no leader.
    """

    head: bytes
    rest: bytes
    index: int
    leaderless: bool = False


encode = msgspec.msgpack.Encoder().encode
decode_question = msgspec.msgpack.Decoder(Question).decode
decode_asked = msgspec.msgpack.Decoder(Asked).decode
decode_answered = msgspec.msgpack.Decoder(Answered).decode


class Numbers:
    """An agent's numbers for requests that may write."""

    def __init__(self, chance: random.Random) -> None:
        self.origin = chance.getrandbits(58)
        self._next = 1
        self._open: dict[int, None] = {}

    def begin(self) -> tuple[int, int]:
        """A number for a request, and the lowest one that is under way."""
        number = self._next
        self._next += 1
        self._open[number] = None
        return number, next(iter(self._open))

    def end(self, number: int) -> None:
        """A request has been answered, or was given up."""
        self._open.pop(number, None)


class Block:
    """The numbers of the commands that one request comes to."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._used = 0

    def numbered(self, command: Plain) -> Command:
        """A command with the next of them."""
        asked = self._asked
        assert self._used < SPAN
        number = asked.number * SPAN + self._used
        self._used += 1
        return Numbered(asked.origin, number, asked.low * SPAN, command)


block: ContextVar[Block | None] = ContextVar("block", default=None)
"""The numbers of the request that is being carried out; None for one of this agent's own callers."""
