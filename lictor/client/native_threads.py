"""`client.connect` for programs with threads: connections of the mesh without a proxy.

    with client.connect.open("db", service="web") as connection:        # a socket; who answers is db
        connection.sendall(b"...")

    listener = client.connect.wrap_server(socket.create_server(("", 8443)), service="db")
    connection, address = listener.accept()                             # who connects may, by the intentions
    connection.recv(100), connection.peer.service

A thread follows what the agent says, for all services of a client.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from lictor.client.calls import Threads
from lictor.client.families.connect import ConnectCalls
from lictor.client.identity import Follower, Identity
from lictor.client.tls import HANDSHAKE, CheckedSocket

if TYPE_CHECKING:
    from lictor.client.threads import Client

READY = 30.0  # seconds that the agent has to give what connections need
END = 5.0  # seconds that the thread has to end


class Native:
    """What the twins of a client share: the thread, and its identities."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.identities: dict[str, Identity] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._follower: Follower | None = None

    def identity(self, service: str, client: Client) -> Identity:
        """A service's identity; followed from now on."""
        with self.lock:
            found = self.identities.get(service)
            if found is None:
                follower = self._follower or self._begin(client)
                assert self._loop is not None
                made = asyncio.run_coroutine_threadsafe(_identity(follower, service), self._loop)
                found = self.identities[service] = made.result()
            return found

    def _begin(self, client: Client) -> Follower:
        loop = self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=loop.run_forever, name="lictor connect", daemon=True)
        self._thread.start()
        made = asyncio.run_coroutine_threadsafe(_follower(client), loop)
        self._follower = made.result()
        return self._follower

    def close(self) -> None:
        """End the thread."""
        with self.lock:
            loop, thread, follower = self._loop, self._thread, self._follower
            self._loop = self._thread = self._follower = None
            self.identities.clear()
        if loop is None or thread is None:
            return
        if follower is not None:
            asyncio.run_coroutine_threadsafe(follower.close(), loop).result(END)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(END)
        if not thread.is_alive():
            loop.close()


async def _follower(client: Client) -> Follower:
    return Follower(client.settings, client.options)


async def _identity(follower: Follower, service: str) -> Identity:
    return follower.identity(service)


class Connect(ConnectCalls[Threads]):
    """The calls of `ConnectCalls`, and connections."""

    __slots__ = ("_client",)

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self._client = client

    def service(self, name: str, *, timeout: float = READY) -> Identity:
        """Be a service: its contexts, which follow the certificates. Raises `NotReady` where the agent has not given
        what they need within `timeout` seconds, and `NoAgent` for a client that is closed.
        """
        identity = self._client.native.identity(name, self._client)
        _wait(identity, lambda: identity.ready, timeout)
        if not identity.ready:
            raise identity.not_ready()
        return identity

    def open(self, service: str, *, own: str, datacenter: str = "", timeout: float = READY) -> CheckedSocket:
        """A connection to a service, as the service `own`. Instances are tried at random, by weight, until one answers
        and is that service. Its `timeout` is None.

        Raises `NoInstance` with what each of them has failed for, `NotReady`, `NoAgent`.
        """
        identity = self.service(own, timeout=timeout)
        if identity.places(service, datacenter) is None:
            _wait(identity, lambda: identity.places(service, datacenter) is not None, timeout)
        places = identity.places(service, datacenter)
        if places is None:
            raise identity.not_ready(service)
        context, name = identity.client_context(service, datacenter), identity.server_name(service, datacenter)
        problems: list[str] = []
        for place in places:
            try:
                return _dial(place.host, place.port, context, name, min(timeout, HANDSHAKE))
            except OSError as error:
                problems.append(f"{place.authority}: {error}")
        raise identity.none(service, problems)

    def wrap_server(self, listening: socket.socket, *, service: str, timeout: float = READY) -> CheckedSocket:
        """A listening socket of a service, in the place of a plain one, which it takes over. What it accepts is a
        connection whose handshake is made, in whatever thread uses it, with the first read or write: a peer that may
        not connect is refused there with `PeerRefused`, which is a `ConnectionError`. A connection is cut once an
        intention forbids it. Raises `NotReady`, `NoAgent`.
        """
        context = self.service(service, timeout=timeout).server_context()
        return cast(CheckedSocket, context.wrap_socket(listening, server_side=True))


def _dial(host: str, port: int, context: ssl.SSLContext, name: str, timeout: float) -> CheckedSocket:
    plain = socket.create_connection((host, port), timeout)
    try:
        made = cast(CheckedSocket, context.wrap_socket(plain, server_hostname=name))
    except BaseException:
        plain.close()
        raise
    made.settimeout(None)
    return made


def _wait(identity: Identity, condition: Callable[[], bool], timeout: float) -> None:
    """Wait until a condition holds, for so many seconds at most."""
    changed = threading.Event()
    end = identity.on_change(changed.set)
    deadline = time.monotonic() + timeout
    try:
        while not condition() and changed.wait(max(0.0, deadline - time.monotonic())):
            changed.clear()
    finally:
        end()
