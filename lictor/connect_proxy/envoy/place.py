"""Where an agent is, as far as its proxies need to know."""

import msgspec


class Place(msgspec.Struct, frozen=True):
    """Its datacenter, and what becomes of connections that no intention is about."""

    datacenter: str
    default_allow: bool
