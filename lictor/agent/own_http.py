"""The agent as a client of its own HTTP address: what watches ask, and where remote executions write.

They go through the door like everybody else, so that tokens, limits and blocking queries work for them as documented.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import aiohttp

from lictor.agent.remote_exec import LedgerError

CONNECT_SECONDS = 10.0
REQUEST_SECONDS = 60.0
FAILURES = (aiohttp.ClientError, OSError, TimeoutError)
"""What a request may raise when there is no answer."""


class OwnHttp:
    """Requests to one address: `http://127.0.0.1:8500`, `https://...` or `unix:///path`. `close` it at the end."""

    def __init__(self, address: str, token: str = "", tls: ssl.SSLContext | None = None) -> None:
        self._socket = address.removeprefix("unix://") if address.startswith("unix://") else ""
        self._base = "http://localhost" if self._socket else address.rstrip("/")
        self._token = token
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def request(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]] = (),
        body: bytes | None = None,
        token: str = "",
        seconds: float = REQUEST_SECONDS,
    ) -> tuple[int, Mapping[str, str], bytes]:
        """One request: status, headers (found whatever their case) and body. `path` is quoted already.

        `token` goes before the default one; `seconds` limit the whole request. Raises one of FAILURES.
        """
        token = token or self._token
        headers = {"X-Consul-Token": token} if token else {}
        timeout = aiohttp.ClientTimeout(total=seconds, connect=CONNECT_SECONDS)
        async with self._client().request(
            method, self._base + path, params=query, data=body, headers=headers, timeout=timeout, ssl=self._tls or True
        ) as answer:
            return answer.status, answer.headers, await answer.read()

    async def get(self, key: str) -> bytes | None:
        """A KV entry's value, None when it does not exist. Raises LedgerError."""
        status, _, body = await self._kv("GET", key, [("raw", "")], None)
        return None if status == 404 else body

    async def acquire(self, key: str, value: bytes, session: str) -> bool:
        """Write a KV entry, locked by a session; False when the session cannot have it. Raises LedgerError."""
        status, _, body = await self._kv("PUT", key, [("acquire", session)], value)
        return status == 200 and body.strip() == b"true"

    async def _kv(
        self, method: str, key: str, query: list[tuple[str, str]], body: bytes | None
    ) -> tuple[int, Mapping[str, str], bytes]:
        try:
            answer = await self.request(method, f"/v1/kv/{quote(key)}", query, body)
        except FAILURES as error:
            raise LedgerError(str(error) or "timed out") from None
        if answer[0] not in (200, 404):
            text = answer[2][:1000].decode("utf-8", "replace").strip()
            # A session that is gone is an answer, not a failure: whoever asked must stop.
            if "invalid session" in text:
                return 404, {}, b""
            raise LedgerError(f"Unexpected response code: {answer[0]} ({text})")
        return answer

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector: aiohttp.BaseConnector
            # No limit: every watch holds a connection for the whole of its blocking query.
            if self._socket:
                connector = aiohttp.UnixConnector(path=self._socket, limit=0)
            else:
                connector = aiohttp.TCPConnector(limit=0)
            self._session = aiohttp.ClientSession(connector=connector)
        return self._session
