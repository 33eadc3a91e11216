"""Keys that are read and judged, and that nothing obeys yet: what they are about is still to come.

One list, for the reference to mark them, and for the agent and `lictor validate` to name those that somebody relies on.
A key leaves the list with the change that makes it work. Keys that are accepted for good without effect say so in their
own documentation and are not listed.
"""

from __future__ import annotations

from typing import Any

from lictor.agent.config.flags import walk
from lictor.agent.config.keys import RuntimeConfig
from lictor.agent.config.loading import DEV
from lictor.agent.config.problem import dotted
from lictor.model.decoding import Computed, is_record

PENDING = (
    # Access control. `acl.enabled` itself is refused at start: nobody may believe that tokens are checked.
    "acl.enabled",
    "acl.enable_token_replication",
    "acl.policy_ttl",
    "acl.role_ttl",
    "acl.token_ttl",
    "acl.down_policy",
    "acl.default_policy",
    "acl.enable_key_list_policy",
    "acl.tokens",
    "audit",
    # Other agents: gossip, agents that are no servers, more datacenters than one.
    "auto_config",
    "auto_encrypt",
    "primary_gateways",
    "primary_gateways_interval",
    "server_rejoin_age_max",
    "tls.internal_rpc.use_auto_cert",
    # The log of servers.
    "raft_logstore.disable_log_cache",
    "raft_logstore.verification",
    "raft_logstore.wal",
    # The mesh.
    "connect.enable_mesh_gateway_wan_federation",
    "enable_central_service_config",
    "locality",
    "peering",
    # The web page.
    "ui_config.enabled",
    "ui_config.dir",
    "ui_config.content_path",
    "ui_config.metrics_provider_files",
    "ui_config.metrics_provider_options_json",
    "ui_config.dashboard_url_templates",
    # This agent.
    "auto_reload_config",
    "disable_host_node_id",
    "enable_debug",
    "limits.https_handshake_timeout",
    "limits.request_limits",
    "server_name",
    "telemetry.disable",
    "telemetry.enable_host_metrics",
    "telemetry.retry_failed_connection",
    "tls.defaults.tls_cipher_suites",
    "tls.https.tls_cipher_suites",
    "tls.https.use_auto_cert",
    "tls.https.verify_outgoing",
    "tls.https.verify_server_hostname",
)
"""Keys and whole sections, by their dotted names."""

_LISTED = frozenset(tuple(name.split(".")) for name in PENDING)


def is_pending(path: tuple[str, ...]) -> bool:
    """Whether a key, or a section that it is in, is listed."""
    return any(path[:length] in _LISTED for length in range(1, len(path) + 1))


def refusal(config: RuntimeConfig) -> tuple[str, str] | None:
    """What keeps an agent from starting although its configuration is right, with the remedy; None where nothing does.

    Nobody may believe that tokens are checked while every caller has every right.
    """
    if config.acl.enabled:
        return (
            "acl.enabled = true: tokens are not checked yet, every caller would have every right",
            "Take out acl.enabled, and keep strangers away with client_addr, addresses and http_config.",
        )
    return None


def warnings_of(config: RuntimeConfig) -> list[str]:
    """What to tell of the listed keys that a configuration relies on."""
    keys = relied_on(config)
    return [f"Without effect in this version: {', '.join(keys)}"] if keys else []


def relied_on(config: RuntimeConfig) -> list[str]:
    """The listed keys that a configuration sets to something else than their default, or than what `-dev` sets."""
    found = []
    for path, key, _ in walk():
        if is_record(key.type) or Computed in key.extras or not is_pending(path):
            continue
        usual = _dev(path, key.default) if config.dev_mode else key.default
        value: Any = config
        for name in path:
            value = getattr(value, name)
        if value != usual:
            found.append(dotted(path))
    return found


def _dev(path: tuple[str, ...], default: Any) -> Any:
    tree: Any = DEV
    for name in path:
        if not isinstance(tree, dict) or name not in tree:
            return default
        tree = tree[name]
    return tree
