"""One connection to the HTTP door, from its bytes on.

Four ways, tried in this order:

1. The bytes are those of a request whose answer is kept: the answer is written. Nothing is parsed.
2. The bytes are one plain request for a read: no body, nothing unusual in its head. It is parsed here, answered here,
   and the answer is kept. A blocking query waits here, without a task.
3. The bytes are one plain request for a write, or the beginning of one. It waits here for its command's result.
4. Anything else goes to aiohttp's own connection handler, which parses HTTP in full and calls `HttpServer.handle`.

Either of the first two may have to wait until the own store is known to be as fresh as the caller wishes (see
`freshness`): the bytes are then looked at again, and what came meanwhile comes after them.

The first three are taken only while nothing else is under way on the connection and it stands between two requests:
that is what `_quiet` says. Whatever is not provably so stays with the last way.
"""

import asyncio
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from lictor.agent.confirmations import Batch
from lictor.http.freshness import AGE, ANY, LEASE, QUORUM
from lictor.http.plain import END, MAX_PLAIN, parse_plain, parse_write
from lictor.http.reply import Encoded, encode
from lictor.http.request import Request
from lictor.http.routes import ACTION, WRITE
from lictor.http.waiting import Waiting
from lictor.http.writing import Writing
from lictor.model.clock import lease_clock
from lictor.model.errors import LictorError

