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
        self._successor: socket.socket | None = None

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
        self._let_go()
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
        if self._successor is not None or not _same_user(channel):
            channel.close()
            return
        channel.settimeout(PATIENCE)
        sockets = list(self._sockets().items())
        parts = [sockets[at : at + MOST] for at in range(0, len(sockets), MOST)] or [[]]
        try:
            for number, part in enumerate(parts, 1):
                message = _Sockets(tuple(name for name, _ in part), number < len(parts))
                socket.send_fds(channel, [msgspec.json.encode(message)], [sock.fileno() for _, sock in part])
        except OSError as error:
            self._log.warn("The listeners could not be handed over", error=error)
            channel.close()
            return
        channel.setblocking(False)
        self._successor = channel
        self._log.info("Handed the listeners to another process", listeners=len(sockets))
        self._loop.add_reader(channel.fileno(), self._heard)

    def _heard(self) -> None:
        assert self._successor is not None
        try:
            said = self._successor.recv(len(READY))
        except BlockingIOError:
            return
        except OSError:
            said = b""
        self._let_go()
        if said == READY:
            self._dismissed()
        else:
            self._log.warn("The process that took the listeners is gone; this one goes on")

    def _let_go(self) -> None:
        successor, self._successor = self._successor, None
        if successor is not None:
            self._loop.remove_reader(successor.fileno())
            successor.close()


def _same_user(channel: socket.socket) -> bool:
    """Whether the other side is a process of this user, or of root."""
    _, uid, _ = struct.unpack("3i", channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return uid in (0, os.geteuid())
