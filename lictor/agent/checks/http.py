"""HTTP check: passing for a status of 2xx, warning for 429, critical for any other and for none."""

from __future__ import annotations

import asyncio
import ssl
from typing import ClassVar

import aiohttp
import msgspec
from multidict import CIMultiDict
from yarl import URL

from lictor.agent.checks.clients import Clients
from lictor.agent.checks.connection import (
    DEFAULT_TIMEOUT,
    ConnectError,
    TlsSettings,
    explain_dial,
    explain_errno,
    explain_tls,
    tls_context,
)
from lictor.agent.checks.output import DEFAULT_OUTPUT_MAX_SIZE, TailBuffer
from lictor.agent.checks.result import Lane, Result, critical, passing, warning

USER_AGENT = "Consul Health Check"
ACCEPT = "text/plain, text/*, */*"
MAX_REDIRECTS = 10
MAX_BODY = 16 * 1024 * 1024
"""Bytes of a body that are read at most; the output is the end of them."""


class HttpCheck(msgspec.Struct, frozen=True):
    """`method` to `url` with `header` (name, values) and `body`. `timeout` is seconds for the whole exchange,
    `output_max_size` the bytes of the body, counted from its end, that the output shows."""

    lane: ClassVar[Lane] = Lane.NETWORK

    url: str
    method: str = "GET"
    header: tuple[tuple[str, tuple[str, ...]], ...] = ()
    body: str = ""
    disable_redirects: bool = False
    tls: TlsSettings = TlsSettings()
    timeout: float = DEFAULT_TIMEOUT
    output_max_size: int = DEFAULT_OUTPUT_MAX_SIZE

    async def probe(self, clients: Clients) -> Result:
        """Ask once."""
        try:
            url = _parse(self.url)
            context = tls_context(self.tls)  # of http too, which may redirect to https
        except ValueError as error:
            return critical(str(error))
        except ConnectError as error:
            return self._failed(str(error))
        buffer = TailBuffer(self.output_max_size)
        response: aiohttp.ClientResponse | None = None
        try:
            async with asyncio.timeout(self.timeout):
                response = await clients.http().request(
                    self.method,
                    url,
                    headers=self._headers(),
                    data=self.body.encode() if self.body else None,
                    allow_redirects=not self.disable_redirects,
                    max_redirects=MAX_REDIRECTS,
                    ssl=context,
                    server_hostname=self.tls.server_name or None,
                )
                await _read(response, buffer)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Once the status has been told, a body that stalls or breaks off does not take it back.
            if response is None:
                return self._failed(_explain(error, self.tls.server_name or url.host or ""))
        finally:
            if response is not None:
                response.close()
        return self._judge(response, buffer)

    def _headers(self) -> CIMultiDict[str]:
        headers = CIMultiDict((name, value) for name, values in self.header for value in values)
        headers.setdefault("User-Agent", USER_AGENT)
        headers.setdefault("Accept", ACCEPT)
        headers.setdefault("Accept-Encoding", "gzip")
        headers["Connection"] = "close"
        return headers

    def _judge(self, response: aiohttp.ClientResponse, body: TailBuffer) -> Result:
        shown = f"{response.status} {response.reason or ''}"
        output = f"HTTP {self.method} {_redacted(self.url)}: {shown} Output: {body.text()}"
        if 200 <= response.status <= 299:
            return passing(output)
        return warning(output) if response.status == 429 else critical(output)

    def _failed(self, reason: str) -> Result:
        return critical(f'{self.method.capitalize()} "{_redacted(self.url)}": {reason}')


async def _read(response: aiohttp.ClientResponse, buffer: TailBuffer) -> None:
    async for chunk in response.content.iter_any():
        buffer.write(chunk)
        if buffer.written > MAX_BODY:
            return


def _parse(text: str) -> URL:
    """`text` as a URL, kept as it was escaped. Raises ValueError in the words of Go's url package."""
    try:
        url = URL(text, encoded=text.isascii() and " " not in text)
        host = url.host
    except ValueError as error:
        raise ValueError(f'parse "{_redacted(text)}": {error}') from None
    if url.scheme not in ("http", "https"):
        shown = _redacted(text)
        if "://" not in text and ":" in text.split("/", 1)[0]:
            raise ValueError(f'parse "{shown}": first path segment in URL cannot contain colon')
        raise ValueError(f'Get "{shown}": unsupported protocol scheme "{url.scheme}"')
    if not host:
        raise ValueError(f'Get "{_redacted(text)}": http: no Host in request URL')
    return url


def _redacted(url: str) -> str:
    """`url` with a password in it hidden: outputs travel to every reader of the catalog."""
    scheme, mark, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    user, at, host = authority.rpartition("@")
    if not (mark and at and ":" in user):
        return url
    return f"{scheme}{mark}{user.split(':', 1)[0]}:xxxxx@{host}{slash}{path}"


def _explain(error: Exception, name: str) -> str:
    """Why there was no response."""
    match error:
        case TimeoutError():
            return "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        case aiohttp.ClientConnectorCertificateError():
            inner = error.certificate_error
            return explain_tls(inner, name) if isinstance(inner, ssl.SSLError) else str(inner)
        case aiohttp.ClientConnectorSSLError() if isinstance(error.os_error, ssl.SSLError):
            return explain_tls(error.os_error, name)
        case aiohttp.ClientConnectorDNSError():
            return f"dial tcp: lookup {error.host}: no such host"
        case aiohttp.ClientConnectorError():
            return explain_dial(error.os_error, error.host, error.port or 0)
        case aiohttp.TooManyRedirects():
            return f"stopped after {MAX_REDIRECTS} redirects"
        case aiohttp.ServerDisconnectedError():
            return "EOF"
        case aiohttp.ClientResponseError():
            return "net/http: HTTP/1.x transport connection broken: malformed HTTP response"
        case OSError():
            return explain_errno(error)
    return str(error) or type(error).__name__
