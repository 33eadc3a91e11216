"""Name lookups of HTTP checks, made as those of the other checks."""

import socket

from aiohttp.abc import AbstractResolver, ResolveResult

from lictor.agent.checks.connection import look_up


class Resolver(AbstractResolver):
    """Looks names up as the other checks do."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a name."""
        return [
            ResolveResult(hostname=host, host=address, port=port, family=found, proto=0, flags=socket.AI_NUMERICHOST)
            for found, address in await look_up(host, family)
        ]

    async def close(self) -> None:
        """Nothing is held."""
