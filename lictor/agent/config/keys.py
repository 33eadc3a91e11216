"""The agent's configuration: every key of the top level, and the record that an agent is started from.

`RuntimeConfig` is both the table of keys and the result of loading them. Its computed fields, at the end, hold what
follows from the keys: the addresses to listen on and to advertise.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from lictor.agent.config import sections as sec
from lictor.agent.config import security
from lictor.agent.config.join_sources import JoinSource
from lictor.agent.config.setting import Setting as S
from lictor.model.decoding import Computed, Duration
from lictor.model.service_definition import CheckDefinition, ServiceDefinition


class Endpoint(msgspec.Struct, frozen=True, order=True):
    """A place to listen: `network` is tcp, udp or unix; a socket's path is the `host`, its port 0."""

    network: str
    host: str
    port: int = 0

    def __str__(self) -> str:
        """`tcp://127.0.0.1:8500`, `tcp://[::1]:8500`, `unix:///run/x.sock`, as Consul shows it."""
        if self.network == "unix":
            return f"unix://{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.network}://{host}:{self.port}"


class Listen(msgspec.Struct, frozen=True):
    """Every place that the agent listens on. A closed door has none."""

    dns: tuple[Endpoint, ...] = ()
    http: tuple[Endpoint, ...] = ()
    https: tuple[Endpoint, ...] = ()
    grpc: tuple[Endpoint, ...] = ()
    grpc_tls: tuple[Endpoint, ...] = ()
    rpc: Endpoint | None = None
    serf_lan: Endpoint | None = None
    serf_wan: Endpoint | None = None


class RuntimeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The agent's configuration with defaults, templates and addresses resolved."""

    acl: Annotated[security.Acl, S("Access control.")] = msgspec.field(default_factory=security.Acl)
    addresses: Annotated[sec.Addresses, S("Addresses of the listeners.", debug="-")] = msgspec.field(
        default_factory=sec.Addresses
    )
    advertise_addr: Annotated[
        str, S("Address that other agents of the datacenter are told.", flag="advertise", debug="AdvertiseAddrLAN")
    ] = ""
    advertise_addr_ipv4: Annotated[str, S("IPv4 address that others are told.", debug="-")] = ""
    advertise_addr_ipv6: Annotated[str, S("IPv6 address that others are told.", debug="-")] = ""
    advertise_addr_wan: Annotated[
        str, S("Address that other datacenters are told.", flag="advertise-wan", debug="AdvertiseAddrWAN")
    ] = ""
    advertise_addr_wan_ipv4: Annotated[str, S("IPv4 address that other datacenters are told.", debug="-")] = ""
    advertise_addr_wan_ipv6: Annotated[str, S("IPv6 address that other datacenters are told.", debug="-")] = ""
    advertise_reconnect_timeout: Annotated[
        Duration, S("How long others keep this agent after it failed; on clients only.", since="1.10")
    ] = 0.0
    alt_domain: Annotated[str, S("Second domain that DNS answers for.", flag="alt-domain", debug="DNSAltDomain")] = ""
    audit: Annotated[security.Audit, S("The audit log.")] = msgspec.field(default_factory=security.Audit)
    auto_config: Annotated[security.AutoConfig, S("Configuration of clients by servers.")] = msgspec.field(
        default_factory=security.AutoConfig
    )
    auto_encrypt: Annotated[security.AutoEncrypt, S("Certificates of clients from servers.")] = msgspec.field(
        default_factory=security.AutoEncrypt
    )
    auto_reload_config: Annotated[
        bool, S("Reload when a configuration or certificate file changes.", flag="auto-reload-config", since="1.12")
    ] = False
    autopilot: Annotated[sec.Autopilot, S("Automatic administration of servers.")] = msgspec.field(
        default_factory=sec.Autopilot
    )
    bind_addr: Annotated[str, S("Address to bind for other agents.", flag="bind")] = "0.0.0.0"
    bootstrap: Annotated[bool, S("This server may elect itself.", flag="bootstrap")] = False
    bootstrap_expect: Annotated[int, S("Servers to wait for before the first election.", flag="bootstrap-expect")] = 0
    cache: Annotated[sec.Cache, S("The agent's cache of answers.", reload=True)] = msgspec.field(
        default_factory=sec.Cache
    )
    check_output_max_size: Annotated[
        int, S("Bytes of a check's output that are kept.", flag="check_output_max_size")
    ] = 4096
    check_update_interval: Annotated[Duration, S("How long a changed output may stay unsent, 0 for not at all.")] = (
        300.0
    )
    checks: Annotated[tuple[CheckDefinition, ...], S("Checks to register; one alone as `check`.", reload=True)] = ()
    client_addr: Annotated[
        str,
        S("Addresses to bind for clients: HTTP, HTTPS, DNS and gRPC.", flag="client", debug="ClientAddrs"),
    ] = "127.0.0.1"
    cloud: Annotated[dict[str, Any], S("Accepted; the cloud service is not supported.", debug="-")] = msgspec.field(
        default_factory=dict
    )
    config_entries: Annotated[sec.ConfigEntries, S("Entries stored when the first leader starts.")] = msgspec.field(
        default_factory=sec.ConfigEntries
    )
    connect: Annotated[security.Connect, S("The mesh.")] = msgspec.field(default_factory=security.Connect)
    data_dir: Annotated[str, S("Folder for everything that must survive.", flag="data-dir")] = ""
    datacenter: Annotated[str, S("Datacenter of the agent.", flag="datacenter")] = "dc1"
    default_intention_policy: Annotated[
        str, S("Without a matching intention: allow or deny; empty follows the ACL's.", since="1.17")
    ] = ""
    default_query_time: Annotated[
        Duration, S("How long a blocking query waits that does not say.", flag="default-query-time")
    ] = 300.0
    disable_anonymous_signature: Annotated[bool, S("Accepted; nothing is reported.")] = False
    disable_coordinates: Annotated[bool, S("Send no network coordinates.")] = False
    disable_host_node_id: Annotated[
        bool, S("Make the node's id at random, not from the host's.", flag="disable-host-node-id")
    ] = True
    disable_http_unprintable_char_filter: Annotated[
        bool, S("Take unprintable characters in paths.", debug="DisableHTTPUnprintableCharFilter")
    ] = False
    disable_keyring_file: Annotated[bool, S("Do not keep the gossip keys on disk.", flag="disable-keyring-file")] = (
        False
    )
    disable_remote_exec: Annotated[bool, S("Refuse `exec` on this agent.")] = True
    disable_update_check: Annotated[bool, S("Accepted; no updates are looked for.")] = False
    discard_check_output: Annotated[bool, S("Drop the output of checks.", reload=True)] = False
    discovery_max_stale: Annotated[
        Duration, S("Oldest store that default reads of `/v1/catalog` and `/v1/health` may be answered from.")
    ] = 0.0
    dns_config: Annotated[sec.DnsConfig, S("How names are answered.", reload=True)] = msgspec.field(
        default_factory=sec.DnsConfig
    )
    domain: Annotated[str, S("Domain that DNS answers for.", flag="domain", debug="DNSDomain")] = "consul."
    enable_agent_tls_for_checks: Annotated[
        bool, S("Checks over TLS show the agent's certificate.", debug="EnableAgentTLSForChecks")
    ] = False
    enable_central_service_config: Annotated[bool, S("Apply configuration entries to proxies.")] = True
    enable_debug: Annotated[bool, S("Serve profiles.", reload=True)] = False
    enable_local_script_checks: Annotated[
        bool, S("Run script checks from configuration files.", flag="enable-local-script-checks")
    ] = False
    enable_script_checks: Annotated[
        bool,
        S(
            "Run script checks from files and from the API.",
            flag="enable-script-checks",
            debug="EnableRemoteScriptChecks",
        ),
    ] = False
    enable_syslog: Annotated[bool, S("Log to syslog.", flag="syslog", debug="-")] = False
    encrypt: Annotated[str, S("Gossip key, in base64.", flag="encrypt", secret=True, debug="EncryptKey")] = ""
    encrypt_verify_incoming: Annotated[bool, S("Refuse gossip that is not encrypted.")] = True
    encrypt_verify_outgoing: Annotated[bool, S("Encrypt gossip.")] = True
    experiments: Annotated[tuple[str, ...], S("Accepted; there are no experiments.", since="1.16")] = ()
    gossip_lan: Annotated[sec.GossipLan, S("Timing of gossip in the datacenter.")] = msgspec.field(
        default_factory=sec.GossipLan
    )
    gossip_wan: Annotated[sec.GossipWan, S("Timing of gossip between datacenters.")] = msgspec.field(
        default_factory=sec.GossipWan
    )
    http_config: Annotated[sec.HttpConfig, S("The HTTP API.")] = msgspec.field(default_factory=sec.HttpConfig)
    leave_on_terminate: Annotated[
        bool | None, S("Leave the cluster on SIGTERM; clients do unless told not to.", debug="LeaveOnTerm")
    ] = None
    license_path: Annotated[str, S("Accepted; there is no licence to load.", since="1.10")] = ""
    limits: Annotated[sec.Limits, S("What a client may use at most.", reload=True)] = msgspec.field(
        default_factory=sec.Limits
    )
    locality: Annotated[sec.Locality, S("Where this agent runs.", since="1.17")] = msgspec.field(
        default_factory=sec.Locality
    )
    log_file: Annotated[str, S("File that the log is written to.", flag="log-file", debug="-")] = ""
    log_json: Annotated[bool, S("Log as JSON.", flag="log-json", debug="-")] = False
    log_level: Annotated[str, S("Least important level that is logged.", flag="log-level", reload=True, debug="-")] = (
        "INFO"
    )
    log_rotate_bytes: Annotated[
        int, S("Size after which the log file is rotated.", flag="log-rotate-bytes", debug="-")
    ] = 0
    log_rotate_duration: Annotated[
        Duration, S("Age after which the log file is rotated.", flag="log-rotate-duration", debug="-")
    ] = 0.0
    log_rotate_max_files: Annotated[
        int, S("Rotated log files that are kept, 0 for all, -1 for none.", flag="log-rotate-max-files", debug="-")
    ] = 0
    lookup_map: Annotated[sec.LookupMap, S("The map for lookups within programs; Lictor's own.")] = msgspec.field(
        default_factory=sec.LookupMap
    )
    max_query_time: Annotated[Duration, S("Longest that a blocking query may wait.", flag="max-query-time")] = 600.0
    node_id: Annotated[str, S("The node's id, a UUID; kept in the data folder otherwise.", flag="node-id")] = ""
    node_meta: Annotated[
        dict[str, str], S("Metadata of this node; as a flag `key:value`.", flag="node-meta", reload=True)
    ] = msgspec.field(default_factory=dict)
    node_name: Annotated[str, S("Name of this node, unique in the cluster; the host's by default.", flag="node")] = ""
    partition: Annotated[str, S("Accepted; only the default partition exists.", debug="-", since="1.11")] = ""
    peering: Annotated[sec.Peering, S("Peering of clusters.", since="1.13")] = msgspec.field(
        default_factory=sec.Peering
    )
    performance: Annotated[sec.Performance, S("Timing of servers.")] = msgspec.field(default_factory=sec.Performance)
    pid_file: Annotated[str, S("File that the agent's process id is written to.", flag="pid-file")] = ""
    ports: Annotated[sec.Ports, S("Ports of the listeners.")] = msgspec.field(default_factory=sec.Ports)
    primary_datacenter: Annotated[
        str, S("Datacenter that decides on ACLs, intentions and the CA.", flag="primary-datacenter")
    ] = ""
    primary_gateways: Annotated[
        tuple[str, ...], S("Mesh gateways of the primary datacenter.", flag="primary-gateway")
    ] = ()
    primary_gateways_interval: Annotated[Duration, S("Time between attempts to reach them.")] = 30.0
    protocol: Annotated[int, S("Version of the protocol between agents.", flag="protocol", debug="RPCProtocol")] = 2
    raft_logstore: Annotated[sec.RaftLogstore, S("The servers' log store.", since="1.15")] = msgspec.field(
        default_factory=sec.RaftLogstore
    )
    raft_protocol: Annotated[int, S("Version of the servers' protocol.", flag="raft-protocol")] = 3
    raft_snapshot_interval: Annotated[Duration, S("Time between looks at whether to snapshot.", reload=True)] = 30.0
    raft_snapshot_threshold: Annotated[int, S("Entries after which a snapshot is taken.", reload=True)] = 16384
    raft_trailing_logs: Annotated[int, S("Entries that are kept after a snapshot.", reload=True)] = 10240
    read_replica: Annotated[
        bool,
        S(
            "This server never votes: it holds all data, for reads, and takes no part in majorities.",
            flag="read-replica",
            since="1.10",
        ),
    ] = False
    reconnect_timeout: Annotated[
        Duration, S("After this, a failed agent is forgotten; 0 for 72 h.", debug="ReconnectTimeoutLAN")
    ] = 0.0
    reconnect_timeout_wan: Annotated[
        Duration,
        S("After this, a failed server of another datacenter is forgotten; 0 for 72 h.", debug="ReconnectTimeoutWAN"),
    ] = 0.0
    recursors: Annotated[
        tuple[str, ...],
        S("DNS servers to ask for other domains.", flag="recursor", reload=True, debug="DNSRecursors"),
    ] = ()
    rejoin_after_leave: Annotated[bool, S("Join again after having left.", flag="rejoin")] = False
    reporting: Annotated[dict[str, Any], S("Accepted; nothing is reported.", debug="-", since="1.16")] = msgspec.field(
        default_factory=dict
    )
    retry_interval: Annotated[
        Duration, S("Time between attempts to join.", flag="retry-interval", debug="RetryJoinIntervalLAN")
    ] = 30.0
    retry_interval_wan: Annotated[
        Duration,
        S("Time between attempts to join other datacenters.", flag="retry-interval-wan", debug="RetryJoinIntervalWAN"),
    ] = 30.0
    retry_join: Annotated[
        tuple[str, ...],
        S(
            "Agents to join: host, host:port or [IPv6 address]:port of their `ports.serf_lan` or, where servers are "
            "concerned, of their `ports.server`; a name may have several "
            'addresses. `provider=exec args="/path/program --flag" timeout=10s` runs a program that prints addresses.',
            flag="retry-join",
            debug="RetryJoinLAN",
        ),
    ] = ()
    retry_join_wan: Annotated[
        tuple[str, ...],
        S("Servers of other datacenters to join.", flag="retry-join-wan", debug="RetryJoinWAN"),
    ] = ()
    retry_max: Annotated[
        int, S("Attempts to join, 0 for no end.", flag="retry-max", debug="RetryJoinMaxAttemptsLAN")
    ] = 0
    retry_max_wan: Annotated[
        int,
        S("Attempts to join other datacenters, 0 for no end.", flag="retry-max-wan", debug="RetryJoinMaxAttemptsWAN"),
    ] = 0
    rpc: Annotated[sec.Rpc, S("Calls between agents.", debug="-", since="1.10")] = msgspec.field(
        default_factory=sec.Rpc
    )
    segment: Annotated[str, S("Accepted; network segments are not supported.", flag="segment", debug="SegmentName")] = (
        ""
    )
    segments: Annotated[tuple[sec.Segment, ...], S("Accepted; network segments are not supported.")] = ()
    serf_lan: Annotated[str, S("Address to bind for gossip in the datacenter.", flag="serf-lan-bind", debug="-")] = ""
    serf_lan_allowed_cidrs: Annotated[
        tuple[str, ...],
        S("Networks whose agents may join.", flag="serf-lan-allowed-cidrs", debug="SerfAllowedCIDRsLAN"),
    ] = ()
    serf_wan: Annotated[str, S("Address to bind for gossip between datacenters.", flag="serf-wan-bind", debug="-")] = ""
    serf_wan_allowed_cidrs: Annotated[
        tuple[str, ...],
        S("Networks whose servers may join.", flag="serf-wan-allowed-cidrs", debug="SerfAllowedCIDRsWAN"),
    ] = ()
    server: Annotated[bool, S("This agent is also a server.", flag="server", debug="ServerMode")] = False
    server_name: Annotated[str, S("Name in the certificate, the node's by default.")] = ""
    server_rejoin_age_max: Annotated[Duration, S("A server that was away longer does not rejoin.", since="1.15")] = (
        604800.0
    )
    services: Annotated[
        tuple[ServiceDefinition, ...], S("Services to register; one alone as `service`.", reload=True)
    ] = ()
    session_ttl_min: Annotated[Duration, S("Shortest TTL that a session may have.", debug="SessionTTLMin")] = 0.0
    skip_leave_on_interrupt: Annotated[
        bool | None, S("Do not leave on SIGINT; servers do not unless told to.", debug="SkipLeaveOnInt")
    ] = None
    snapshot_agent: Annotated[dict[str, Any], S("Accepted without effect.", debug="-")] = msgspec.field(
        default_factory=dict
    )
    syslog_facility: Annotated[str, S("Facility of syslog messages.", debug="-")] = "LOCAL0"
    tagged_addresses: Annotated[dict[str, str], S("Addresses of this node by tag.")] = msgspec.field(
        default_factory=dict
    )
    telemetry: Annotated[sec.Telemetry, S("Where metrics go and which are kept.")] = msgspec.field(
        default_factory=sec.Telemetry
    )
    tls: Annotated[security.Tls, S("TLS by protocol.", since="1.12")] = msgspec.field(default_factory=security.Tls)
    translate_wan_addrs: Annotated[
        bool, S("Answer calls from other datacenters with WAN addresses.", debug="TranslateWANAddrs")
    ] = False
    ui_config: Annotated[sec.UiConfig, S("The web page.", since="1.9")] = msgspec.field(default_factory=sec.UiConfig)
    unix_sockets: Annotated[sec.UnixSockets, S("Owner and mode of listening sockets.")] = msgspec.field(
        default_factory=sec.UnixSockets
    )
    use_streaming_backend: Annotated[bool, S("Accepted; agents always follow changes.", since="1.9")] = True
    watches: Annotated[tuple[dict[str, Any], ...], S("Watches with their handlers.", reload=True)] = ()
    xds: Annotated[sec.Xds, S("Configuration of Envoy proxies.", since="1.14")] = msgspec.field(default_factory=sec.Xds)

    dev_mode: Annotated[bool, Computed] = False
    client_addrs: Annotated[tuple[str, ...], Computed] = ()
    join_lan: Annotated[tuple[JoinSource, ...], Computed] = ()
    join_wan: Annotated[tuple[JoinSource, ...], Computed] = ()
    listen: Annotated[Listen, Computed] = msgspec.field(default_factory=Listen)
    advertise_rpc: Annotated[Endpoint | None, Computed] = None
    advertise_serf_lan: Annotated[Endpoint | None, Computed] = None
    advertise_serf_wan: Annotated[Endpoint | None, Computed] = None
