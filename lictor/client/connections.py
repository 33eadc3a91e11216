"""Connections to the agent, kept open between requests: the network of the client for threads."""

from __future__ import annotations

import select
import socket
import threading
from http.client import HTTPConnection, HTTPException

from lictor.client.calls import Reply
from lictor.client.errors import NoAgent
from lictor.client.requests import Target, no_agent
from lictor.client.settings import Settings

IDLE = 16  # connections that are kept open


class _Connection(HTTPConnection):
    """A connection to the agent: TCP or a unix socket, with TLS or without."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        address = settings.address
        super().__init__(address.host, address.port or (443 if settings.tls else 80))

    def connect(self) -> None:
        """Connect within `timeout`."""
        settings = self._settings
        address = settings.address
        if address.socket_path:
            found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                found.settimeout(self.timeout)
                found.connect(address.socket_path)
            except BaseException:
                found.close()
                raise
        else:
            found = socket.create_connection((self.host, self.port), self.timeout)
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = found
        if settings.tls is not None:
            self.sock = settings.tls.wrap_socket(found, server_hostname=settings.server_name)

    @property
    def usable(self) -> bool:
        """Whether the agent has neither closed it nor said anything on it unasked."""
        if self.sock is None:
            return False
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return not poll.poll(0)


class Connections:
    """See above. Safe for use by several threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._idle: list[_Connection] = []
        self._lock = threading.Lock()
        self._closed = False

    def ask(self, wanted: Target, connect_timeout: float) -> Reply:
        """The answer to a request. Raises `NoAgent`."""
        connection = self._take(connect_timeout)
        try:
            connection.sock.settimeout(wanted.timeout)
            connection.request(wanted.method, wanted.path, wanted.body or None, wanted.headers)
            with connection.getresponse() as answer:
                reply = Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
            keep = not answer.will_close
        except TimeoutError:
            connection.close()
            raise no_agent(self._settings, f"nothing within {wanted.timeout:.0f} s", begun=True) from None
        except (OSError, HTTPException) as error:
            connection.close()
            raise no_agent(self._settings, str(error) or type(error).__name__, begun=True) from None
        except BaseException:
            connection.close()
            raise
        self._give_back(connection, keep)
        return reply

    def _take(self, timeout: float) -> _Connection:
        while True:
            with self._lock:
                if self._closed:
                    raise NoAgent("the client is closed")
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                break
            if connection.usable:
                return connection
            connection.close()
        connection = _Connection(self._settings)
        connection.timeout = timeout
        try:
            connection.connect()
        except (OSError, ValueError) as error:
            connection.close()
            raise no_agent(self._settings, getattr(error, "strerror", None) or str(error), begun=False) from None
        return connection

    def _give_back(self, connection: _Connection, keep: bool) -> None:
        with self._lock:
            if keep and not self._closed and len(self._idle) < IDLE:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """End every connection."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
