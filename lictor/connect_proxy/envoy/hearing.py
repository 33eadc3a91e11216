"""The streams by which Envoys tell who is connected to their services (`AccessLogService`, see `telling`), and what the
agent makes of them: one report for each proxy, at most once a second, and every half minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from envoy.service.accesslog.v3 import als_pb2
from google.protobuf.message import DecodeError

from lictor.agent.agent import Agent
from lictor.agent.logs import logger
from lictor.connect_proxy.envoy.told import Envoys
from lictor.model.authorizer import WRITE, Authorizer, require
from lictor.model.errors import Forbidden
from lictor.model.intention_effect import Enforced
from lictor.model.service import CONNECT_PROXY, NodeService

PAUSE = 1.0  # seconds between two reports of a proxy at least
EVERY = 30.0
PATIENCE = 30.0  # seconds in which a stream must say whose it is
MOST_STREAMS = 4096
LONGEST = 256 * 1024  # bytes of a message: Envoy sends what it has as soon as that is 16 KB
MOST_ENTRIES = 4096  # in one message: what the loop takes at once takes some ten milliseconds

log = logger("agent.envoy")


class Hearing:
    """See above. `close` ends the reports."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._envoys = Envoys()
        self._loop = asyncio.get_running_loop()
        self._streams = 0
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0  # when the timer goes off: not every event loop's timers tell
        self._passed = -PAUSE

    def close(self) -> None:
        """Report no more."""
        if self._timer is not None:
            self._timer.cancel()

    async def hear(self, messages: AsyncIterator[bytes], context: Any, authorizer: Authorizer) -> None:
        """Serve a stream: its first message says whose it is. Whoever has no right to its service is told so."""
        if self._streams >= MOST_STREAMS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MOST_STREAMS} streams are served already")
        self._streams += 1
        proxy, worker = "", None
        try:
            async with asyncio.timeout(PATIENCE):
                first = await anext(messages, None)
            if first is None:
                return
            message = _read(first)
            proxy = message.identifier.node.id
            service = self._service(proxy)
            if service is None:
                await context.abort(grpc.StatusCode.NOT_FOUND, "the node's id must be that of a proxy of this agent")
                return
            require(authorizer, "service", service.proxy.destination_service_name, WRITE)
            worker = self._envoys.begin(proxy)
            worker.take(message, self._loop.time())
            self._soon()
            async for data in messages:
                if self._service(proxy) is None:
                    # It has a stream again when the proxy is there again, and all is told of then.
                    await context.abort(grpc.StatusCode.NOT_FOUND, "the proxy is none of this agent's any more")
                worker.take(_read(data), self._loop.time())
                self._soon()
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"nothing was said in {PATIENCE:.0f} seconds")
        except Forbidden as error:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the message cannot be read, or is too long")
        finally:
            self._streams -= 1
            if worker is not None:
                self._envoys.end(proxy, worker)
                self._soon()

    def _service(self, proxy: str) -> NodeService | None:
        service = self._agent.local.services.get(proxy)
        return service if service is not None and service.kind == CONNECT_PROXY else None

    def _soon(self) -> None:
        """Report what has changed, a second after the last report at the earliest."""
        when = max(self._passed + PAUSE, self._loop.time())
        if self._timer is None or self._due > when:
            self._at(when)

    def _at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = when
        self._timer = self._loop.call_at(when, self._report)

    def _report(self) -> None:
        now = self._passed = self._loop.time()
        self._timer = None
        for proxy, told in self._envoys.due(now, EVERY - PAUSE, self._agent.local.services):
            service = self._service(proxy)
            if service is not None:
                name = service.proxy.destination_service_name
                report = self._agent.connections.report
                report(proxy, name, told.inbound(), now, enforced=Enforced.LISTENER, requests=told.seen(now))
        if self._envoys.by_proxy:
            self._at(now + EVERY)


def _read(data: bytes) -> Any:
    """A `StreamAccessLogsMessage`. Raises `DecodeError`, also for one that no Envoy sends."""
    if len(data) > LONGEST:
        raise DecodeError
    message = als_pb2.StreamAccessLogsMessage.FromString(data)
    if len(message.tcp_logs.log_entry) + len(message.http_logs.log_entry) > MOST_ENTRIES:
        raise DecodeError
    return message
