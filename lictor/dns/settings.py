"""What configuration sets for the DNS door: a record of its own, so that the door knows of no configuration files."""

from functools import lru_cache

import msgspec

MAX_STALE = 87600 * 3600.0
MAX_TTL = 2**31 - 1  # seconds (RFC 2181, section 8)


class Soa(msgspec.Struct, frozen=True):
    """The numbers of the SOA record, in seconds (`dns_config.soa`)."""

    refresh: int = 3600
    retry: int = 600
    expire: int = 86400
    min_ttl: int = 0


class DnsSettings(msgspec.Struct, frozen=True):
    """The settings under their configuration names; TTLs, timeouts and ages in seconds, sizes in bytes.

    `service_ttl` maps service names to TTLs; a name that ends in `*` stands for all with what is before it. `recursors`
    are addresses with ports. `cache_size` bounds the finished answers that are kept.
    """

    node_name: str
    datacenter: str = "dc1"
    domain: str = "consul"
    alt_domain: str = ""
    segment: str = ""
    recursors: tuple[tuple[str, int], ...] = ()
    recursor_strategy: str = "sequential"
    recursor_timeout: float = 2.0
    allow_stale: bool = True
    max_stale: float = MAX_STALE
    use_cache: bool = False
    cache_max_age: float = 0.0
    node_ttl: int = 0
    service_ttl: dict[str, int] = {}
    only_passing: bool = False
    enable_truncate: bool = False
    udp_answer_limit: int = 3
    a_record_limit: int = 0
    disable_compression: bool = False
    node_meta_txt: bool = True
    translate_wan_addrs: bool = False
    soa: Soa = Soa()
    tcp_idle_timeout: float = 10.0
    tcp_max_connections: int = 1024
    cache_size: int = 16 << 20

    @property
    def oldest(self) -> float:
        """The age in seconds that the store may have for an answer at once; negative where it may have none."""
        if self.use_cache:
            return min(self.max_stale, self.cache_max_age or self.max_stale)
        return self.max_stale if self.allow_stale else -1.0

    @property
    def domains(self) -> tuple[tuple[str, ...], ...]:
        """The domains that are answered for, each as lower case labels: the main one first."""
        return _labels(self.domain, self.alt_domain)

    def ttl_of(self, service: str) -> int:
        """The TTL for a service: by its name, else by the longest prefix that has one, else 0."""
        ttls = self.service_ttl
        if not ttls:
            return 0
        if service in ttls:
            return ttls[service]
        for length in range(len(service), -1, -1):
            ttl = ttls.get(service[:length] + "*")
            if ttl is not None:
                return ttl
        return 0


@lru_cache(maxsize=16)
def _labels(*domains: str) -> tuple[tuple[str, ...], ...]:
    names = [name.lower().strip(".") for name in domains]
    return tuple(tuple(name.split(".")) for name in names if name)
