"""The streams of Envoys, as gRPC has them: one for each, for all of its configuration (ADS), in either variant of xDS.

A stream takes requests as they come, tells its session, and sends what the session has due, after requests and after
changes alike. Changes are sent no faster than `xds.update_max_per_second` over all streams together.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, NamedTuple

import grpc
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError

from lictor.agent.logs import logger
from lictor.connect_proxy.envoy import names
from lictor.connect_proxy.envoy.compiling import Resources
from lictor.connect_proxy.envoy.feed import Feed, Gone
from lictor.connect_proxy.envoy.session import DeltaSession, Nack, Request, Response, Session, StateSession, TooMuch
from lictor.connect_proxy.envoy.source import AgentSource
from lictor.model.authorizer import WRITE, Authorizer, require
from lictor.model.errors import Forbidden, LictorError

PATIENCE = 30.0  # seconds in which a stream must ask for something
LONGEST_ID = 1024  # characters of a proxy's id
LONGEST_WORD = 4096  # characters of an Envoy's reason that are logged

log = logger("agent.envoy")


class Pace:
    """Lets so many through in a second, over all who ask, with the time of the event loop; 0 lets all through."""

    def __init__(self, per_second: Callable[[], float]) -> None:
        self._per_second = per_second
        self._next = 0.0

    async def turn(self) -> None:
        """Return when the caller may go on."""
        rate = self._per_second()
        if rate <= 0:
            return
        now = asyncio.get_running_loop().time()
        self._next = max(self._next, now) + 1 / rate
        await asyncio.sleep(max(0.0, self._next - 1 / rate - now))


class Variant(NamedTuple):
    """One of the two ways to speak xDS: its session, and how its messages are read and written. `read` raises
    `DecodeError`.
    """

    session: Callable[[], Session]
    message: Any
    read: Callable[[Any], Request]
    write: Callable[[Response], Any]


def _error(detail: Any) -> str:
    return str(detail.message or f"code {detail.code}")[:LONGEST_WORD]


def _read_delta(message: Any) -> Request:
    return Request(
        type_url=message.type_url,
        nonce=message.response_nonce,
        error=_error(message.error_detail) if message.HasField("error_detail") else None,
        names=tuple(message.resource_names_subscribe),
        unsubscribed=tuple(message.resource_names_unsubscribe),
        initial=dict(message.initial_resource_versions),
    )


def _write_delta(response: Response) -> Any:
    resources = [
        discovery_pb2.Resource(name=one.name, version=one.version, resource=any_pb2.Any.FromString(one.body))
        for one in response.resources
    ]
    return discovery_pb2.DeltaDiscoveryResponse(
        type_url=response.type_url, nonce=response.nonce, resources=resources, removed_resources=response.removed
    )


def _read_state(message: Any) -> Request:
    return Request(
        type_url=message.type_url,
        nonce=message.response_nonce,
        error=_error(message.error_detail) if message.HasField("error_detail") else None,
        names=tuple(message.resource_names),
    )


def _write_state(response: Response) -> Any:
    return discovery_pb2.DiscoveryResponse(
        type_url=response.type_url,
        nonce=response.nonce,
        version_info=response.version,
        resources=[any_pb2.Any.FromString(one.body) for one in response.resources],
    )


VARIANTS = {
    "delta": Variant(DeltaSession, discovery_pb2.DeltaDiscoveryRequest, _read_delta, _write_delta),
    "state": Variant(StateSession, discovery_pb2.DiscoveryRequest, _read_state, _write_state),
}


class Stream:
    """One Envoy's stream, from its first request to its end."""

    def __init__(self, source: AgentSource, authorizer: Authorizer, pace: Pace, variant: str, token: str = "") -> None:
        self._source = source
        self._token = token
        self._authorizer = authorizer
        self._pace = pace
        self._variant = VARIANTS[variant]
        self._session = self._variant.session()
        self._proxy = ""
        self._wake = asyncio.Event()
        self._failure: BaseException | None = None
        self._ended = False

    async def run(self, requests: AsyncIterator[bytes], context: Any) -> None:
        """Serve it. Whoever has no right to its service's identity, or whose proxy is not registered, is told so."""
        loop = asyncio.get_running_loop()
        tasks = []
        try:
            async with asyncio.timeout(PATIENCE):
                first = await anext(requests, None)
            if first is None:
                return
            self._proxy = self._variant.message.FromString(first).node.id
            if not 0 < len(self._proxy) <= LONGEST_ID:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the node's id must be the proxy's")
            log.debug("an Envoy has come", proxy=self._proxy)
            self._heard(first)
            tasks = [loop.create_task(self._guarded(work)) for work in (self._hear(requests), self._feed())]
            await self._tell(context)
        except Gone as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        except Forbidden as error:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
        except TooMuch as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request cannot be read")
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"nothing was asked for in {PATIENCE:.0f} seconds")
        except LictorError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            log.debug("an Envoy has gone", proxy=self._proxy)

    async def _guarded(self, work: Any) -> None:
        try:
            await work
        except Exception as error:
            self._failure = error
            self._wake.set()

    async def _hear(self, requests: AsyncIterator[bytes]) -> None:
        async for message in requests:
            self._heard(message)
        self._ended = True
        self._wake.set()

    def _heard(self, message: bytes) -> None:
        nack = self._session.take(self._variant.read(self._variant.message.FromString(message)))
        if nack is not None:
            self._refused(nack)
        self._wake.set()

    def _refused(self, nack: Nack) -> None:
        log.error(
            "an Envoy refuses its configuration and goes on with what it had",
            proxy=self._proxy,
            type=names.short(nack.type_url),
            error=nack.reason,
        )

    async def _feed(self) -> None:
        feed = Feed(
            self._source, self._proxy, lambda name: require(self._authorizer, "service", name, WRITE), self._token
        )
        found: AsyncGenerator[Resources, None] = feed.resources()
        async with aclosing(found):
            async for resources in found:
                await self._pace.turn()
                self._session.offer(resources.by_type)
                self._wake.set()

    async def _tell(self, context: Any) -> None:
        while not self._ended:
            await self._wake.wait()
            self._wake.clear()
            if self._failure is not None:
                raise self._failure
            for response in self._session.due():
                await context.write(self._variant.write(response).SerializeToString())
