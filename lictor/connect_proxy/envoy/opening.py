"""Opening the door for Envoys, where it is configured and the extra is installed."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from typing import TYPE_CHECKING

from lictor.connect_proxy.envoy.suites import VARIABLE, suites
from lictor.model.errors import LictorError

if TYPE_CHECKING:
    from lictor.agent.agent import Agent
    from lictor.connect_proxy.envoy.server import XdsServer


FORK_SUPPORT = "GRPC_ENABLE_FORK_SUPPORT"


class MissingExtra(LictorError):
    """What serves Envoys is not installed."""

    def __init__(self, module: str) -> None:
        super().__init__(
            f"ports.grpc and ports.grpc_tls, where Envoys get their configuration, need Python's {module}: "
            "pip install 'lictor[envoy]', or set the ports to -1"
        )


async def open_xds(agent: Agent) -> XdsServer | None:
    """The server on the ports that the configuration names; None where it names none. Raises `MissingExtra`, `OSError`
    and `LictorError`.
    """
    listen = agent.config.listen
    if not listen.grpc and not listen.grpc_tls:
        return None
    loop = asyncio.get_running_loop()
    try:
        make = await loop.run_in_executor(None, _ready, suites(agent.config) if listen.grpc_tls else "")
    except ImportError as error:
        raise MissingExtra(error.name or "gRPC") from None
    if importlib.util.find_spec("envoy") is None or importlib.util.find_spec("envoy.service") is None:
        raise MissingExtra("Envoy's messages (xds-protos)")
    server = make(agent)
    await server.open()
    return server


def _ready(cipher_suites: str) -> type[XdsServer]:
    """Import what serves Envoys. gRPC is told that the programs which the agent starts have nothing to do with it:
    otherwise it would stop to prepare for each of them, and say so. It reads that once, as it starts, and so it does
    with the suites.
    """
    told = {FORK_SUPPORT: "0", **({VARIABLE: cipher_suites} if cipher_suites else {})}
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    try:
        module = importlib.import_module("lictor.connect_proxy.envoy.server")
        module.grpc.ssl_channel_credentials()  # starts the library
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    made: type[XdsServer] = module.XdsServer
    return made
