"""The nested sections of the agent's configuration, except security's: one record for each block.

Attribute names are the keys; annotations are types; defaults are what an agent uses when a key is not given.
Durations are seconds, sizes are bytes, ports of -1 are closed.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import msgspec

from lictor.agent.config.setting import Setting as S
from lictor.model.decoding import Duration

NO_LIMIT = sys.float_info.max
"""A rate without a limit, as Consul shows it."""


class Addresses(msgspec.Struct, frozen=True):
    """Where each client-facing listener binds; empty means `client_addr`."""

    dns: Annotated[str, S("Addresses that the DNS listeners bind to, separated by spaces.")] = ""
    http: Annotated[str, S("Addresses of the HTTP listener; `unix://` and a path for a socket.")] = ""
    https: Annotated[str, S("Addresses of the HTTPS listener; `unix://` and a path for a socket.")] = ""
    grpc: Annotated[str, S("Addresses of the plain gRPC listener; `unix://` and a path for a socket.")] = ""
    grpc_tls: Annotated[str, S("Addresses of the gRPC listener with TLS.", since="1.14")] = ""


class Ports(msgspec.Struct, frozen=True):
    """Ports by name; -1 closes one."""

    dns: Annotated[int, S("Port of DNS, TCP and UDP.", flag="dns-port", debug="DNSPort")] = 8600
    http: Annotated[int, S("Port of the HTTP API.", flag="http-port", debug="HTTPPort")] = 8500
    https: Annotated[int, S("Port of the HTTPS API.", flag="https-port", debug="HTTPSPort")] = -1
    grpc: Annotated[int, S("Port of the plain gRPC API (xDS).", flag="grpc-port", debug="GRPCPort")] = -1
    grpc_tls: Annotated[
        int, S("Port of the gRPC API with TLS.", flag="grpc-tls-port", debug="GRPCTLSPort", since="1.14")
    ] = -1
    serf_lan: Annotated[int, S("Port of gossip in the datacenter.", flag="serf-lan-port", debug="SerfPortLAN")] = 8301
    serf_wan: Annotated[int, S("Port of gossip between datacenters.", flag="serf-wan-port", debug="SerfPortWAN")] = 8302
    server: Annotated[int, S("Port on which servers take calls.", flag="server-port", debug="ServerPort")] = 8300
    proxy_min_port: Annotated[int, S("Start of the range for managed proxies.", debug="-")] = 20000
    proxy_max_port: Annotated[int, S("End of the range for managed proxies.", debug="-")] = 20255
    sidecar_min_port: Annotated[int, S("Start of the range for sidecars.", debug="ConnectSidecarMinPort")] = 21000
    sidecar_max_port: Annotated[int, S("End of the range for sidecars.", debug="ConnectSidecarMaxPort")] = 21255
    expose_min_port: Annotated[int, S("Start of the range for exposed checks.", debug="ExposeMinPort")] = 21500
    expose_max_port: Annotated[int, S("End of the range for exposed checks.", debug="ExposeMaxPort")] = 21755


class Soa(msgspec.Struct, frozen=True):
    """Fields of the zone's SOA record, in seconds."""

    refresh: Annotated[int, S("Refresh field.", reload=True)] = 3600
    retry: Annotated[int, S("Retry field.", reload=True)] = 600
    expire: Annotated[int, S("Expire field.", reload=True)] = 86400
    min_ttl: Annotated[int, S("Minimum field: how long a negative answer is kept.", reload=True, debug="Minttl")] = 0


