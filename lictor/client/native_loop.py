"""`client.connect` for programs with an event loop: connections of the mesh without a proxy.

    reader, writer = await client.connect.open("db", own="web")         # who answers is db
    server = await client.connect.start_server(handle, "", 8443, service="db")      # who connects may

Tasks follow what the agent says.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from lictor.client.calls import Loop
from lictor.client.families.connect import ConnectCalls
from lictor.client.identity import Follower, Identity
from lictor.client.tls import HANDSHAKE, CheckedObject
from lictor.model.spiffe import ServiceId

if TYPE_CHECKING:
    from lictor.client.loop import AsyncClient

READY = 30.0  # seconds that the agent has to give what connections need

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[object]]


class Native:
    """What the twins of a client share: the tasks, and their identities."""

    def __init__(self) -> None:
        self.identities: dict[str, Identity] = {}
        self._follower: Follower | None = None

    def identity(self, service: str, client: AsyncClient) -> Identity:
        """A service's identity; followed from now on."""
        found = self.identities.get(service)
        if found is None:
            if self._follower is None:
                self._follower = Follower(client.settings, client.options)
            found = self.identities[service] = self._follower.identity(service)
        return found

    async def close(self) -> None:
        """End the tasks."""
        follower, self._follower = self._follower, None
        self.identities.clear()
        if follower is not None:
            await follower.close()


class Connect(ConnectCalls[Loop]):
    """The calls of `ConnectCalls`, and connections."""

    __slots__ = ("_client",)

    def __init__(self, client: AsyncClient) -> None:
        super().__init__(client)
        self._client = client

    async def service(self, name: str, *, timeout: float = READY) -> Identity:
        """Be a service: its contexts, which follow the certificates. Raises `NotReady` where the agent has not given
        what they need within `timeout` seconds, and `NoAgent` for a client that is closed.
        """
        identity = self._client.native.identity(name, self._client)
        await _wait(identity, lambda: identity.ready, timeout)
        if not identity.ready:
            raise identity.not_ready()
        return identity

    async def open(
        self, service: str, *, own: str, datacenter: str = "", timeout: float = READY
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to a service, as the service `own`. Instances are tried at random, by weight, until one answers
        and is that service. Raises `NoInstance` with what each of them has failed for, `NotReady`, `NoAgent`.
        """
        identity = await self.service(own, timeout=timeout)
        if identity.places(service, datacenter) is None:
            await _wait(identity, lambda: identity.places(service, datacenter) is not None, timeout)
        places = identity.places(service, datacenter)
        if places is None:
            raise identity.not_ready(service)
        context, name = identity.client_context(service, datacenter), identity.server_name(service, datacenter)
        problems: list[str] = []
        for place in places:
            try:
                async with asyncio.timeout(min(timeout, HANDSHAKE)):
                    streams = await asyncio.open_connection(place.host, place.port, ssl=context, server_hostname=name)
            except OSError as error:  # a timeout is one, and so is a peer that is refused
                problems.append(f"{place.authority}: {error or 'no answer in time'}")
                continue
            _abort_when_cut(streams[1])
            return streams
        raise identity.none(service, problems)

    async def start_server(
        self, handle: Handler, host: str, port: int, *, service: str, timeout: float = READY, **options: Any
    ) -> asyncio.Server:
        """A server of a service, as `asyncio.start_server` makes it; `handle` is called for each connection of a peer
        that may connect, who is `peer_of(writer)`. A connection is cut once an intention forbids it, or its certificate
        is revoked. Raises `NotReady`, `NoAgent`, `OSError`.
        """
        identity = await self.service(service, timeout=timeout)

        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            _abort_when_cut(writer)
            try:
                await handle(reader, writer)
            finally:
                if writer.is_closing():
                    _checked(writer).over()

        options.setdefault("ssl_handshake_timeout", HANDSHAKE)
        return await asyncio.start_server(accepted, host or None, port, ssl=identity.server_context(), **options)


def peer_of(writer: asyncio.StreamWriter) -> ServiceId:
    """Who the other end of a connection of the mesh is."""
    peer = _checked(writer).peer
    assert peer is not None  # the handshake is over, and has seen to it
    return peer


def _checked(writer: asyncio.StreamWriter) -> CheckedObject:
    found: ssl.SSLObject = writer.get_extra_info("ssl_object")
    assert isinstance(found, CheckedObject)
    return found


def _abort_when_cut(writer: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()
    checked = _checked(writer)
    checked.carried(writer.transport.is_closing)
    checked.when_cut(lambda: loop.call_soon_threadsafe(writer.transport.abort))


async def _wait(identity: Identity, condition: Callable[[], bool], timeout: float) -> None:
    """Wait until a condition holds, for so many seconds at most."""
    changed = asyncio.Event()
    end = identity.on_change(changed.set)
    try:
        async with asyncio.timeout(timeout):
            while not condition():
                await changed.wait()
                changed.clear()
    except TimeoutError:
        pass
    finally:
        end()
