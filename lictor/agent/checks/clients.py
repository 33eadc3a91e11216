"""The HTTP clients that all checks share: one session for HTTP checks, one for each Docker engine.

Sessions are made when first needed, inside the running loop, and closed with the runner. Their own file because
they are the only thing probes share, and live as long as the runner rather than as a probe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import aiohttp


class Clients:
    """Shared sessions. `close` when no probe runs any more."""

    def __init__(self) -> None:
        self._http: aiohttp.ClientSession | None = None
        self._docker: dict[str, aiohttp.ClientSession] = {}

    def http(self) -> aiohttp.ClientSession:
        """The session of HTTP checks. Connections are not kept: a check is to find out whether one can be made."""
        if self._http is None:
            import aiohttp

            from lictor.agent.checks.resolver import Resolver

            # No limit of connections: the schedule bounds probes. No DNS cache: a moved service is found at once.
            connector = aiohttp.TCPConnector(limit=0, force_close=True, use_dns_cache=False, resolver=Resolver())
            self._http = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(),
                skip_auto_headers=("Content-Type",),
            )
        return self._http

    def docker(self, host: str) -> tuple[aiohttp.ClientSession, str]:
        """The session for the engine at `host` (unix:///path or tcp://host:port), and what its URLs begin with.

        Raises ValueError when `host` is of no such form.
        """
        scheme, _, rest = host.partition("://")
        if scheme not in ("unix", "tcp") or not rest:
            raise ValueError(f"unable to parse docker host `{host}`")
        session = self._docker.get(host)
        if session is None:
            import aiohttp

            connector: aiohttp.BaseConnector
            connector = aiohttp.UnixConnector(rest, limit=0) if scheme == "unix" else aiohttp.TCPConnector(limit=0)
            session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout())
            self._docker[host] = session
        if scheme == "unix":
            return session, "http://docker"
        parts = urlsplit(host)
        return session, f"http://{parts.netloc}{parts.path.rstrip('/')}"

    async def close(self) -> None:
        """Close every session."""
        sessions = [*self._docker.values(), *([self._http] if self._http else [])]
        self._docker = {}
        self._http = None
        for session in sessions:
            await session.close()
