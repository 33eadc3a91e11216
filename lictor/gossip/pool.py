"""The shell: a pool's datagrams and streams on one port, the clock, and the journal's file. It decides nothing.

Everything that happens is a call into the core on the event loop's thread; whatever the core wants done is done right
after. Streams are opened and read in tasks of their own, with a limit on how many at once and how long each may take.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path

import msgspec

from lictor.gossip import codec, encryption, wire
from lictor.gossip.codec import WireError
from lictor.gossip.effects import Effect, JoinRefused, Notice, PingStream, PushPull, SendPacket, Severity
from lictor.gossip.journal_file import JournalFile
from lictor.gossip.keyring import Keyring
from lictor.gossip.messages import Ack, Address, ErrorReply, Kind
from lictor.gossip.meter import Meter, NoMeter
from lictor.gossip.pool_events import (
    Change,
    EventReceived,
    Left,
    MemberChanged,
    PoolEvent,
    QueryProgressed,
    QueryReceived,
)
from lictor.gossip.queries import PendingQuery
from lictor.gossip.roster import Status
from lictor.gossip.serf import Admission, Serf, admit_all
from lictor.gossip.settings import LAN, SerfSettings, SwimSettings
from lictor.gossip.sockets import BACKLOG, Sockets, bind
from lictor.gossip.wire import Sealer, StreamMessage, StreamReader

_LEVELS = {
    Severity.DEBUG: logging.DEBUG,
    Severity.INFO: logging.INFO,
    Severity.WARN: logging.WARNING,
    Severity.ERROR: logging.ERROR,
}
_MEMBER_METRICS = {
    Change.JOIN: "serf.member.join",
    Change.LEAVE: "serf.member.left",
    Change.FAILED: "serf.member.failed",
    Change.UPDATE: "serf.member.update",
    Change.REAP: "serf.member.reap",
}
_READ = 64 * 1024
_MAX_STREAMS = BACKLOG
_SHORTEST = 0.001  # seconds for which a timer is set at least


class JoinFailed(OSError):
    """No node could be joined; the text has a line for each that was tried."""


class PoolConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a pool is made of. `bind` with port 0 takes a free one; `advertise` is what others are told, if another."""

    name: str
    bind: Address
    advertise: Address | None = None
    tags: dict[str, str] = {}
    swim: SwimSettings = LAN
    serf: SerfSettings = SerfSettings()
    keyring: Keyring = msgspec.field(default_factory=Keyring)
    label: str = ""
    verify_incoming: bool = True
    verify_outgoing: bool = True
    compressing: bool = False
    journal: Path | None = None
    admission: Admission = admit_all
    meter: Meter = msgspec.field(default_factory=NoMeter)