if TYPE_CHECKING:
    from lictor.http.api import Reading
    from lictor.http.server import HttpServer

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,15})[ \t]*\r\n", re.IGNORECASE)
HEAD_PATIENCE = 60.0  # seconds in which a request's head must be whole


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, server: "HttpServer") -> None:
        self._server = server
        self._api = server.api
        self._answers = server.api.answers.answers
        self._groups = server.api.waiting
        self._date = server.api.date
        self._origin = server.api.freshness.origin
        self._transport: asyncio.Transport | None = None
        self._inner: asyncio.Protocol | None = None
        self._quiet = True
        # What the client waits for: a blocking query's answer, a write's end, or a confirmation, then with the read
        # where it is parsed already; and the request's bytes.
        self._waiting: Waiting | Writing | Batch | None = None
        self._request = b""
        self._unconfirmed: Reading | None = None
        self._held = bytearray()
        # A plain write whose body is not whole yet, and how many bytes it has in all.
        self._begun = bytearray()
        self._wanted = 0
        self._ended = False  # the client has sent its last byte
        # Bytes given to the inner handler since the connection was last quiet, and how many its one request has in all
        # (0 while its head is incomplete, -1 where that cannot be told: then the connection stays with it).
        self._given = 0
        self._expected = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._head = b""
        self._resumed: asyncio.Future[None] | None = None
        self._paused = False
        self._keep = True
        # Called once when the client is gone: set by a handler that waits on its behalf.
        self.when_lost: Callable[[], None] | None = None
        self.peer = ""

    # -- transport ----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit the client, unless it has too many connections already."""
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else ""
        if not self._server.admit(self):
            self._transport.abort()
            self._transport = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everything that waits for this client."""
        self._forget_hurry()
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            waiting.leave(self)
        if self.when_lost is not None:
            self.when_lost()
        if self._inner is not None:
            self._inner.connection_lost(exc)
            self._inner = None
        if self._resumed is not None and not self._resumed.done():
            self._resumed.set_result(None)
        if self._transport is not None:
            self._transport = None
            self._server.gone(self)

    def pause_writing(self) -> None:
        """The client reads slowly."""
        self._resumed = asyncio.get_running_loop().create_future()
        if self._inner is not None:
            self._inner.pause_writing()
        self._pace()

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self._resumed is not None and not self._resumed.done():
            self._resumed.set_result(None)
        self._resumed = None
        if self._inner is not None:
            self._inner.resume_writing()
        self._pace()
        self._go_on()

    def _pace(self) -> None:
        """Read no further while the client takes no answers, or has sent much that waits behind a blocking query. What
        aiohttp handles, it paces itself.
        """
        if self._transport is None or self._transport.is_closing() or not (self._quiet or self._waiting is not None):
            return
        paused = self._resumed is not None or len(self._held) > MAX_PLAIN
        if paused != self._paused:
            self._paused = paused
            if paused:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    async def drained(self) -> None:
        """Return once the client has taken enough of what was written."""
        if self._resumed is not None:
            await asyncio.shield(self._resumed)

    def eof_received(self) -> bool | None:
        """The client has closed its side. What waits for a confirmation, or for a write's end, is answered
        nevertheless: it is as if it had been answered at once.
        """
        if isinstance(self._waiting, Batch | Writing) and self._transport is not None:
            self._ended = True
            return self._transport.get_extra_info("sslcontext") is None  # TLS cannot be closed by halves
        return self._inner.eof_received() if self._inner is not None else None

    # -- requests -----------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        if self._wanted:
            self._begun += data
            if len(self._begun) < self._wanted:
                return
            data = bytes(self._begun)
            self._wanted = 0
            self._begun.clear()
        elif self._waiting is not None or self._held:
            self._held += data
            self._pace()
            return
        if self._quiet:
            answer = self._answers.get(data)
            if answer is not None:
                gate = answer.gate
                if not gate or (gate == LEASE and lease_clock() < self._origin.fresh_until):
                    self._api.hits += 1
                    self._transport.write(answer.before + self._date.bytes() + answer.after)  # type: ignore[union-attr]
                    return
                if gate == AGE and self._api.freshness.open(AGE, answer.max_stale):
                    self._api.hits += 1
                    self._transport.write(self._api.written(answer))  # type: ignore[union-attr]
                    return
            if self._plain(data) if data.startswith(b"GET ") else self._plain_write(data):
                return
        self._hand_over(data)

    def _plain(self, data: bytes) -> bool:
        gate = ANY
        kept = self._answers.get(data)
        if kept is not None:
            gate = kept.gate
        else:
            group = self._groups.get(data)
            if group is not None:
                waiting, reading = group
                if reading.open:
                    self._wait(data, waiting, reading.seconds)
                    return True
                gate = reading.gate
        self._keep = True
        if gate in (LEASE, QUORUM):
            self._confirm(data, None, consistent=gate == QUORUM)
            return True
        try:
            read = self._parse(data)
            if read is None:
                return False
            if read.open:
                self._read(data, read)
            else:
                self._confirm(data, read, consistent=read.to_confirm())
        except Exception as error:
            self._fail(error)
        return True

    def _parse(self, data: bytes) -> "Reading | None":
        """The read that a plain request is for; None where it is not one. Raises `LictorError` where it is wrong."""
        parsed = parse_plain(data)
        if parsed is None:
            return None
        target, headers, self._keep = parsed
        api = self._api
        request = Request("GET", target, headers, self.peer)
        found = api.routes.find(request.path)
        if found is None or "GET" not in found[0] or request.clean_path != request.path:
            return None
        endpoint, names = found[0]["GET"]
        if endpoint.kind in (ACTION, WRITE) or (request.query and api.elsewhere(endpoint, request)):
            return None
        client = api.agent.client
        reading = None
        if client is not None and endpoint.at_servers:
            if not client.active:
                return None
            reading = api.prepare(endpoint, names, found[1], request)
            if not client.covers(reading.looks_at()):
                return None
        api.misses += 1
        self._server.requests += 1
        return reading or api.prepare(endpoint, names, found[1], request)

    def _read(self, data: bytes, reading: "Reading") -> None:
        """Answer from the store, or wait with what is there."""
        api, keep = self._api, self._keep
        answer, moved = reading.evaluate()
        if moved:
            encoded = reading.encode(answer)
            if keep:
                api.remember(data, reading, answer, encoded)
            self._send(encoded)
            return
        waiting = api.start_waiting(data if keep else None, reading, answer)
        self._wait(data, waiting, reading.seconds)

    def _fail(self, error: Exception) -> None:
        api = self._api
        if isinstance(error, LictorError):
            self._send(encode(api.error_reply(error), api.common_head, close=not self._keep))
        else:
            self._keep = False
            self._send(encode(api.fault_reply(error), api.common_head, close=True))

    def _confirm(self, data: bytes, reading: "Reading | None", *, consistent: bool) -> None:
        """Have the own store confirmed before a request is answered; `reading` where it has been parsed already."""
        self._quiet = False
        self._request, self._unconfirmed = data, reading
        self._waiting = self._api.freshness.confirmations.ask(self, consistent=consistent)

    def confirmed(self, error: Exception | None) -> None:
        """The own store is as fresh as the request that waits wishes or, with an error, cannot be known to be."""
        reading, self._unconfirmed = self._unconfirmed, None
        self._waiting = None
        self._quiet = True
        try:
            self._answer(self._request, reading, error)
        except Exception as failed:
            self._fail(failed)
        self._go_on()

    def _answer(self, data: bytes, reading: "Reading | None", error: Exception | None) -> None:
        if reading is None and error is None:
            answer = self._answers.get(data)
            if answer is not None:
                self._api.hits += 1
                self._send(answer)
                return
            group = self._groups.get(data)
            if group is not None:
                self._wait(data, group[0], group[1].seconds)
                return
        if reading is None:
            reading = self._parse(data)
            assert reading is not None  # these bytes were read before
        if error is not None and not reading.unconfirmed(error):
            raise error
        self._read(data, reading)

    def _plain_write(self, data: bytes) -> bool:
        """Begin a plain write, or wait for the rest of its body. Returns False where this is none."""
        parsed = parse_write(data)
        if parsed is None:
            return False
        try:
            request = Request(parsed.method, parsed.target, parsed.headers, self.peer, data[parsed.body :])
        except LictorError:
            return False
        found = self._api.routes.find(request.path)
        if found is None or parsed.method not in found[0] or request.clean_path != request.path:
            return False
        endpoint, names = found[0][parsed.method]
        if endpoint.at_servers and self._api.agent.client is not None:
            return False
        if self._api.elsewhere(endpoint, request):
            return False
        if endpoint.kind != WRITE or parsed.end - parsed.body > self._api.body_limit(endpoint):
            return False
        if len(data) < parsed.end:
            self._wanted = parsed.end
            self._begun += data
            return True
        self._server.requests += 1
        self._keep = parsed.keep
        writing = Writing(self._server, self, endpoint, request, keep=parsed.keep)
        try:
            writing.begin(names, found[1])
        except Exception as error:
            self._fail(error)
        else:
            self._quiet = False
            self._waiting = writing
        return True

    def written(self, answer: Encoded) -> None:
        """The write of this connection has ended."""
        self._waiting = None
        self._quiet = True
        self._send(answer)
        self._go_on()

    def _wait(self, data: bytes, waiting: Waiting, seconds: float) -> None:
        self._quiet = False
        self._request = data
        self._waiting = waiting
        waiting.join(self, seconds)

    def finish(self, answer: Encoded) -> None:
        """A blocking query of this connection has its answer. Where that is older by now than its caller allows, there
        is another one once it is confirmed.
        """
        self._waiting = None
        self._quiet = True
        if answer.max_stale == math.inf or self._api.freshness.open(answer.gate, answer.max_stale):
            self._send(answer)
        else:
            self._renew(self._request)
        self._go_on()

    def _renew(self, data: bytes) -> None:
        try:
            reading = self._parse(data)
            assert reading is not None  # these bytes were read before
            reading.index = 0
            self._confirm(data, reading, consistent=reading.to_confirm())
        except Exception as error:
            self._fail(error)

    def _go_on(self) -> None:
        """Take up what came while the client waited, or took no answers."""
        if not self._quiet or self._resumed is not None or self._transport is None:
            return
        if self._held:
            data = bytes(self._held)
            self._held.clear()
            self._pace()
            self.data_received(data)
        elif self._ended:
            self._transport.close()

    def _send(self, answer: Encoded) -> None:
        transport = self._transport
        if transport is None:
            return
        transport.write(self._api.written(answer))
        if not self._keep:
            transport.close()

    # -- aiohttp's way ------------------------------------------------------------------------------------------------

    def _hand_over(self, data: bytes) -> None:
        if self._transport is None:
            return
        if self._inner is None:
            self._inner = self._server.inner()
            self._inner.connection_made(self._transport)
        if self._quiet:
            self._quiet = False
            self._given = self._expected = 0
            self._head = b""
        self._given += len(data)
        if self._expected == 0:
            self._measure(data)
            self._hurry()
        self._inner.data_received(data)

    def _hurry(self) -> None:
        """Give a client whose request's head is not whole yet `HEAD_PATIENCE` to send the rest, from its first byte
        on.
        """
        if self._expected != 0:
            self._forget_hurry()
        elif self._head_timer is None:
            self._head_timer = asyncio.get_running_loop().call_later(HEAD_PATIENCE, self.close)

    def _forget_hurry(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _measure(self, data: bytes) -> None:
        """Find how long the request is that begins at the last quiet moment."""
        self._head += data
        end = self._head.find(END)
        if end < 0:
            if len(self._head) > 2 * MAX_PLAIN:
                self._expected = -1
                self._head = b""
            return
        head = self._head[: end + 2].lower()
        lengths = _LENGTH.findall(head)
        unusual = b"\r\ntransfer-encoding" in head or b"\r\nupgrade" in head
        if unusual or head.count(b"\r\ncontent-length") != len(lengths) or len(lengths) > 1:
            self._expected = -1
        else:
            self._expected = end + 4 + (int(lengths[0]) if lengths else 0)
        self._head = b""

    def handled(self) -> None:
        """The inner handler has sent a whole answer: the connection is quiet again where nothing follows it."""
        if self._expected == self._given and self._transport is not None:
            self._quiet = True
            self._pace()
            if self._ended:
                self._go_on()

    def close(self) -> None:
        """Close after what was written has gone out."""
        if self._transport is not None:
            self._transport.close()
