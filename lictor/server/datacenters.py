"""Calls between datacenters: a server has any server of another one answer, or the leader there.

    answer = await datacenters.call("dc2", "connect.sign", body, timeout)      # on a server of dc1
    datacenters.on_call("connect.sign", handler)                               # on the servers of dc2
    datacenters.on_leader_call("connect.sign", calls)                          # or: its leader answers

Who the servers are is told by gossip (`servers`); how one datacenter's are reached is handed in (`way`). A server that
does not answer is passed over for the next one. A datacenter none of whose servers answers is cut off: callers are told
so at once, and while there are any, one server is asked now and then whether it is there again. So nobody waits for
those who are away, and little is asked of them.
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Container, Iterable
from contextlib import aclosing
from typing import Annotated

import msgspec

from lictor.model.errors import Forbidden, InvalidRequest, LictorError, NoPath, Refused, Unsupported
from lictor.model.transport import UNREADABLE, Caller, Transport, Unreachable
from lictor.server.leader_calls import LeaderCalls

CALL = "datacenter.call"
STREAM = "datacenter.stream"
PING = "ping"  # a method that every server answers
CUT_PAUSE = 1.0  # seconds between two looks at a datacenter that is cut off
PROBE_SECONDS = 5.0  # that one look lasts at most
FORGIVEN = 10.0  # seconds after which a server's failure counts no more
MOST_CALLS = 4096  # that wait for one datacenter at once
MOST_ANSWERED = 4096  # calls of other datacenters that are answered at once
SPARE = 1024  # of both, which are kept for what servers themselves ask

UNREACHED = "Remote DC has no server currently reachable"

log = logging.getLogger("lictor.datacenters")

Text = Annotated[str, msgspec.Meta(max_length=256)]


class Place(msgspec.Struct, frozen=True):
    """A server of some datacenter: `id` is its node's, `address` where it takes calls, host:port, `alive` whether
    gossip takes it for that.
    """

    datacenter: str
    id: str
    address: str
    alive: bool = True


class Origin(msgspec.Struct, frozen=True):
    """The server of another datacenter that calls: its datacenter and its node's id."""

    datacenter: str
    id: str


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """A call as it travels: who calls, for whom it is, and what."""

    origin: Text
    origin_id: Text
    datacenter: Text
    method: Text
    body: bytes


OnDatacenterCall = Callable[[Origin, bytes], Awaitable[bytes]]
OnDatacenterStream = Callable[[Origin, bytes], AsyncIterator[bytes]]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Envelope).decode


class _Cut:
    """A datacenter of which nobody answers: when it was asked last, which of its servers' addresses gossip took for
    alive then, what is in the way, and whether somebody looks.
    """

    __slots__ = ("alive", "at", "probe", "reason")

    def __init__(self, at: float, alive: frozenset[str], reason: str) -> None:
        self.at = at
        self.alive = alive
        self.reason = reason
        self.probe: asyncio.Task[None] | None = None