class Pool(asyncio.DatagramProtocol):
    """A running pool. `serf` is the core; call it through `do`, which carries out what it wants afterwards."""

    def __init__(self, config: PoolConfig, on_event: Callable[[PoolEvent], None], log: logging.Logger) -> None:
        self.serf: Serf
        self.address: Address
        self._config = config
        self._meter = config.meter
        self._on_event = on_event
        self._log = log
        self._sealer = Sealer(
            config.keyring,
            config.label,
            config.verify_incoming,
            config.verify_outgoing,
            config.compressing,
            # The first version of the protocol pads what it seals.
            encryption.PADDED if config.swim.protocol_version == 1 else encryption.UNPADDED,
        )
        self._journal: JournalFile | None = None
        self._datagrams: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._streams = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._left = asyncio.Event()
        self._closed = asyncio.Event()
        self._queries: dict[int, asyncio.Event] = {}
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def start(
        cls,
        config: PoolConfig,
        on_event: Callable[[PoolEvent], None],
        log: logging.Logger | None = None,
        sockets: Sockets | None = None,
    ) -> Pool:
        """Becomes a pool of one, on these sockets or on new ones at `config.bind`; they are the pool's from now on.
        Raises OSError when the address is taken, ValueError for tags too long.
        """
        pool = cls(config, on_event, log or logging.getLogger("lictor.gossip"))
        sockets = sockets or bind(config.bind.host, config.bind.port)
        try:
            await pool._open(*sockets)
        except BaseException:
            await pool.stop()
            for opened in sockets:
                opened.close()
            raise
        return pool

    async def _open(self, udp: socket.socket, tcp: socket.socket) -> None:
        config = self._config
        self.address = Address(config.bind.host, udp.getsockname()[1])
        advertised = config.advertise or self.address
        if config.journal is not None:
            self._journal = JournalFile(config.journal, config.serf.rejoin_after_leave)
        swim = msgspec.structs.replace(config.swim, packet_overhead=self._sealer.overhead())
        self.serf = Serf(
            config.name,
            msgspec.structs.replace(advertised, port=advertised.port or self.address.port),
            config.tags,
            rng=random.Random(),
            swim_settings=swim,
            settings=config.serf,
            keyring=config.keyring,
            journal=self._journal.found if self._journal is not None else None,
            admission=config.admission,
        )
        self._datagrams, _ = await self._loop.create_datagram_endpoint(lambda: self, sock=udp)
        self._server = await asyncio.start_server(self._accept, sock=tcp)
        self.do(lambda serf, now: serf.start(now))

    # The core

    def do(self, call: Callable[[Serf, float], object]) -> None:
        """Calls into the core with the time, then carries out what it wants."""
        call(self.serf, self._loop.time())
        self._carry_out()

    def _carry_out(self) -> None:
        while effects := self.serf.take_effects():
            for effect in effects:
                self._effect(effect)
        for event in self.serf.take_events():
            self._event(event)
        self.serf.swim.report(self._meter)
        self._arm()

    def _effect(self, effect: Effect) -> None:
        match effect:
            case SendPacket(to, content, checksummed):
                if self._datagrams is not None and not self._datagrams.is_closing():
                    packet = self._sealer.seal_packet(content, checksummed)
                    self._meter.count("memberlist.udp.sent", len(packet))
                    try:
                        self._datagrams.sendto(packet, (to.host, to.port))
                    except (OSError, ValueError) as error:  # an address of the other family, as some node claims it
                        self.error_received(error)
            case PingStream():
                self._spawn(self._ping_stream(effect))
            case PushPull(to, join):
                self._spawn(self._push_pull_quietly(to, join))
            case Notice(severity, text):
                self._log.log(_LEVELS[severity], "%s", text)

    def _event(self, event: PoolEvent) -> None:
        if isinstance(event, MemberChanged):
            self._meter.count(_MEMBER_METRICS[event.change])
        elif isinstance(event, EventReceived):
            self._meter.count("serf.events")
        elif isinstance(event, QueryReceived):
            self._meter.count("serf.queries")
        if self._journal is not None:
            self._journal.record(event, self.serf.clock.time)
        if isinstance(event, QueryProgressed):
            waiting = self._queries.get(id(event.pending))
            if waiting is not None:
                waiting.set()
        elif isinstance(event, Left):
            self._left.set()
        self._on_event(event)

    def _arm(self) -> None:
        deadline = self.serf.deadline
        if deadline is None or self._datagrams is None:
            return
        if self._timer is not None:
            if self._timer_at <= deadline:
                return
            self._timer.cancel()
        self._timer_at = deadline
        # A loop may call some tenths of a millisecond too early: what is left then is waited for, not asked for again
        # and again until it is there.
        self._timer = self._loop.call_at(max(deadline, self._loop.time() + _SHORTEST), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.do(lambda serf, now: serf.advance(now))

    # Datagrams

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """A datagram; what cannot be read is logged and dropped."""
        if self._server is None:
            return  # the core has not begun; whoever waits for an answer asks again
        self._meter.count("memberlist.udp.received", len(data))
        try:
            content = self._sealer.open_packet(data)
            source = Address(addr[0], addr[1])
            self.do(lambda serf, now: serf.receive(content, source, now))
        except WireError as error:
            self._log.error("%s from=%s:%d", error, addr[0], addr[1])

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket for datagrams is closed."""
        self._closed.set()

    def error_received(self, exc: Exception) -> None:
        """A datagram could not be delivered, which the core notices by itself."""
        self._log.debug("datagram not delivered: %s", exc)

    # Streams

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self._streams >= _MAX_STREAMS:
            self._log.error("Too many pending push/pull requests")
            writer.close()
            return
        self._streams += 1
        self._meter.count("memberlist.tcp.accept")
        try:
            async with asyncio.timeout(self._config.swim.stream_timeout):
                await self._serve(reader, writer)
        except (WireError, JoinRefused, OSError, EOFError) as error:
            self._log.error("stream from=%s: %s", peer, error or type(error).__name__)
        finally:
            self._streams -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            message = await self._read(reader, labelled=True)
        except WireError as error:
            writer.write(self._sealer.seal_answer(wire.encode(Kind.ERROR, ErrorReply(str(error)))))
            await writer.drain()
            raise
        match message.kind:
            case Kind.PING:
                answer = self.serf.swim.stream_ping(message.body)
                if answer is not None:
                    writer.write(self._sealer.seal_answer(answer))
                    await writer.drain()
            case Kind.PUSH_PULL if message.header is not None:
                join = message.header.join
                writer.write(self._sealer.seal_answer(self.serf.swim.local_state(join)))
                await writer.drain()
                self.do(lambda serf, now: serf.merge(message, join, now))
            case Kind.USER:
                self.do(lambda serf, now: serf.user_message(message.user, now))
            case _:
                raise WireError(f"received invalid msgType ({message.kind})")

    async def _read(self, reader: asyncio.StreamReader, labelled: bool) -> StreamMessage:
        parser = StreamReader(self._sealer, labelled)
        while True:
            data = await reader.read(_READ)
            if not data:
                raise EOFError("stream ended early")
            message = parser.feed(data)
            if message is not None:
                return message

    async def _exchange(self, to: Address, content: bytes) -> StreamMessage:
        self._meter.count("memberlist.tcp.connect")
        reader, writer = await asyncio.open_connection(to.host, to.port)
        try:
            sealed = self._sealer.seal_stream(content)
            self._meter.count("memberlist.tcp.sent", len(sealed))
            writer.write(sealed)
            await writer.drain()
            message = await self._read(reader, labelled=False)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        if message.kind == Kind.ERROR:
            raise WireError(f"remote error: {codec.unpack(ErrorReply, message.body).error}")
        return message

    async def _ping_stream(self, effect: PingStream) -> None:
        try:
            async with asyncio.timeout_at(effect.deadline):
                message = await self._exchange(effect.to, effect.content)
            if message.kind == Kind.ACK and codec.unpack(Ack, message.body).seq_no == effect.seq_no:
                self.serf.swim.stream_ack(effect.seq_no)
        except (OSError, EOFError, WireError) as error:
            self._log.debug("Failed fallback TCP ping to %s: %s", effect.to, error or type(error).__name__)

    async def _push_pull(self, to: Address, join: bool, ignore_old_events: bool) -> None:
        begun = self._loop.time()
        async with asyncio.timeout(self._config.swim.stream_timeout):
            message = await self._exchange(to, self.serf.swim.local_state(join))
        self._meter.sample("memberlist.pushPullNode", (self._loop.time() - begun) * 1000)
        if message.kind != Kind.PUSH_PULL:
            raise WireError(f"received invalid msgType ({message.kind}), expected pushPullMsg")
        self.do(lambda serf, now: serf.merge(message, join, now, ignore_old_events))

    async def _push_pull_quietly(self, to: Address, join: bool) -> None:
        try:
            await self._push_pull(to, join, ignore_old_events=False)
        except (OSError, EOFError, WireError, JoinRefused) as error:
            self._log.error("Push/Pull with %s failed: %s", to, error or type(error).__name__)

    # What the agent asks for

    async def join(self, addresses: Sequence[Address], ignore_old_events: bool = False) -> int:
        """Joins through each of these nodes; how many it was. Raises JoinFailed when it was none."""
        joined, problems = 0, []
        for address in addresses:
            try:
                await self.meet(address, ignore_old_events)
                joined += 1
            except (OSError, EOFError, WireError, JoinRefused) as error:
                problems.append(f"Failed to join {address}: {error or type(error).__name__}")
        if not joined and problems:
            raise JoinFailed("\n".join(problems))
        return joined

    async def meet(self, address: Address, ignore_old_events: bool = False) -> None:
        """Joins through one node. Raises OSError (TimeoutError is one), EOFError, WireError or JoinRefused."""
        await self._push_pull(address, join=True, ignore_old_events=ignore_old_events)
        self.do(lambda serf, now: serf.joined_pool(now))

    async def rejoin(self) -> bool:
        """Joins the first that answers of those that were there in an earlier life; whether one did."""
        if self._journal is None:
            return False
        for name, address in self._journal.found.peers.items():
            host, _, port = address.rpartition(":")
            if name == self._config.name or not port.isdigit():
                continue
            with contextlib.suppress(JoinFailed):
                await self.join([Address(host.strip("[]"), int(port))])
                self._log.info("Re-joined to previously known node: %s", name)
                return True
        return False

    async def query(
        self,
        name: str,
        payload: bytes,
        *,
        nodes: tuple[str, ...] = (),
        tags: dict[str, str] | None = None,
        ask_acks: bool = False,
        relay_factor: int = 0,
        timeout: float = 0.0,
        enough: int = 0,
    ) -> PendingQuery:
        """Asks the pool and waits for the query's end, or until `enough` nodes have answered when that is not 0."""
        pending = self.serf.queries.ask(
            name,
            payload,
            self._loop.time(),
            nodes=nodes,
            tags=tags,
            ask_acks=ask_acks,
            relay_factor=relay_factor,
            timeout=timeout,
        )
        progressed = self._queries[id(pending)] = asyncio.Event()
        self._carry_out()
        try:
            while not pending.finished and not 0 < enough <= len(pending.responses):
                await progressed.wait()
                progressed.clear()
        finally:
            del self._queries[id(pending)]
        return pending

    async def leave(self) -> None:
        """Leaves gracefully; returns when the pool has been told, or did not take it in time."""
        if self.serf.status is Status.ALIVE and self._journal is not None:
            self._journal.leave()
        self.do(lambda serf, now: serf.leave(now))
        await self._left.wait()

    async def stop(self) -> None:
        """Closes everything, without a word to the pool."""
        if hasattr(self, "serf"):
            self.serf.stop()
        if self._timer is not None:
            self._timer.cancel()
        if self._server is not None:
            self._server.close()
        if self._datagrams is not None:
            self._datagrams.close()
            self._datagrams = None
            await self._closed.wait()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()
        if self._journal is not None:
            self._journal.close()
