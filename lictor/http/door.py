"""The whole HTTP door: every family of endpoints, made into one table for an agent."""

import ipaddress

from lictor.agent.agent import Agent
from lictor.agent.config import RuntimeConfig
from lictor.http import (
    acl,
    agent_checks,
    agent_connect,
    agent_connections,
    agent_health,
    agent_life,
    agent_lookup,
    agent_proxies,
    agent_self,
    agent_services,
    catalog,
    config,
    connect_ca,
    connect_ca_revoked,
    coordinate,
    event,
    exports,
    health,
    instruments,
    intention_explain,
    intentions,
    internal_ui,
    keyring,
    kv,
    metrics_proxy,
    operator,
    query,
    session,
    snapshot,
    status,
    txn,
)
from lictor.http.api import Api
from lictor.http.routes import Routes
from lictor.http.server import HttpServer
from lictor.http.settings import HttpSettings

FAMILIES = (
    status.family,
    agent_self.family,
    agent_services.family,
    agent_checks.family,
    agent_health.family,
    agent_connect.family,
    agent_life.family,
    agent_lookup.family,
    agent_proxies.family,
    event.family,
    catalog.family,
    health.family,
    kv.family,
    session.family,
    txn.family,
    query.family,
    coordinate.family,
    config.family,
    connect_ca.family,
    connect_ca_revoked.family,
    intentions.family,
    intention_explain.family,
    agent_connections.family,
    snapshot.family,
    keyring.family,
    operator.family,
    exports.family,
    internal_ui.family,
    metrics_proxy.family,
    acl.family,
)


def open_door(agent: Agent, settings: HttpSettings) -> HttpServer:
    """The HTTP door of an agent, not listening yet."""
    server = HttpServer(Api(agent, Routes(*FAMILIES), settings))
    instruments.publish(server)
    return server


def http_settings(runtime: RuntimeConfig) -> HttpSettings:
    """What the configuration says about the HTTP door."""
    http, limits = runtime.http_config, runtime.limits
    defaults = HttpSettings()
    return HttpSettings(
        response_headers=tuple(http.response_headers.items()),
        block_endpoints=tuple(http.block_endpoints),
        allow_write_from=tuple(ipaddress.ip_network(n, strict=False) for n in http.allow_write_http_from),
        max_header_bytes=http.max_header_bytes or defaults.max_header_bytes,
        kv_max_value=limits.kv_max_value_size,
        txn_max_body=limits.txn_max_req_len,
        max_connections_per_client=limits.http_max_conns_per_client,
        wait_max=runtime.max_query_time,
        wait_default=runtime.default_query_time,
        discovery_max_stale=runtime.discovery_max_stale,
        default_policy=runtime.acl.default_policy,
        use_cache=http.use_cache,
        translate_wan_addrs=runtime.translate_wan_addrs,
        debug=runtime.enable_debug,
        any_characters=runtime.disable_http_unprintable_char_filter,
    )
