"""The sections of the agent's configuration that decide who may do what and who is who: ACLs, TLS, the mesh's CA.

Same conventions as `sections`. A TLS value of None means that the protocol follows `tls.defaults`.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from lictor.agent.config.setting import Setting as S
from lictor.model.decoding import Duration


class ServiceProviderToken(msgspec.Struct, frozen=True):
    """Accepted; managed service providers are not supported."""

    accessor_id: Annotated[str, S("Accessor of the token.")] = ""
    secret_id: Annotated[str, S("Secret of the token.", secret=True)] = ""


class AclTokens(msgspec.Struct, frozen=True):
    """Tokens that this agent uses."""

    initial_management: Annotated[
        str,
        S(
            "Secret of the first management token, stored by the first leader.",
            secret=True,
            debug="ACLInitialManagementToken",
            since="1.11",
        ),
    ] = ""
    agent_recovery: Annotated[
        str,
        S(
            "Token that this agent accepts while no server answers.",
            secret=True,
            debug="ACLAgentRecoveryToken",
            reload=True,
            since="1.11",
        ),
    ] = ""
    default: Annotated[str, S("Token of calls that bring none.", secret=True, reload=True, debug="ACLToken")] = ""
    agent: Annotated[str, S("Token of the agent's own calls.", secret=True, reload=True, debug="ACLAgentToken")] = ""
    replication: Annotated[
        str, S("Token of replication between datacenters.", secret=True, reload=True, debug="ACLReplicationToken")
    ] = ""
    config_file_service_registration: Annotated[
        str, S("Token that registers services from files.", secret=True, reload=True, since="1.15")
    ] = ""
    dns: Annotated[str, S("Token of DNS answers.", secret=True, reload=True, since="1.17")] = ""
    managed_service_provider: Annotated[
        tuple[ServiceProviderToken, ...], S("Accepted; managed service providers are not supported.", debug="-")
    ] = ()


class Acl(msgspec.Struct, frozen=True):
    """Access control."""

    enabled: Annotated[bool, S("Check tokens.", debug="ACLsEnabled")] = False
    enable_token_replication: Annotated[
        bool, S("Copy tokens from the primary datacenter.", debug="ACLTokenReplication")
    ] = False
    policy_ttl: Annotated[Duration, S("How long a policy may be remembered.")] = 30.0
    role_ttl: Annotated[Duration, S("How long a role may be remembered.")] = 0.0
    token_ttl: Annotated[Duration, S("How long a token may be remembered.")] = 30.0
    down_policy: Annotated[
        str, S("When servers are away: allow, deny, extend-cache or async-cache.", debug="ACLDownPolicy")
    ] = "extend-cache"
    default_policy: Annotated[str, S("Without a matching rule: allow or deny.", debug="ACLDefaultPolicy")] = "allow"
    enable_key_list_policy: Annotated[bool, S("Listing keys needs the list permission.")] = False
    enable_token_persistence: Annotated[bool, S("Keep tokens set through the API on disk.")] = False
    tokens: Annotated[AclTokens, S("Tokens that this agent uses.", reload=True)] = msgspec.field(
        default_factory=AclTokens
    )
    msp_disable_bootstrap: Annotated[bool, S("Accepted; managed service providers are not supported.", debug="-")] = (
        False
    )


class TlsDefaults(msgspec.Struct, frozen=True):
    """TLS settings for every protocol that sets none of its own."""

    ca_file: Annotated[str, S("File of the authorities that are trusted.", reload=True)] = ""
    ca_path: Annotated[str, S("Folder of the authorities that are trusted.", reload=True)] = ""
    cert_file: Annotated[str, S("File of this agent's certificate.", reload=True)] = ""
    key_file: Annotated[str, S("File of this agent's private key.", reload=True, secret=True)] = ""
    tls_min_version: Annotated[str, S("Oldest version: TLSv1_0 to TLSv1_3.")] = "TLSv1_2"
    tls_cipher_suites: Annotated[str, S("Cipher suites, separated by commas.")] = ""
    verify_incoming: Annotated[bool, S("Callers must show a certificate.", reload=True)] = False
    verify_outgoing: Annotated[bool, S("Servers called must show a trusted certificate.", reload=True)] = False
    verify_server_hostname: Annotated[bool, S("Servers' certificates must name `server.<dc>.<domain>`.")] = False


class TlsProtocol(msgspec.Struct, frozen=True):
    """TLS settings of one protocol; None follows `tls.defaults`."""

    ca_file: Annotated[str | None, S("File of the authorities that are trusted.", reload=True)] = None
    ca_path: Annotated[str | None, S("Folder of the authorities that are trusted.", reload=True)] = None
    cert_file: Annotated[str | None, S("File of the certificate.", reload=True)] = None
    key_file: Annotated[str | None, S("File of the private key.", reload=True, secret=True)] = None
    tls_min_version: Annotated[str | None, S("Oldest version: TLSv1_0 to TLSv1_3.")] = None
    tls_cipher_suites: Annotated[str | None, S("Cipher suites, separated by commas.")] = None
    verify_incoming: Annotated[bool | None, S("Callers must show a certificate.", reload=True)] = None
    verify_outgoing: Annotated[bool | None, S("Servers called must show a certificate.", reload=True)] = None
    verify_server_hostname: Annotated[bool | None, S("Certificates must name `server.<dc>.<domain>`.")] = None
    use_auto_cert: Annotated[bool | None, S("Use the certificate that the servers hand out.")] = None


class TlsGrpc(TlsProtocol, frozen=True):
    """TLS settings of gRPC, where Envoys get their configuration; None follows `tls.defaults`."""

    tls_min_version: Annotated[str | None, S("Oldest version; one before TLSv1_2 means TLSv1_2.")] = None
    verify_outgoing: Annotated[bool | None, S("Accepted without effect: nothing is called over gRPC.")] = None
    verify_server_hostname: Annotated[bool | None, S("Accepted without effect: nothing is called over gRPC.")] = None
    use_auto_cert: Annotated[bool | None, S("Accepted without effect: the certificate is that of cert_file.")] = None


class Tls(msgspec.Struct, frozen=True):
    """TLS by protocol."""

    defaults: Annotated[TlsDefaults, S("Settings for every protocol.", since="1.12")] = msgspec.field(
        default_factory=TlsDefaults
    )
    internal_rpc: Annotated[TlsProtocol, S("Settings of calls between agents.", since="1.12")] = msgspec.field(
        default_factory=TlsProtocol
    )
    https: Annotated[TlsProtocol, S("Settings of the HTTPS API.", since="1.12")] = msgspec.field(
        default_factory=TlsProtocol
    )
    grpc: Annotated[TlsGrpc, S("Settings of the gRPC API.", since="1.12")] = msgspec.field(default_factory=TlsGrpc)


class Launch(msgspec.Struct, frozen=True):
    """Proxies that the agent starts and looks after."""

    enabled: Annotated[bool, S("Start the proxies whose registration asks for it with Proxy.Launch.")] = False
    default: Annotated[str, S("What a sidecar whose registration does not say gets: builtin, envoy or none.")] = "none"
    one_process: Annotated[bool, S("One process serves all built-in proxies of the node.")] = True
    user: Annotated[str, S("The system user that the proxies run as; empty for the agent's own.")] = ""


class Connect(msgspec.Struct, frozen=True):
    """The mesh."""

    enabled: Annotated[bool, S("Hand out certificates and serve proxies.")] = True
    launch: Annotated[Launch, S("Proxies that the agent starts and looks after.")] = msgspec.field(
        default_factory=Launch
    )
    ca_provider: Annotated[str, S("Who signs: consul or vault.", debug="ConnectCAProvider")] = ""
    ca_config: Annotated[dict[str, Any], S("Settings of the CA.", secret=True, debug="ConnectCAConfig")] = (
        msgspec.field(default_factory=dict)
    )
    enable_mesh_gateway_wan_federation: Annotated[
        bool, S("Reach other datacenters through mesh gateways.", debug="ConnectMeshGatewayWANFederationEnabled")
    ] = False
    test_ca_leaf_root_change_spread: Annotated[
        Duration,
        S("Time over which a change of the root has certificates renewed; short in tests.", debug="-"),
    ] = 30.0
    enable_serverless_plugin: Annotated[bool, S("Accepted; serverless functions are not supported.")] = False


class AutoEncrypt(msgspec.Struct, frozen=True):
    """Certificates for clients, handed out by servers."""

    tls: Annotated[bool, S("Ask the servers for a certificate (clients).", debug="AutoEncryptTLS")] = False
    dns_san: Annotated[tuple[str, ...], S("DNS names for that certificate.", debug="AutoEncryptDNSSAN")] = ()
    ip_san: Annotated[tuple[str, ...], S("Addresses for that certificate.", debug="AutoEncryptIPSAN")] = ()
    allow_tls: Annotated[bool, S("Hand out certificates (servers).", debug="AutoEncryptAllowTLS")] = False


class AutoConfigAuthorizer(msgspec.Struct, frozen=True):
    """How a server checks the token that a new client brings."""

    claim_assertions: Annotated[tuple[str, ...], S("Expressions that the claims must satisfy.")] = ()
    allow_reuse: Annotated[bool, S("A token may be used again.")] = False
    jwt_supported_algs: Annotated[tuple[str, ...], S("Signature algorithms.")] = ()
    bound_audiences: Annotated[tuple[str, ...], S("Audiences that are accepted.")] = ()
    claim_mappings: Annotated[dict[str, str], S("Claims by variable.")] = msgspec.field(default_factory=dict)
    list_claim_mappings: Annotated[dict[str, str], S("Lists of claims by variable.")] = msgspec.field(
        default_factory=dict
    )
    oidc_discovery_url: Annotated[str, S("URL of the OIDC provider.")] = ""
    oidc_discovery_ca_cert: Annotated[str, S("Authority of the OIDC provider.")] = ""
    jwks_url: Annotated[str, S("URL of the key set.")] = ""
    jwks_ca_cert: Annotated[str, S("Authority of the key set's server.")] = ""
    jwt_validation_pub_keys: Annotated[tuple[str, ...], S("Public keys.")] = ()
    bound_issuer: Annotated[str, S("Issuer that is accepted.")] = ""
    expiration_leeway: Annotated[Duration, S("Slack for the expiration.")] = 0.0
    not_before_leeway: Annotated[Duration, S("Slack for the start.")] = 0.0
    clock_skew_leeway: Annotated[Duration, S("Slack for clocks.")] = 0.0


class AutoConfigAuthorization(msgspec.Struct, frozen=True):
    """Whether and how servers configure new clients."""

    enabled: Annotated[bool, S("Configure new clients (servers).")] = False
    static: Annotated[AutoConfigAuthorizer, S("How their tokens are checked.")] = msgspec.field(
        default_factory=AutoConfigAuthorizer
    )


class AutoConfig(msgspec.Struct, frozen=True):
    """Configuration of clients by servers."""

    enabled: Annotated[bool, S("Fetch the configuration from the servers (clients).")] = False
    intro_token: Annotated[str, S("Token that introduces this client.", secret=True)] = ""
    intro_token_file: Annotated[str, S("File with that token.")] = ""
    server_addresses: Annotated[tuple[str, ...], S("Servers to ask.")] = ()
    dns_sans: Annotated[tuple[str, ...], S("DNS names for the client's certificate.", debug="DNSSANs")] = ()
    ip_sans: Annotated[tuple[str, ...], S("Addresses for the client's certificate.", debug="IPSANs")] = ()
    authorization: Annotated[AutoConfigAuthorization, S("How servers check new clients.")] = msgspec.field(
        default_factory=AutoConfigAuthorization
    )


class AuditSink(msgspec.Struct, frozen=True):
    """A destination of the audit log."""

    name: Annotated[str, S("Name of the sink.")] = ""
    type: Annotated[str, S("Type: file.")] = ""
    format: Annotated[str, S("Format: json.")] = ""
    path: Annotated[str, S("File to write.")] = ""
    delivery_guarantee: Annotated[str, S("best-effort.")] = ""
    mode: Annotated[str, S("Permissions of the file, in octal.")] = ""
    rotate_bytes: Annotated[int, S("Size after which the file is rotated.")] = 0
    rotate_duration: Annotated[Duration, S("Age after which the file is rotated.")] = 0.0
    rotate_max_files: Annotated[int, S("Rotated files that are kept.")] = 0


class Audit(msgspec.Struct, frozen=True):
    """The audit log."""

    enabled: Annotated[bool, S("Write the audit log.")] = False
    sink: Annotated[dict[str, AuditSink], S("Destinations by name.")] = msgspec.field(default_factory=dict)
    rpc_enabled: Annotated[bool, S("Log calls between agents too.")] = False
