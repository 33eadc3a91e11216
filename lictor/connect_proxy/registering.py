"""A proxy that the command line describes, registered with the agent for as long as it runs.

Its check is a TTL that the proxy keeps: where it dies without a word it is soon critical, and then removed.
"""

import asyncio

import msgspec

from lictor.agent.logs import Logger
from lictor.client.errors import ClientError
from lictor.connect_proxy.source import Source

TTL = 30.0  # seconds
EVERY = 10.0  # seconds between two words to the agent
REMOVED_AFTER = "1m"


class Registration:
    """See above. `suffix` tells proxies of one service apart."""

    def __init__(self, source: Source, service: str, suffix: str, host: str, port: int, log: Logger) -> None:
        self.service_id = f"{service}-proxy" + (f"-{suffix}" if suffix else "")
        self._check_id = f"{self.service_id}-ttl"
        self._source = source
        self._log = log
        self._body = msgspec.json.encode(
            {
                "Kind": "connect-proxy",
                "ID": self.service_id,
                "Name": f"{service}-proxy",
                "Address": host,
                "Port": port,
                "Proxy": {"DestinationServiceName": service},
                "Check": {
                    "CheckID": self._check_id,
                    "Name": "Built-in proxy heartbeat",
                    "Notes": "Built-in proxy will heartbeat this check.",
                    "TTL": f"{TTL:.0f}s",
                    "DeregisterCriticalServiceAfter": REMOVED_AFTER,
                },
            }
        )
        self._registered = False

    async def run(self) -> None:
        """Register, and keep the check passing; ends only by being cancelled."""
        while True:
            try:
                if not self._registered:
                    await self._send("/v1/agent/service/register", self._body)
                    self._registered = True
                    self._log.info("Registered with the agent", proxy=self.service_id)
                await self._send(f"/v1/agent/check/pass/{self._check_id}")
            except (ClientError, _Refused) as error:
                # An agent that restarts may have forgotten it.
                self._registered = False
                self._log.warn("The agent does not take the proxy's registration", proxy=self.service_id, error=error)
            await asyncio.sleep(EVERY if self._registered else 1.0)

    async def remove(self) -> None:
        """Take the registration back."""
        try:
            await self._send(f"/v1/agent/service/deregister/{self.service_id}")
        except (ClientError, _Refused) as error:
            self._log.warn("The proxy stays registered until its check is critical", error=error)

    async def _send(self, path: str, body: bytes = b"") -> None:
        reply = await self._source.send("PUT", path, body)
        if reply.status != 200:
            raise _Refused(f"{reply.status} ({reply.body[:200].decode('utf-8', 'replace').strip()})")


class _Refused(Exception):
    """The agent says no."""