class DnsConfig(msgspec.Struct, frozen=True):
    """How names are answered."""

    allow_stale: Annotated[bool, S("Answer from any server's store, not only the leader's.", reload=True)] = True
    a_record_limit: Annotated[int, S("Most A or AAAA records in an answer, 0 for no limit.", reload=True)] = 0
    disable_compression: Annotated[bool, S("Send names uncompressed.", reload=True)] = False
    enable_truncate: Annotated[bool, S("Set the truncation bit in shortened UDP answers.", reload=True)] = False
    max_stale: Annotated[Duration, S("Oldest store that a stale answer may come from.", reload=True)] = 315360000.0
    node_ttl: Annotated[Duration, S("TTL of node answers.", reload=True)] = 0.0
    only_passing: Annotated[bool, S("Leave out instances whose checks warn.", reload=True)] = False
    recursor_strategy: Annotated[
        str, S("Order in which recursors are asked: sequential or random.", reload=True, since="1.11")
    ] = "sequential"
    recursor_timeout: Annotated[Duration, S("How long to wait for a recursor.", reload=True)] = 2.0
    service_ttl: Annotated[
        dict[str, Duration], S("TTL of service answers by service; `*` ends a prefix.", reload=True)
    ] = msgspec.field(default_factory=dict)
    udp_answer_limit: Annotated[int, S("Most records in a UDP answer.", reload=True)] = 3
    enable_additional_node_meta_txt: Annotated[
        bool, S("Add node metadata to answers as TXT.", reload=True, debug="DNSNodeMetaTXT")
    ] = True
    soa: Annotated[Soa, S("Fields of the SOA record.", reload=True, debug="DNSSOA")] = msgspec.field(
        default_factory=Soa
    )
    use_cache: Annotated[
        bool, S("Answer from what the agent holds, whatever `allow_stale` says, up to `cache_max_age`.", reload=True)
    ] = False
    cache_max_age: Annotated[
        Duration, S("With `use_cache`, age beyond which an answer is confirmed first; 0 for any age.", reload=True)
    ] = 0.0
    prefer_namespace: Annotated[bool, S("Accepted; namespaces are not supported.", debug="-")] = False


class HttpConfig(msgspec.Struct, frozen=True):
    """The HTTP API."""

    block_endpoints: Annotated[
        tuple[str, ...], S("Paths (prefixes) that are answered 403.", debug="HTTPBlockEndpoints")
    ] = ()
    allow_write_http_from: Annotated[
        tuple[str, ...],
        S(
            "Networks (CIDR) from which writing calls are taken; empty for all.",
            flag="allow-write-http-from",
            debug="AllowWriteHTTPFrom",
        ),
    ] = ()
    response_headers: Annotated[
        dict[str, str], S("Headers added to every answer.", reload=True, debug="HTTPResponseHeaders")
    ] = msgspec.field(default_factory=dict)
    use_cache: Annotated[bool, S("Whether `?cached` is honoured.", debug="HTTPUseCache")] = True
    max_header_bytes: Annotated[int, S("Most bytes of request headers, 0 for the default.", since="1.11")] = 0


class RequestLimitsRate(msgspec.Struct, frozen=True):
    """Server-wide limits of the rate of calls."""

    mode: Annotated[str, S("disabled, permissive (log only) or enforcing.", reload=True)] = "disabled"
    read_rate: Annotated[float, S("Reads per second, -1 for no limit.", reload=True)] = -1.0
    write_rate: Annotated[float, S("Writes per second, -1 for no limit.", reload=True)] = -1.0


class Limits(msgspec.Struct, frozen=True):
    """What a client may use at most."""

    http_max_conns_per_client: Annotated[
        int, S("Connections that one address may hold.", reload=True, debug="HTTPMaxConnsPerClient")
    ] = 200
    https_handshake_timeout: Annotated[
        Duration, S("Time a client has for a TLS handshake.", debug="HTTPSHandshakeTimeout")
    ] = 5.0
    rpc_handshake_timeout: Annotated[
        Duration, S("Time a caller has to start a call to a server.", reload=True, debug="RPCHandshakeTimeout")
    ] = 5.0
    rpc_client_timeout: Annotated[
        Duration, S("Time after which a call to a server is given up.", reload=True, since="1.13")
    ] = 60.0
    rpc_max_burst: Annotated[int, S("Size of the bucket for calls to servers.", reload=True, debug="RPCMaxBurst")] = (
        1000
    )
    rpc_max_conns_per_client: Annotated[
        int, S("Connections that one agent may hold to a server.", reload=True, debug="RPCMaxConnsPerClient")
    ] = 100
    rpc_rate: Annotated[
        float, S("Calls per second to servers, -1 for no limit.", reload=True, debug="RPCRateLimit")
    ] = -1.0
    kv_max_value_size: Annotated[int, S("Largest value of a key, in bytes.", debug="KVMaxValueSize")] = 524288
    txn_max_req_len: Annotated[int, S("Largest body of a transaction, in bytes.", debug="TxnMaxReqLen")] = 524288
    request_limits: Annotated[RequestLimitsRate, S("Limits of the rate of calls.", reload=True, since="1.15")] = (
        msgspec.field(default_factory=RequestLimitsRate)
    )


