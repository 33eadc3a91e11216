"""A listening socket of the proxy and the passages that came by it: opened, drained, watched for idleness.

Its socket is made apart from its server, so that a socket can be handed to another process, and one that came from
there be served.
"""

import asyncio
import errno
import math
import os
import socket
import stat
from collections import Counter
from collections.abc import Sequence
from typing import Any

from lictor.agent.logs import Logger
from lictor.connect_proxy import framing
from lictor.connect_proxy.access_log import AccessLog
from lictor.connect_proxy.certificates import Identity, Peers
from lictor.connect_proxy.idle import Idle, Shelf
from lictor.connect_proxy.passage import Deadlines, Passage, State
from lictor.connect_proxy.secure_end import SecureEnd
from lictor.connect_proxy.settings import Address

BACKLOG = 1024
USES = 1000  # of one TLS connection at most
AGE = 600.0  # seconds after which one is not used again
UNSENT = 4096  # bytes at most that wait to be sent on one that is kept: what nobody reads must not stay in memory
KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))


def bind(address: Address, mode: int = 0o600) -> socket.socket:
    """A socket that listens at an address. What is left of a unix socket that nobody serves is removed.

    Raises `OSError`.
    """
    if address.path:
        return _bind_path(address.path, mode)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keep_alive(sock)
        sock.bind((address.host, address.port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def keep_alive(sock: socket.socket) -> None:
    """Notice a peer that is gone without a word. Connections that are accepted inherit it."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _bind_path(path: str, mode: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_abandoned(path):
            os.unlink(path)
        before = os.umask(0o177)
        try:
            sock.bind(path)
        finally:
            os.umask(before)
        os.chmod(path, mode)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _is_abandoned(path: str) -> bool:
    """Whether there is a socket that nobody listens at."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return False
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as tried:
        tried.setblocking(False)
        return tried.connect_ex(path) == errno.ECONNREFUSED


class Listener:
    """What inbound and outbound listeners have in common. Counts are since the process began."""

    direction = ""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        deadlines: Deadlines,
        idle: Idle,
        service: str,
        log: Logger,
        access: AccessLog,
    ) -> None:
        self.loop = loop
        self.deadlines = deadlines
        self.idle = idle
        self.service = service
        self.log = log
        self.access = access
        self.passages: set[Passage] = set()
        self.peers = Peers()
        self.sock: socket.socket | None = None
        self.draining = False
        self.accepted = 0
        self.live = 0
        self.ends: Counter[str] = Counter()
        self.from_plain = 0
        self.from_secure = 0
        self.resumed = 0
        self.reused = 0
        self._server: asyncio.AbstractServer | None = None
        self._empty = asyncio.Event()
        self._watch: asyncio.TimerHandle | None = None

    @property
    def address(self) -> Address:
        """Where it listens."""
        raise NotImplementedError

    @property
    def idle_timeout(self) -> float:
        """Seconds after which a connection without traffic is cut, 0 for never."""
        raise NotImplementedError

    def accept(self) -> asyncio.Protocol:
        """The end of a connection that has just come."""
        raise NotImplementedError

    @property
    def shelves(self) -> Sequence[Shelf]:
        """Where it keeps TLS connections that are to be used again."""
        raise NotImplementedError

    def close_idle(self) -> None:
        """Close the TLS connections that nobody uses now."""
        for shelf in self.shelves:
            shelf.clear()

    def may_keep(self, end: SecureEnd, identity: Identity) -> bool:
        """Whether a TLS connection whose use is over may be used again by its state and age."""
        line, facts = end.line, end.facts
        return (
            line is not None
            and line.state is framing.State.IDLE
            and line.uses < USES
            and facts is not None
            and facts.identity is identity
            and self.loop.time() - facts.born < AGE
            and not self.draining
            and end.transport is not None
            and not end.transport.is_closing()
            and end.transport.get_write_buffer_size() <= UNSENT
        )

    def revoke(self, serials: frozenset[str]) -> int:
        """Believe no certificate with one of these plain serial numbers, and cut the connections with those that show
        one. Returns how many these were.
        """
        self.peers.revoked = serials
        self.close_idle()  # there is no need to look which
        cut = 0
        for passage in list(self.passages):
            peer = passage.peer
            if peer is not None and peer.serial in serials and passage.state < State.CLOSING:
                cut += 1
                self.log.info(
                    "Cut a connection whose certificate has been revoked",
                    service=self.service,
                    peer=peer.uri,
                    serial=peer.serial,
                    remote=passage.remote,
                )
                passage.stop("revoked", f"the certificate of {peer.uri} has been revoked")
        return cut

    def hold(self, sock: socket.socket) -> None:
        """Have a socket that listens: connections wait there until they are accepted."""
        self.sock = sock

    async def serve(self) -> None:
        """Accept connections from the socket."""
        sock = self.sock
        if sock is None:
            return
        # The server closes the socket that it is given; ours stays, for a process that may take it over.
        given = sock.dup()
        given.setblocking(False)
        try:
            if sock.family == socket.AF_UNIX:
                self._server = await self.loop.create_unix_server(self.accept, sock=given)
            else:
                self._server = await self.loop.create_server(self.accept, sock=given)
        except BaseException:
            given.close()
            raise
        if self.sock is None:  # it was to stop in the meantime
            self._server.close()
            self._server = None

    @property
    def serving(self) -> bool:
        """Whether connections are accepted."""
        return self._server is not None

    def stop_accepting(self, *, keep_path: bool = False) -> None:
        """Accept no more. The path of a unix socket goes, unless another process serves it from now on."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        sock, self.sock = self.sock, None
        if sock is not None:
            sock.close()
            if self.address.path and not keep_path:
                try:
                    os.unlink(self.address.path)
                except OSError:
                    pass  # somebody has removed it

    async def drain(self, seconds: float, *, keep_path: bool = False) -> None:
        """Accept no more, wait until every passage is closed, and cut those that are not after so many seconds, which
        may be without end.
        """
        self.draining = True
        self.close_idle()
        self.stop_accepting(keep_path=keep_path)
        if self.passages and seconds > 0:
            self._empty.clear()
            try:
                async with asyncio.timeout(None if math.isinf(seconds) else seconds):
                    await self._empty.wait()
            except TimeoutError:
                pass
        self.cut_all("drained")

    def cut_all(self, reason: str) -> None:
        """Cut every passage."""
        for passage in list(self.passages):
            passage.stop(reason)
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    # -- what passages say ------------------------------------------------------------------------------------------

    def joined(self, passage: Any) -> None:
        """Bytes pass from now on."""
        self.live += 1
        if self._watch is None and self.idle_timeout:
            self._watch = self.loop.call_later(self._look_every(), self._look_for_idle)

    def closed(self, passage: Any) -> None:
        """A passage is gone."""
        if passage.was_joined:
            self.live -= 1
        self.ends[passage.reason or "closed"] += 1
        self.from_plain += passage.from_plain
        self.from_secure += passage.from_secure
        if self.access.enabled:
            self.access.write(self, passage)
        if not self.passages:
            self._empty.set()

    def _look_every(self) -> float:
        return min(30.0, max(0.05, self.idle_timeout / 4))

    def _look_for_idle(self) -> None:
        self._watch = None
        now = self.loop.time()
        limit = self.idle_timeout
        if not limit or not self.passages:
            return
        for passage in list(self.passages):
            if passage.state is State.JOINED:
                moved = passage.moved
                if passage.counted != moved:
                    passage.counted = moved
                    passage.idle_since = now
                elif now - passage.idle_since >= limit:
                    passage.stop("idle")
        self._watch = self.loop.call_later(self._look_every(), self._look_for_idle)
