"""The DNS door of an agent: the store and the configuration that it answers from."""

import math

from lictor.agent.agent import Agent
from lictor.dns.server import DnsServer
from lictor.dns.settings import MAX_TTL, DnsSettings, Soa

DNS_PORT = 53


def dns_settings(agent: Agent) -> DnsSettings:
    """What the agent's configuration says about DNS. TTLs are whole seconds."""
    config, dns = agent.config, agent.config.dns_config
    return DnsSettings(
        node_name=config.node_name,
        datacenter=config.datacenter,
        domain=config.domain,
        alt_domain=config.alt_domain,
        segment=config.segment,
        recursors=tuple(_recursor(text) for text in config.recursors),
        recursor_strategy=dns.recursor_strategy,
        recursor_timeout=dns.recursor_timeout,
        allow_stale=dns.allow_stale,
        max_stale=dns.max_stale,
        use_cache=dns.use_cache,
        cache_max_age=dns.cache_max_age,
        node_ttl=_ttl(dns.node_ttl),
        service_ttl={name.lower(): _ttl(ttl) for name, ttl in dns.service_ttl.items()},
        only_passing=dns.only_passing,
        enable_truncate=dns.enable_truncate,
        udp_answer_limit=dns.udp_answer_limit,
        a_record_limit=dns.a_record_limit,
        disable_compression=dns.disable_compression,
        node_meta_txt=dns.enable_additional_node_meta_txt,
        translate_wan_addrs=config.translate_wan_addrs,
        soa=Soa(_ttl(dns.soa.refresh), _ttl(dns.soa.retry), _ttl(dns.soa.expire), _ttl(dns.soa.min_ttl)),
    )


def _ttl(seconds: float) -> int:
    """Whole seconds that a record can say; what is less or more would leave the question without an answer."""
    return min(max(0, math.floor(seconds)), MAX_TTL)


def _recursor(text: str) -> tuple[str, int]:
    """An address, with or without a port; configuration has checked that it is one."""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        return host, int(port[1:]) if port else DNS_PORT
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return host, int(port)
    return text, DNS_PORT


def open_dns(agent: Agent) -> DnsServer:
    """The DNS door of an agent, not listening yet."""
    return DnsServer(
        agent.store,
        dns_settings(agent),
        origin=agent,
        on_stale=agent.metrics.counter("dns.stale_queries").add,
        partial=agent.client,
        elsewhere=agent.elsewhere.ask,
    )