class LookupMap(msgspec.Struct, frozen=True):
    """The map from which programs of this machine look up services by themselves."""

    enabled: Annotated[bool, S("Publish the map. Whoever may read it sees what it holds without a token.")] = True
    path: Annotated[
        str, S("File of the map; by default one in /run/lictor or the user's runtime folder, by the HTTP address.")
    ] = ""
    mode: Annotated[str, S("Permissions of the file, in octal.")] = "0644"


class Performance(msgspec.Struct, frozen=True):
    """Timing of servers."""

    leave_drain_time: Annotated[Duration, S("How long a leaving server goes on answering.", debug="LeaveDrainTime")] = (
        5.0
    )
    raft_multiplier: Annotated[int, S("Scales the servers' timers: 1 (fast machines) to 10.", debug="-")] = 5
    rpc_hold_timeout: Annotated[Duration, S("How long a call waits for a leader.", debug="RPCHoldTimeout")] = 7.0
    grpc_keepalive_interval: Annotated[Duration, S("Interval of gRPC keepalives.", since="1.15")] = 30.0
    grpc_keepalive_timeout: Annotated[Duration, S("Time to answer a gRPC keepalive.", since="1.15")] = 20.0


class Telemetry(msgspec.Struct, frozen=True):
    """Where metrics go and which are kept."""

    disable: Annotated[bool, S("Keep no metrics.")] = False
    disable_hostname: Annotated[bool, S("Leave the host's name out of gauges' names.")] = False
    dogstatsd_addr: Annotated[str, S("`host:port` of a DogStatsD server.")] = ""
    dogstatsd_tags: Annotated[tuple[str, ...], S("Tags sent to DogStatsD.")] = ()
    enable_host_metrics: Annotated[bool, S("Report the host's own metrics.", since="1.17")] = False
    filter_default: Annotated[bool, S("Whether metrics that no filter names are kept.", reload=True)] = True
    prefix_filter: Annotated[
        tuple[str, ...], S("Prefixes of metrics, `+` to keep and `-` to drop.", reload=True, debug="-")
    ] = ()
    metrics_prefix: Annotated[str, S("First word of every metric's name.")] = "consul"
    prometheus_retention_time: Annotated[
        Duration, S("How long a metric is kept for Prometheus, 0 to turn that off.", debug="PrometheusRetentionTime")
    ] = 0.0
    retry_failed_connection: Annotated[bool, S("Retry statsite and statsd connections.", since="1.17")] = True
    statsd_address: Annotated[str, S("`host:port` of a statsd server.", debug="StatsdAddr")] = ""
    statsite_address: Annotated[str, S("`host:port` of a statsite server.", debug="StatsiteAddr")] = ""
    circonus_api_app: Annotated[str, S("Accepted; Circonus is not supported.", debug="CirconusAPIApp")] = ""
    circonus_api_token: Annotated[
        str, S("Accepted; Circonus is not supported.", secret=True, debug="CirconusAPIToken")
    ] = ""
    circonus_api_url: Annotated[str, S("Accepted; Circonus is not supported.", debug="CirconusAPIURL")] = ""
    circonus_broker_id: Annotated[str, S("Accepted; Circonus is not supported.", debug="CirconusBrokerID")] = ""
    circonus_broker_select_tag: Annotated[str, S("Accepted; Circonus is not supported.")] = ""
    circonus_check_display_name: Annotated[str, S("Accepted; Circonus is not supported.")] = ""
    circonus_check_force_metric_activation: Annotated[str, S("Accepted; Circonus is not supported.")] = ""
    circonus_check_id: Annotated[str, S("Accepted; Circonus is not supported.", debug="CirconusCheckID")] = ""
    circonus_check_instance_id: Annotated[
        str, S("Accepted; Circonus is not supported.", debug="CirconusCheckInstanceID")
    ] = ""
    circonus_check_search_tag: Annotated[str, S("Accepted; Circonus is not supported.")] = ""
    circonus_check_tags: Annotated[str, S("Accepted; Circonus is not supported.")] = ""
    circonus_submission_interval: Annotated[str, S("Accepted; Circonus is not supported.")] = ""
    circonus_submission_url: Annotated[
        str, S("Accepted; Circonus is not supported.", debug="CirconusSubmissionURL")
    ] = ""