class Datacenters:
    """See above. `own` is this server's datacenter, `own_id` its node's id. `servers` gives the servers of all
    datacenters that have not left, `way` the network over which those of one are reached; `certified` is whether a
    caller's certificate lets it speak for a datacenter. `passed_on` are the methods by which programs' requests are
    passed on, which may wait for long, and of which there may be many: they leave room for others.
    """

    def __init__(
        self,
        own: str,
        own_id: str,
        servers: Callable[[], Iterable[Place]],
        way: Callable[[str], Transport],
        chance: random.Random,
        certified: Callable[[Caller, str], bool] = lambda caller, datacenter: True,
        passed_on: Container[str] = (),
    ) -> None:
        self.own = own
        self._own_id = own_id
        self._servers = servers
        self._way = way
        self._chance = chance
        self._certified = certified
        self._passed_on = passed_on
        self._calls: dict[str, OnDatacenterCall] = {}
        self._streams: dict[str, OnDatacenterStream] = {}
        self._ranks: dict[str, float] = {}  # by address: which server is asked first is each caller's own choice
        self._failed: dict[str, float] = {}
        self._cut: dict[str, _Cut] = {}
        self._waiting: dict[str, int] = {}
        self._answering = 0
        self.on_call(PING, _pong)

    async def close(self) -> None:
        """Stop looking for datacenters that are cut off."""
        probes = [cut.probe for cut in self._cut.values() if cut.probe is not None]
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)

    def known(self) -> list[str]:
        """The names of all datacenters that have a server, this one among them."""
        return sorted({self.own, *(place.datacenter for place in self._servers() if place.datacenter)})

    # -- what comes ---------------------------------------------------------------------------------------------------

    def on_call(self, method: str, handler: OnDatacenterCall) -> None:
        """Have a method answered when servers of other datacenters call it."""
        self._calls[method] = handler

    def on_leader_call(self, method: str, calls: LeaderCalls, *, patience: float = 0.0) -> None:
        """Have it answered by the leader here, which has a handler for it under the same name (`calls.register`) and
        may need `patience` seconds for it.
        """

        async def answer(origin: Origin, body: bytes) -> bytes:
            return await calls.call(method, body, patience=patience)

        self._calls[method] = answer

    def on_stream(self, method: str, handler: OnDatacenterStream) -> None:
        """Have a stream of a method answered when servers of other datacenters ask for it."""
        self._streams[method] = handler

    def serve(self, transport: Transport) -> None:
        """Answer servers of other datacenters over a network from now on."""

        async def answer(caller: Caller, body: bytes) -> bytes:
            origin, found = self._admit(caller, body)
            self._answering += 1
            try:
                return await self._handle(origin, found)
            finally:
                self._answering -= 1

        transport.on_call(CALL, answer, agents=True)
        transport.on_stream(STREAM, self._produce, agents=True)

    def _admit(self, caller: Caller, body: bytes) -> tuple[Origin, Envelope]:
        """Who calls, and what. Raises `Forbidden` for who is no server of another datacenter."""
        try:
            found = _decode(body)
        except UNREADABLE as error:
            raise InvalidRequest(f"the call cannot be read: {error}") from None
        known = any(one.datacenter == found.origin and one.id == found.origin_id for one in self._servers())
        if not known or found.origin == self.own:
            raise Forbidden(f"no server of datacenter {found.origin!r} with this id is known in datacenter {self.own}")
        if not self._certified(caller, found.origin):
            raise Forbidden(f"the certificate is none of a server of datacenter {found.origin!r}")
        if found.datacenter != self.own:
            raise Unsupported(f"this is a server of datacenter {self.own}")
        if self._answering >= self._room(found.method, MOST_ANSWERED):
            raise LictorError("too many calls of other datacenters at once: try again")
        return Origin(found.origin, found.origin_id), found

    async def _handle(self, origin: Origin, found: Envelope) -> bytes:
        handler = self._calls.get(found.method)
        if handler is None:
            raise Unsupported(f"this server does not answer {found.method!r} for other datacenters")
        return await handler(origin, found.body)

    async def _produce(self, caller: Caller, body: bytes) -> AsyncGenerator[bytes, None]:
        origin, found = self._admit(caller, body)
        handler = self._streams.get(found.method)
        if handler is None:
            raise Unsupported(f"this server does not answer {found.method!r} for other datacenters")
        self._answering += 1
        try:
            async for piece in handler(origin, found.body):
                yield piece
        finally:
            self._answering -= 1

    # -- what goes ----------------------------------------------------------------------------------------------------

    async def call(self, datacenter: str, method: str, payload: bytes, timeout: float) -> bytes:
        """Have a server of a datacenter answer a call that does no harm twice, within `timeout` seconds. Raises
        `NoPath` where none is known, `Refused` where none answers, and what the one that does raises of `LictorError`.
        """
        body = _encode(Envelope(self.own, self._own_id, datacenter, method, payload))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        with _Counted(self._waiting, datacenter, self._room(method, MOST_CALLS)):
            failure: Exception = Unreachable("there was no time to ask")
            for place in self._candidates(datacenter):
                try:
                    answer = await self._way(datacenter).call(place.address, CALL, body, deadline - loop.time())
                except (Unreachable, Unsupported) as error:
                    failure = error
                    if loop.time() >= deadline:
                        # It may be well, and what was asked of it long: that says nothing of the datacenter.
                        raise Refused(f"rpc error making call: {error}") from None
                    self._note_failure(place, error)
                except LictorError:
                    self._note_answer(place)
                    raise
                else:
                    self._note_answer(place)
                    return answer
            raise self._given_up(datacenter, failure)

    async def stream(self, datacenter: str, method: str, payload: bytes) -> AsyncGenerator[bytes, None]:
        """A server's answer piece by piece. Raises what `call` raises; once it has begun, it is not asked for again."""
        body = _encode(Envelope(self.own, self._own_id, datacenter, method, payload))
        with _Counted(self._waiting, datacenter, self._room(method, MOST_CALLS)):
            failure: Exception = Unreachable("there was no answer")
            for place in self._candidates(datacenter):
                begun = False
                try:
                    async with aclosing(
                        _generator(self._way(datacenter).stream(place.address, STREAM, body))
                    ) as pieces:
                        async for piece in pieces:
                            if not begun:
                                begun = True
                                self._note_answer(place)
                            yield piece
                    return
                except (Unreachable, Unsupported) as error:
                    failure = error
                    self._note_failure(place, error)
                    if begun:
                        break
            raise self._given_up(datacenter, failure)

    def _room(self, method: str, most: int) -> int:
        """How many calls there may be, of `most`, for another one of a method."""
        return most - SPARE if method in self._passed_on else most

    def _candidates(self, datacenter: str) -> list[Place]:
        """Whom to ask, the likeliest first. Raises `NoPath`, and `Refused` for a datacenter that is cut off."""
        places = self._order(datacenter)
        if not places or datacenter == self.own:
            raise NoPath
        cut = self._cut.get(datacenter)
        if cut is None:
            return places
        if any(place.alive and place.address not in cut.alive for place in places):
            return places  # gossip has found one that is there again
        now = asyncio.get_running_loop().time()
        if cut.probe is None and now - cut.at >= CUT_PAUSE:
            cut.probe = asyncio.get_running_loop().create_task(self._look(cut, places[0]))
        raise Refused(cut.reason)

    async def _look(self, cut: _Cut, place: Place) -> None:
        """See whether a server of a datacenter that is cut off answers again."""
        datacenter = place.datacenter
        body = _encode(Envelope(self.own, self._own_id, datacenter, PING, b""))
        try:
            await self._way(datacenter).call(place.address, CALL, body, PROBE_SECONDS)
        except (Unreachable, Unsupported) as error:
            self._note_failure(place, error)
            cut.reason = self._reason(datacenter, error)
        except LictorError:
            self._note_answer(place)
        else:
            self._note_answer(place)
        finally:
            cut.at, cut.probe = asyncio.get_running_loop().time(), None

    def _order(self, datacenter: str) -> list[Place]:
        """A datacenter's servers, those first that have failed longest ago, or not at all."""
        everyone = list(self._servers())
        addresses = {place.address for place in everyone}
        for kept in (self._ranks, self._failed):
            for gone in [address for address in kept if address not in addresses]:
                del kept[gone]
        now = asyncio.get_running_loop().time()

        def order(place: Place) -> tuple[bool, float, bool, float]:
            at = self._failed.get(place.address, -FORGIVEN)
            failed = now - at < FORGIVEN
            rank = self._ranks.setdefault(place.address, self._chance.random())
            return failed, at if failed else 0.0, not place.alive, rank

        return sorted((place for place in everyone if place.datacenter == datacenter), key=order)

    def _note_answer(self, place: Place) -> None:
        self._failed.pop(place.address, None)
        if self._cut.pop(place.datacenter, None) is not None:
            log.info("datacenter %s can be reached again", place.datacenter)

    def _note_failure(self, place: Place, error: Exception) -> None:
        self._failed[place.address] = asyncio.get_running_loop().time()
        log.debug("a server of datacenter %s does not answer: %s", place.datacenter, error)

    def _given_up(self, datacenter: str, failure: Exception) -> LictorError:
        if isinstance(failure, Unsupported):
            return failure
        reason = self._reason(datacenter, failure)
        places = [place for place in self._servers() if place.datacenter == datacenter]
        cut = self._cut.get(datacenter)
        if cut is None:
            log.warning("no server of datacenter %s answers: %s", datacenter, failure)
            cut = self._cut[datacenter] = _Cut(0.0, frozenset(), reason)
        cut.at, cut.reason = asyncio.get_running_loop().time(), reason
        cut.alive = frozenset(place.address for place in places if place.alive)
        return Refused(reason)

    def _reason(self, datacenter: str, failure: Exception) -> str:
        alive = any(place.alive for place in self._servers() if place.datacenter == datacenter)
        return f"rpc error making call: {failure}" if alive else UNREACHED


async def _pong(origin: Origin, body: bytes) -> bytes:
    return b""


class _Counted:
    """Counts a call among those that wait for one datacenter, as long as it is entered; `most` may wait."""

    __slots__ = ("_counts", "_most", "_name")

    def __init__(self, counts: dict[str, int], name: str, most: int) -> None:
        self._counts = counts
        self._name = name
        self._most = most

    def __enter__(self) -> None:
        count = self._counts.get(self._name, 0)
        if count >= self._most:
            raise Refused(f"rpc error making call: {count} calls wait for datacenter {self._name} already")
        self._counts[self._name] = count + 1

    def __exit__(self, *unused: object) -> None:
        left = self._counts[self._name] - 1
        if left:
            self._counts[self._name] = left
        else:
            del self._counts[self._name]


async def _generator(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """An iterator as one that can be closed."""
    async for piece in pieces:
        yield piece
