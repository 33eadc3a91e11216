"""The gRPC server from which Envoys get their configuration: its ports, its TLS, and who may call.

What speaks of Envoy's messages (`streams`, and all that compiles) is imported when the first Envoy calls: an agent
without Envoys has only the port open.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from lictor.agent.agent import Agent
from lictor.agent.config.keys import Endpoint, RuntimeConfig
from lictor.agent.logs import logger
from lictor.connect_proxy.envoy.source import AgentSource
from lictor.model.errors import LictorError

if TYPE_CHECKING:
    from lictor.connect_proxy.envoy.hearing import Hearing
    from lictor.connect_proxy.envoy.streams import Pace

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
LOG_SERVICE = "envoy.service.accesslog.v3.AccessLogService"
LONGEST_REQUEST = 4 * 1024 * 1024  # bytes
MOST_STREAMS = 4096  # Envoys at one agent

log = logger("agent.envoy")


class XdsServer:
    """See above. `open` takes the ports; `close` ends every stream."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._source = AgentSource(agent)
        self._streams = 0
        agent.metrics.gauge_of("xds.server.streams", lambda: float(self._streams), version="v3")
        self._pace: Pace | None = None
        self._hearing: Hearing | None = None
        self._server = grpc.aio.server(
            options=(
                # Without it a second agent would share the port, and each Envoy get either's answers.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", LONGEST_REQUEST),
                ("grpc.max_concurrent_streams", MOST_STREAMS),
                ("grpc.keepalive_time_ms", int(agent.config.performance.grpc_keepalive_interval * 1000)),
                ("grpc.keepalive_timeout_ms", int(agent.config.performance.grpc_keepalive_timeout * 1000)),
                ("grpc.http2.min_ping_interval_without_data_ms", 1000),
            )
        )
        handlers = {
            "DeltaAggregatedResources": grpc.stream_stream_rpc_method_handler(self._delta),
            "StreamAggregatedResources": grpc.stream_stream_rpc_method_handler(self._state),
        }
        logs = {"StreamAccessLogs": grpc.stream_unary_rpc_method_handler(self._hear)}
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(SERVICE, handlers),
                grpc.method_handlers_generic_handler(LOG_SERVICE, logs),
            )
        )

    async def open(self) -> None:
        """Take the ports of `ports.grpc` and `ports.grpc_tls`. Raises `OSError`, `LictorError`."""
        listen = self._agent.config.listen
        for endpoint in listen.grpc:
            self._take(endpoint, None)
        if listen.grpc_tls:
            credentials = server_credentials(lambda: self._agent.config)
            for endpoint in listen.grpc_tls:
                self._take(endpoint, credentials)
        await self._server.start()
        self._hand_out([endpoint.host for endpoint in listen.grpc if endpoint.network == "unix"])
        places = [*map(str, listen.grpc), *map(str, listen.grpc_tls)]
        log.info("Envoys can have their configuration", grpc=places)

    def _take(self, endpoint: Endpoint, credentials: Any) -> None:
        place = f"unix://{endpoint.host}" if endpoint.network == "unix" else str(endpoint).split("://", 1)[1]
        try:
            if credentials is None:
                taken = self._server.add_insecure_port(place)
            else:
                taken = self._server.add_secure_port(place, credentials)
        except RuntimeError:
            taken = 0
        if not taken and endpoint.network != "unix":
            raise OSError(f"cannot listen on {endpoint} for gRPC: the address cannot be had, or another program has it")

    def _hand_out(self, paths: list[str]) -> None:
        """Give the sockets to whom `unix_sockets` says. Raises `OSError`, `LictorError`."""
        sockets = self._agent.config.unix_sockets
        for path in paths:
            try:
                if sockets.user:
                    shutil.chown(path, user=_number(sockets.user))
                if sockets.group:
                    shutil.chown(path, group=_number(sockets.group))
            except LookupError as error:
                raise LictorError(f"unix_sockets: {error}") from None
            if sockets.mode:
                os.chmod(path, int(sockets.mode, 8))

    async def close(self) -> None:
        """End every stream; Envoys go on with what they have."""
        await self._server.stop(None)
        await self._source.close()
        if self._hearing is not None:
            self._hearing.close()

    async def _delta(self, requests: AsyncIterator[bytes], context: Any) -> None:
        await self._serve("delta", requests, context)

    async def _state(self, requests: AsyncIterator[bytes], context: Any) -> None:
        await self._serve("state", requests, context)

    async def _serve(self, variant: str, requests: AsyncIterator[bytes], context: Any) -> None:
        if self._streams >= MOST_STREAMS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MOST_STREAMS} Envoys are served already")
        self._streams += 1
        try:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, importlib.import_module, "lictor.connect_proxy.envoy.streams")
            from lictor.connect_proxy.envoy import streams

            if self._pace is None:
                self._pace = streams.Pace(lambda: self._agent.config.xds.update_max_per_second)
            token = _token(context)
            stream = streams.Stream(self._source, self._agent.authorizer(token), self._pace, variant, token)
            await stream.run(requests, context)
        finally:
            self._streams -= 1

    async def _hear(self, messages: AsyncIterator[bytes], context: Any) -> bytes:
        if self._hearing is None:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, importlib.import_module, "lictor.connect_proxy.envoy.hearing")
            from lictor.connect_proxy.envoy import hearing

            self._hearing = self._hearing or hearing.Hearing(self._agent)
        await self._hearing.hear(messages, context, self._agent.authorizer(_token(context)))
        return b""


