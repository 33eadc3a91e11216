"""Opening the door for Envoys, where it is configured and the extra is installed."""

from __future__ import annotations

import asyncio
import importlib.util
from typing import TYPE_CHECKING

from lictor.model.errors import LictorError

if TYPE_CHECKING:
    from lictor.agent.agent import Agent
    from lictor.connect_proxy.envoy.server import XdsServer


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
    module = "lictor.connect_proxy.envoy.server"
    try:
        await loop.run_in_executor(None, importlib.import_module, module)
    except ImportError as error:
        raise MissingExtra(error.name or "gRPC") from None
    if importlib.util.find_spec("envoy") is None or importlib.util.find_spec("envoy.service") is None:
        raise MissingExtra("Envoy's messages (xds-protos)")
    from lictor.connect_proxy.envoy.server import XdsServer

    server = XdsServer(agent)
    await server.open()
    return server
