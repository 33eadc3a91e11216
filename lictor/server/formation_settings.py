"""What the configuration says of how a server finds others."""

import msgspec


class FormationSettings(msgspec.Struct, frozen=True, kw_only=True):
    """As configured, see the configuration's keys of these names; `alone` is `bootstrap`. `join` are hosts with or
    without a port; `port` is the one that is meant without; `gossip` tells whether others may be found by gossip alone.
    """

    datacenter: str
    expect: int = 0
    alone: bool = False
    read_replica: bool = False
    join: tuple[str, ...] = ()
    port: int = 8300
    gossip: bool = False
    retry_interval: float = 30.0
    retry_max: int = 0
    rejoin_after_leave: bool = False
    serf_port: int = 0