def _number(owner: str) -> str | int:
    """A user's or a group's name or number."""
    return int(owner) if owner.isdigit() else owner


def _token(context: Any) -> str:
    """The token that a call carries."""
    for name, value in context.invocation_metadata() or ():
        if name == "x-consul-token":
            return str(value)
        if name == "authorization" and str(value).lower().startswith("bearer "):
            return str(value)[len("bearer ") :].strip()
    return ""


def server_credentials(config: Callable[[], RuntimeConfig]) -> Any:
    """TLS as `tls.grpc` says, `tls.defaults` where it leaves a key out. The files are read anew for each handshake, so
    that a certificate can be exchanged; while they cannot be read, what was read last goes on. Raises `LictorError`.
    """
    first, required = _read_files(config())
    last = [first]

    def fetch() -> Any:
        try:
            found, _ = _read_files(config())
        except LictorError:
            return None
        if found == last[0]:
            return None
        last[0] = found
        return _certificates(found)

    return grpc.dynamic_ssl_server_credentials(_certificates(first), fetch, required)


_Files = tuple[bytes, bytes, bytes | None]


def _certificates(files: _Files) -> Any:
    certificate, key, authorities = files
    return grpc.ssl_server_certificate_configuration([(key, certificate)], authorities)


def _read_files(config: RuntimeConfig) -> tuple[_Files, bool]:
    own, common = config.tls.grpc, config.tls.defaults

    def chosen(key: str) -> str:
        value = getattr(own, key)
        return str(getattr(common, key) if value is None else value)

    cert, key = chosen("cert_file"), chosen("key_file")
    if not cert or not key:
        raise LictorError("ports.grpc_tls needs a certificate: set tls.grpc.cert_file and key_file, or tls.defaults")
    verify = common.verify_incoming if own.verify_incoming is None else own.verify_incoming
    authorities = b""
    if verify:
        file, folder = chosen("ca_file"), chosen("ca_path")
        if not file and not folder:
            raise LictorError("tls.grpc.verify_incoming needs authorities: set ca_file of tls.grpc or tls.defaults")
        files = [Path(file)] if file else sorted(one for one in Path(folder).iterdir() if one.is_file())
        authorities = b"\n".join(_read(one, "ca_file") for one in files)
    return (_read(Path(cert), "cert_file"), _read(Path(key), "key_file"), authorities or None), verify


def _read(path: Path, key: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LictorError(f"tls.grpc.{key}: cannot read {path}: {error.strerror or error}") from None
