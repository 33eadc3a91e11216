"""Listening sockets handed from a process to the one that takes its place, so that no connection is refused or cut.

The process that serves listens at a unix socket of its own, which only its user may connect to. A successor connects
and gets the sockets, each with the name of its address; when it serves, it says so, and the former process accepts no
more, keeps what is live until it ends by itself, and then exits. A successor that goes away without a word changes
nothing.

Messages keep their bounds (SOCK_SEQPACKET): JSON, with the descriptors beside it. Linux.
"""

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Mapping

import msgspec

from lictor.agent.logs import Logger

MOST = 100  # sockets in one message; the kernel takes 253
LONGEST = 65536  # bytes of a message
PATIENCE = 10.0  # seconds for the former process to hand over
SERVE_PATIENCE = 60.0  # seconds for a successor to serve, which tries for a third of that
AT_ONCE = 4  # processes that have the sockets and do not serve yet
READY = b"ready"


class _Sockets(msgspec.Struct, frozen=True):
    """A message with sockets, by name; `more` says that it is not the last."""

    names: tuple[str, ...]
    more: bool


def take_over(path: str, log: Logger) -> tuple[dict[str, socket.socket], "Former | None"]:
    """The sockets of the process that serves at `path`, if there is one. It waits, for the loop does not run yet."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel.settimeout(PATIENCE)
    found: dict[str, socket.socket] = {}
    try:
        channel.connect(path)
        if not _same_user(channel):
            raise OSError("the process there is another user's")
        while True:
            data, descriptors, _, _ = socket.recv_fds(channel, LONGEST, MOST)
            message = msgspec.json.decode(data, type=_Sockets)
            for name, descriptor in zip(message.names, descriptors, strict=True):
                sock = socket.socket(fileno=descriptor)
                sock.setblocking(False)
                found[name] = sock
            if not message.more:
                return found, Former(channel)
    except (FileNotFoundError, ConnectionRefusedError):
        pass  # there is no former process
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        log.warn("The former process does not hand over its listeners", path=path, error=error)
        for sock in found.values():
            sock.close()
    channel.close()
    return {}, None


class Former:
    """The process that has handed over, waiting for word that it is not needed any more."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    def dismiss(self) -> None:
        """Tell it that another process serves now."""
        try:
            self._channel.send(READY)
        except OSError:
            pass  # it has ended
        self._channel.close()


class Handover:
    """The side of the process that serves. `sockets` gives what is to be handed over, `dismissed` is called once a
    successor serves.

    Whoever connects gets the sockets beside those that have them already, so that one that then says nothing is in
    nobody's way; of more than `AT_ONCE` the first is let go, and each after `SERVE_PATIENCE`.
    """

    def __init__(
        self, path: str, sockets: Callable[[], Mapping[str, socket.socket]], dismissed: Callable[[], None], log: Logger
    ) -> None:
        self._path = path
        self._sockets = sockets
        self._dismissed = dismissed
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._listener: socket.socket | None = None
        self._successors: list[_Successor] = []

    def open(self) -> None:
        """Wait for a successor, in place of who did so before. Raises `OSError`."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        own = f"{self._path}.{os.getpid()}"
        try:
            before = os.umask(0o177)
            try:
                listener.bind(own)
            finally:
                os.umask(before)
            listener.listen(4)
            listener.setblocking(False)
            os.replace(own, self._path)
        except BaseException:
            listener.close()
            raise
        self._listener = listener
        self._loop.add_reader(listener.fileno(), self._accept)

    def close(self, *, remove: bool = True) -> None:
        """Wait no more. The path stays where a successor has put its own there."""
        for successor in self._successors:
            successor.close()
        self._successors.clear()
        listener, self._listener = self._listener, None
        if listener is not None:
            self._loop.remove_reader(listener.fileno())
            listener.close()
            if remove:
                try:
                    os.unlink(self._path)
                except OSError:
                    pass  # somebody has removed it

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            channel, _ = self._listener.accept()
        except OSError:
            return
        if not _same_user(channel):
            channel.close()
            return
        if len(self._successors) >= AT_ONCE:
            self._ended(self._successors[0], "too many others came")
        copies: list[tuple[str, socket.socket]] = []
        try:
            for name, sock in self._sockets().items():
                copies.append((name, sock.dup()))
        except OSError as error:
            self._log.warn("The listeners cannot be handed over", error=error)
            for _, copy in copies:
                copy.close()
            channel.close()
            return
        self._successors.append(_Successor(self._loop, channel, copies, self._serves, self._ended))
        self._log.info("Hands the listeners to another process", listeners=len(copies))

    def _serves(self) -> None:
        """A successor serves; the others are let go."""
        self.close(remove=False)
        self._dismissed()

    def _ended(self, successor: "_Successor", why: str) -> None:
        self._successors.remove(successor)
        successor.close()
        self._log.warn("A process that was given the listeners does not serve; this one goes on", reason=why)


class _Successor:
    """A process that has connected: it is sent the sockets as fast as it takes them, and then heard. They are copies,
    which are closed when they are sent, so that what is closed meanwhile is handed over all the same.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        channel: socket.socket,
        copies: list[tuple[str, socket.socket]],
        serves: Callable[[], None],
        ended: Callable[["_Successor", str], None],
    ) -> None:
        self._loop = loop
        self._channel = channel
        self._serves = serves
        self._ended = ended
        channel.setblocking(False)
        self._parts = [copies[at : at + MOST] for at in range(0, len(copies), MOST)] or [[]]
        self._timer = loop.call_later(SERVE_PATIENCE, ended, self, "it has said nothing")
        loop.add_reader(channel.fileno(), self._heard)
        loop.add_writer(channel.fileno(), self._send)

    def close(self) -> None:
        """Let it go."""
        self._timer.cancel()
        self._loop.remove_reader(self._channel.fileno())
        self._loop.remove_writer(self._channel.fileno())
        self._channel.close()
        for part in self._parts:
            for _, sock in part:
                sock.close()
        self._parts.clear()

    def _send(self) -> None:
        while self._parts:
            part = self._parts[0]
            message = _Sockets(tuple(name for name, _ in part), len(self._parts) > 1)
            try:
                socket.send_fds(self._channel, [msgspec.json.encode(message)], [sock.fileno() for _, sock in part])
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._ended(self, str(error))
                return
            for _, sock in self._parts.pop(0):
                sock.close()
        self._loop.remove_writer(self._channel.fileno())

    def _heard(self) -> None:
        try:
            said = self._channel.recv(len(READY))
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._ended(self, str(error))
            return
        if said == READY:
            self._serves()
        else:
            self._ended(self, "it has ended")


def _same_user(channel: socket.socket) -> bool:
    """Whether the other side is a process of this user, or of root."""
    _, uid, _ = struct.unpack("3i", channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return uid in (0, os.geteuid())
