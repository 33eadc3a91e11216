"""`lookup` for programs that need nothing else: by a client of the agent that the environment names."""

from lictor.client.choosing import Policy
from lictor.client.endpoint import Endpoint
from lictor.client.threads import Client

_client: Client | None = None


def lookup(
    service: str,
    policy: Policy = "random",
    *,
    tag: str | None = None,
    warning: bool = False,
    max_age: float | None = None,
) -> Endpoint:
    """An instance of a service; see `Client.lookup`."""
    global _client
    if _client is None:
        _client = Client()
    return _client.lookup(service, policy, tag=tag, warning=warning, max_age=max_age)
