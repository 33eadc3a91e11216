"""The library for programs: the agent's API, and lookups within the program's own process.

    from lictor.client import Client, AsyncClient, lookup

    lookup("web")                                        # an Endpoint, from the agent's lookup map, in microseconds
    with Client() as client:
        client.kv.put("app/greeting", b"hello")
        for entries in client.health.service.watch("web", passing=True): ...
    async with AsyncClient() as client: ...

What is here may import `lictor.model` alone: the library comes without the agent. Nothing is imported before it is
used: `lookup` needs no HTTP, and threads no event loop. `errors` holds every error, `records` what is answered; how a
call is described, once for both flavours, is in `calls`; lookups are `lookups`, `map_file` and `choosing`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lictor.client.default import lookup as lookup
    from lictor.client.endpoint import Endpoint as Endpoint
    from lictor.client.loop import AsyncClient as AsyncClient
    from lictor.client.settings import Options as Options
    from lictor.client.settings import Retry as Retry
    from lictor.client.threads import Client as Client

_HOMES = {
    "AsyncClient": "loop",
    "Client": "threads",
    "Endpoint": "endpoint",
    "Options": "settings",
    "Retry": "settings",
    "lookup": "default",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = found
    return found