class Autopilot(msgspec.Struct, frozen=True):
    """First values of the servers' automatic administration."""

    cleanup_dead_servers: Annotated[bool, S("Remove failed servers.")] = True
    last_contact_threshold: Annotated[Duration, S("Silence of the leader that makes a server unhealthy.")] = 0.2
    max_trailing_logs: Annotated[int, S("Entries that a healthy server may lag.")] = 250
    min_quorum: Annotated[int, S("Fewest servers that clean-up leaves.")] = 0
    server_stabilization_time: Annotated[Duration, S("Health needed before a new server votes.")] = 10.0
    disable_upgrade_migration: Annotated[bool, S("Promote servers of a newer version like any others.")] = False
    redundancy_zone_tag: Annotated[str, S("Node meta key that holds a server's redundancy zone.")] = ""
    upgrade_version_tag: Annotated[str, S("Node meta key that holds a server's version.")] = ""


class GossipLan(msgspec.Struct, frozen=True):
    """Timing of gossip in the datacenter."""

    gossip_interval: Annotated[Duration, S("Time between rounds of gossip.")] = 0.2
    gossip_nodes: Annotated[int, S("Members told in each round.")] = 3
    probe_interval: Annotated[Duration, S("Time between probes.")] = 1.0
    probe_timeout: Annotated[Duration, S("Time to wait for a probe's answer.")] = 0.5
    suspicion_mult: Annotated[int, S("Scales how long a suspect may defend itself.")] = 4
    retransmit_mult: Annotated[int, S("Scales how often a message is repeated.")] = 4
    reconnect_interval: Annotated[Duration, S("Time between attempts to reach one that has failed.")] = 30.0


class GossipWan(msgspec.Struct, frozen=True):
    """Timing of gossip between datacenters."""

    gossip_interval: Annotated[Duration, S("Time between rounds of gossip.")] = 0.5
    gossip_nodes: Annotated[int, S("Members told in each round.")] = 3
    probe_interval: Annotated[Duration, S("Time between probes.")] = 5.0
    probe_timeout: Annotated[Duration, S("Time to wait for a probe's answer.")] = 3.0
    suspicion_mult: Annotated[int, S("Scales how long a suspect may defend itself.")] = 6
    retransmit_mult: Annotated[int, S("Scales how often a message is repeated.")] = 4
    reconnect_interval: Annotated[Duration, S("Time between attempts to reach one that has failed.")] = 30.0


class Cache(msgspec.Struct, frozen=True):
    """The agent's cache of answers."""

    entry_fetch_max_burst: Annotated[
        int, S("How often a client agent asks for one entry at once, beyond which it waits.", reload=True)
    ] = 2
    entry_fetch_rate: Annotated[
        float, S("How often a second a client agent asks servers for one entry; no limit by default.", reload=True)
    ] = NO_LIMIT
    entry_ttl: Annotated[
        Duration,
        S(
            "How long a client agent holds what nobody looks at. While no server answers, nothing that is held goes.",
            reload=True,
        ),
    ] = 259200.0
    persist: Annotated[
        bool,
        S(
            "Whether a client agent keeps what it holds in the data directory, and knows it where it is started while "
            "every server is away. KV entries and sessions are never kept."
        ),
    ] = True


class Rpc(msgspec.Struct, frozen=True):
    """Calls between agents."""

    enable_streaming: Annotated[bool, S("Accepted; servers always tell of changes.", since="1.10")] = True


class UnixSockets(msgspec.Struct, frozen=True):
    """Owner and mode of the sockets that `addresses` names."""

    user: Annotated[str, S("User (name or id) that owns the sockets.", debug="UnixSocketUser")] = ""
    group: Annotated[str, S("Group (id) that owns the sockets.", debug="UnixSocketGroup")] = ""
    mode: Annotated[str, S("Permissions, in octal.", debug="UnixSocketMode")] = ""


