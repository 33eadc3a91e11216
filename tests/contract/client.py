"""A small HTTP client for the cases: one request, one answer, nothing hidden.

It is not a Consul client library, because the cases are about what such a library relies on: the status line, the
headers and the bytes of the body.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tests.patience import PATIENCE

# What a URL may hold unescaped. Everything else in a case's path (spaces, quotes, braces, non-ASCII) is escaped, so
# that a filter can be written the way a person writes it.
_URL_SAFE = "%/?&=:,;@!$'()*+~-._[]#"


@dataclass(frozen=True)
class Answer:
    """A server's answer. Header names are in lower case; a header sent twice is joined with a comma."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    @property
    def text(self) -> str:
        """The body as text; bytes that are not UTF-8 are replaced."""
        return self.body.decode("utf-8", "replace")

    @property
    def index(self) -> int:
        """X-Consul-Index, or 0 where the header is absent."""
        return int(self.headers.get("x-consul-index", "0"))

    def json(self) -> Any:
        """The body as JSON. Raises AssertionError naming the answer where it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise AssertionError(f"the body is not JSON ({error}): {self.status} {self.text[:400]!r}") from None


class Api:
    """HTTP requests to one server, each on its own connection."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port

    def request(
        self,
        method: str,
        path: str,
        body: str | bytes | dict[str, Any] | list[Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = PATIENCE,
    ) -> Answer:
        """Sends one request. A dict or list body goes as JSON. Raises OSError when the server cannot be reached."""
        if isinstance(body, dict | list):
            body = json.dumps(body)
        data = body.encode() if isinstance(body, str) else body
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        started = time.monotonic()
        try:
            connection.request(method, quote(path, safe=_URL_SAFE), body=data, headers=dict(headers or {}))
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        seen: dict[str, str] = {}
        for name, value in response.getheaders():
            key = name.lower()
            seen[key] = f"{seen[key]}, {value}" if key in seen else value
        return Answer(response.status, seen, content, time.monotonic() - started)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """GET."""
        return self.request("GET", path, headers=headers)

    def put(self, path: str, body: str | bytes | dict[str, Any] | list[Any] | None = None) -> Answer:
        """PUT."""
        return self.request("PUT", path, body)

    def post(self, path: str, body: str | bytes | dict[str, Any] | list[Any] | None = None) -> Answer:
        """POST."""
        return self.request("POST", path, body)

    def delete(self, path: str) -> Answer:
        """DELETE."""
        return self.request("DELETE", path)
