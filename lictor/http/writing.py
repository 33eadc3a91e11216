"""A plain write that is under way: from its command, which the servers have, to its answer."""

import time
from typing import TYPE_CHECKING

from lictor.http.reply import encode
from lictor.model.errors import LictorError

if TYPE_CHECKING:
    from lictor.http.connection import Connection
    from lictor.http.request import Request
    from lictor.http.routes import Endpoint
    from lictor.http.server import HttpServer


class Writing:
    """One write of one connection, without a task."""

    __slots__ = ("_connection", "_endpoint", "_keep", "_request", "_server", "_started")

    def __init__(
        self, server: "HttpServer", connection: "Connection", endpoint: "Endpoint", request: "Request", *, keep: bool
    ) -> None:
        self._server = server
        self._connection: Connection | None = connection
        self._endpoint = endpoint
        self._request = request
        self._keep = keep
        self._started = time.perf_counter()

    def begin(self, names: tuple[str, ...], values: list[str]) -> None:
        """Have the command that the request asks for applied; the connection is told how that ended, never within
        this call. Raises `LictorError` where nothing was begun.
        """
        api = self._server.api
        try:
            api.admit(self._endpoint, names, values, self._request)
            api.agent.submit(self._endpoint.function(api, self._request), self._ended)
        except LictorError:
            api.timings.add(self._endpoint, time.perf_counter() - self._started)
            raise
        self._server.write_began()

    def leave(self, connection: "Connection") -> None:
        """The client is gone; its write goes on."""
        self._connection = None

    def _ended(self, result: object) -> None:
        server = self._server
        server.write_ended()
        api = server.api
        api.timings.add(self._endpoint, time.perf_counter() - self._started)
        connection = self._connection
        if connection is None:
            return
        if result is True and self._keep and not self._request.query:
            connection.written(api.yes)
            return
        reply = api.error_reply(result) if isinstance(result, LictorError) else api.reply(result, self._request)
        connection.written(encode(reply, api.common_head, close=not self._keep))
