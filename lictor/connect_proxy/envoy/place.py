"""Where an agent is, as far as its proxies need to know."""

import msgspec


class Place(msgspec.Struct, frozen=True):
    """Its datacenter, what becomes of connections that no intention is about, and where the agent itself comes from."""

    datacenter: str
    default_allow: bool
    address: str = ""
