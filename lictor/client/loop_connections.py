"""Connections to the agent, kept open between requests: the network of the client for event loops, by aiohttp."""

from __future__ import annotations

import aiohttp
from yarl import URL

from lictor.client.calls import Reply
from lictor.client.errors import NoAgent
from lictor.client.requests import Target, no_agent
from lictor.client.settings import Settings


class LoopConnections:
    """See above. Made on the loop that it is used on."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        address = settings.address
        connector: aiohttp.BaseConnector
        if address.socket_path:
            connector = aiohttp.UnixConnector(address.socket_path, limit=0)
        else:
            connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        # aiohttp sends a PUT again when the connection broke; whether that may be done is decided with the call.
        self._session._retry_connection = False
        self._origin = f"{address.scheme}://{address.authority if not address.socket_path else 'localhost'}"

    async def ask(self, wanted: Target, connect_timeout: float) -> Reply:
        """The answer to a request. Raises `NoAgent`."""
        settings = self._settings
        if self._session.closed:
            raise NoAgent("the client is closed")
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout, sock_read=wanted.timeout)
        try:
            async with self._session.request(
                wanted.method,
                URL(self._origin + wanted.path, encoded=True),
                data=wanted.body or None,
                headers=wanted.headers,
                timeout=timeout,
                allow_redirects=False,
                ssl=settings.tls if settings.tls is not None else True,
                server_hostname=settings.server_name if settings.tls is not None else None,
            ) as answer:
                body = await answer.read()
                return Reply(answer.status, {k.lower(): v for k, v in answer.headers.items()}, body)
        except (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError) as error:
            begun = not isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
            why = getattr(error, "strerror", None) or str(error) or "it takes too long"
            raise no_agent(settings, why, begun=begun) from None
        except (aiohttp.ClientError, OSError) as error:
            raise no_agent(settings, str(error) or type(error).__name__, begun=True) from None

    async def close(self) -> None:
        """End every connection."""
        await self._session.close()