class MetricsProxy(msgspec.Struct, frozen=True):
    """The metrics back end that the web page may ask through the agent."""

    base_url: Annotated[str, S("URL that the page's calls are forwarded to.")] = ""
    add_headers: Annotated[tuple[dict[str, Any], ...], S("Headers (`name`, `value`) added to those calls.")] = ()
    path_allowlist: Annotated[tuple[str, ...], S("Paths that may be asked.")] = ()


class UiConfig(msgspec.Struct, frozen=True):
    """The web page."""

    enabled: Annotated[bool, S("Serve the web page.", flag="ui", debug="EnableUI")] = False
    dir: Annotated[str, S("Folder with a web page to serve in place of the built-in one.", flag="ui-dir")] = ""
    content_path: Annotated[str, S("Path under which the page is served.", flag="ui-content-path")] = "/ui/"
    metrics_provider: Annotated[str, S("Name of the metrics provider.")] = ""
    metrics_provider_files: Annotated[tuple[str, ...], S("Scripts of the metrics provider.")] = ()
    metrics_provider_options_json: Annotated[str, S("Options of the metrics provider, as JSON.")] = ""
    metrics_proxy: Annotated[MetricsProxy, S("Forwarding to a metrics back end.")] = msgspec.field(
        default_factory=MetricsProxy
    )
    dashboard_url_templates: Annotated[dict[str, str], S("Links from services to dashboards.")] = msgspec.field(
        default_factory=dict
    )
    hcp_enabled: Annotated[bool, S("Accepted; the cloud service is not supported.")] = False


class Segment(msgspec.Struct, frozen=True):
    """Accepted; network segments are not supported."""

    name: Annotated[str, S("Name of the segment.")] = ""
    bind: Annotated[str, S("Address to bind.")] = ""
    advertise: Annotated[str, S("Address to advertise.")] = ""
    port: Annotated[int, S("Port of the segment's gossip.")] = 0
    rpc_listener: Annotated[bool, S("Open a listener of its own for calls.")] = False


class ConfigEntries(msgspec.Struct, frozen=True):
    """Configuration entries stored when the first leader starts."""

    bootstrap: Annotated[
        tuple[dict[str, Any], ...], S("Entries to store where none of that kind and name exists.")
    ] = ()


class RaftBoltdb(msgspec.Struct, frozen=True):
    """Accepted for compatibility: settings of Consul's older log store."""

    no_freelist_sync: Annotated[bool, S("Accepted without effect.")] = False


class RaftWal(msgspec.Struct, frozen=True):
    """The servers' log on disk."""

    segment_size_mb: Annotated[int, S("Size of a log file, in megabytes.")] = 64


class RaftVerification(msgspec.Struct, frozen=True):
    """Checksums of the servers' logs."""

    enabled: Annotated[bool, S("Compare checksums between servers.")] = True
    interval: Annotated[Duration, S("Time between comparisons.")] = 60.0


class RaftLogstore(msgspec.Struct, frozen=True):
    """The servers' log store."""

    backend: Annotated[str, S("Name of the log store; accepted without effect.", since="1.15")] = ""
    disable_log_cache: Annotated[bool, S("Keep no recent entries in memory.")] = False
    boltdb: Annotated[RaftBoltdb, S("Settings of the older log store.")] = msgspec.field(default_factory=RaftBoltdb)
    wal: Annotated[RaftWal, S("Settings of the log on disk.")] = msgspec.field(default_factory=RaftWal)
    verification: Annotated[RaftVerification, S("Checksums of the log.")] = msgspec.field(
        default_factory=RaftVerification
    )


class Peering(msgspec.Struct, frozen=True):
    """Peering of clusters."""

    enabled: Annotated[bool, S("Allow peering.", since="1.13")] = True


class Xds(msgspec.Struct, frozen=True):
    """Configuration of Envoy proxies."""

    update_max_per_second: Annotated[float, S("Updates sent per second, 0 for no limit.", since="1.14")] = 250.0


class Locality(msgspec.Struct, frozen=True):
    """Where this agent runs."""

    region: Annotated[str, S("Region.", since="1.17")] = ""
    zone: Annotated[str, S("Zone of the region.", since="1.17")] = ""
