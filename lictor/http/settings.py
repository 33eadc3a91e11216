"""What the HTTP door is told by configuration."""

import ipaddress

import msgspec

from lictor.model.kv import MAX_VALUE

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class HttpSettings(msgspec.Struct, frozen=True):
    """Settings of the HTTP door; sizes in bytes, times in seconds."""

    response_headers: tuple[tuple[str, str], ...] = ()
    block_endpoints: tuple[str, ...] = ()
    allow_write_from: tuple[Network, ...] = ()
    max_header_bytes: int = 64 * 1024
    kv_max_value: int = MAX_VALUE
    txn_max_body: int = MAX_VALUE
    max_connections_per_client: int = 200
    answer_cache_bytes: int = 32 * 1024 * 1024
    wait_max: float = 600.0
    wait_default: float = 300.0
    discovery_max_stale: float = 0.0
    default_policy: str = "allow"
    use_cache: bool = True
    translate_wan_addrs: bool = False
    debug: bool = False
    any_characters: bool = False
