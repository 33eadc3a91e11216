"""The constants of a pool, with the defaults that memberlist, Serf and Consul publish. Seconds and bytes."""

from __future__ import annotations

import msgspec


class SwimSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Membership and failure detection."""

    probe_interval: float = 1.0
    probe_timeout: float = 0.5
    indirect_checks: int = 3
    stream_pings: bool = True
    gossip_interval: float = 0.2
    gossip_nodes: int = 3
    gossip_to_the_dead: float = 30.0
    retransmit_mult: int = 4
    suspicion_mult: int = 4
    suspicion_max_timeout_mult: int = 6
    awareness_max: int = 8
    push_pull_interval: float = 30.0
    stream_timeout: float = 10.0
    packet_size: int = 1400
    # How long after its failure a node's name may come back with another address; 0 is never.
    dead_node_reclaim: float = 0.0
    protocol_version: int = 2
    packet_overhead: int = 0  # what sealing and labels take of a packet


class SerfSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The layer above it."""

    broadcast_timeout: float = 5.0
    leave_propagate_delay: float = 1.0
    reap_interval: float = 15.0
    recent_intent_timeout: float = 300.0
    reconnect_interval: float = 30.0
    reconnect_timeout: float = 24 * 3600.0
    tombstone_timeout: float = 24 * 3600.0
    event_buffer: int = 512
    query_buffer: int = 512
    max_queue_depth: int = 4096
    query_timeout_mult: int = 16
    query_size_limit: int = 1024
    query_response_size_limit: int = 1024
    user_event_size_limit: int = 512
    resolve_name_conflicts: bool = True
    coordinates: bool = True
    rejoin_after_leave: bool = False
    protocol_version: int = 4


LAN = SwimSettings()
WAN = SwimSettings(
    probe_interval=5.0,
    probe_timeout=3.0,
    gossip_interval=0.5,
    gossip_nodes=4,
    gossip_to_the_dead=60.0,
    suspicion_mult=6,
    push_pull_interval=60.0,
    stream_timeout=30.0,
)
LOCAL = SwimSettings(
    probe_timeout=0.2,
    indirect_checks=1,
    gossip_interval=0.1,
    gossip_to_the_dead=15.0,
    retransmit_mult=2,
    suspicion_mult=3,
    push_pull_interval=15.0,
    stream_timeout=1.0,
)
