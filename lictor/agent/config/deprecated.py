"""Keys of older configurations: still read, with a warning that names the key to use now.

A moved key's value lands at its successor, unless the same file gives the successor too. Keys that Consul accepts
and that have no meaning here are read, checked for their type, and dropped.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lictor.agent.config.keys import RuntimeConfig
from lictor.agent.config.sections import RaftBoltdb, Telemetry
from lictor.agent.config.security import Acl, AclTokens
from lictor.model.decoding import Duration
from lictor.model.service_definition import CheckDefinition, ServiceDefinition


class Moved(msgspec.Struct, frozen=True):
    """What became of a key: the type it has, where its value goes (None: nowhere), and what it also sets.

    `silent` keys are another way to write the successor, not an old one.
    """

    type: Any
    to: tuple[str, ...] | None = None
    also: tuple[tuple[tuple[str, ...], Any], ...] = ()
    silent: bool = False

    def warning(self, key: str) -> str | None:
        """What is said when the key is met."""
        if self.silent:
            return None
        if self.to is None:
            return f"The '{key}' field is deprecated and will be ignored."
        return f"The '{key}' field is deprecated. Use the '{'.'.join(self.to)}' field instead."


Texts = tuple[str, ...]
_TOKENS = ("acl", "tokens")
_TLS = ("tls", "defaults")

MOVED: dict[type[msgspec.Struct], dict[str, Moved]] = {
    RuntimeConfig: {
        "check": Moved(tuple[CheckDefinition, ...], ("checks",), silent=True),
        "service": Moved(tuple[ServiceDefinition, ...], ("services",), silent=True),
        "start_join": Moved(Texts, ("retry_join",)),
        "start_join_wan": Moved(Texts, ("retry_join_wan",)),
        "acl_agent_master_token": Moved(str, (*_TOKENS, "agent_recovery")),
        "acl_agent_token": Moved(str, (*_TOKENS, "agent")),
        "acl_token": Moved(str, (*_TOKENS, "default")),
        "acl_master_token": Moved(str, (*_TOKENS, "initial_management")),
        "acl_replication_token": Moved(
            str, (*_TOKENS, "replication"), also=((("acl", "enable_token_replication"), True),)
        ),
        "enable_acl_replication": Moved(bool, ("acl", "enable_token_replication")),
        "acl_datacenter": Moved(str, ("primary_datacenter",), also=((("acl", "enabled"), True),)),
        "acl_default_policy": Moved(str, ("acl", "default_policy")),
        "acl_down_policy": Moved(str, ("acl", "down_policy")),
        "acl_ttl": Moved(Duration, ("acl", "token_ttl")),
        "acl_enable_key_list_policy": Moved(bool, ("acl", "enable_key_list_policy")),
        "ca_file": Moved(str, (*_TLS, "ca_file")),
        "ca_path": Moved(str, (*_TLS, "ca_path")),
        "cert_file": Moved(str, (*_TLS, "cert_file")),
        "key_file": Moved(str, (*_TLS, "key_file")),
        "tls_cipher_suites": Moved(str, (*_TLS, "tls_cipher_suites")),
        "tls_min_version": Moved(str, (*_TLS, "tls_min_version")),
        "tls_prefer_server_cipher_suites": Moved(bool),
        "verify_incoming": Moved(bool, (*_TLS, "verify_incoming"), also=((("tls", "grpc", "verify_incoming"), False),)),
        "verify_incoming_https": Moved(bool, ("tls", "https", "verify_incoming")),
        "verify_incoming_rpc": Moved(bool, ("tls", "internal_rpc", "verify_incoming")),
        "verify_outgoing": Moved(bool, (*_TLS, "verify_outgoing")),
        "verify_server_hostname": Moved(bool, ("tls", "internal_rpc", "verify_server_hostname")),
        "ui": Moved(bool, ("ui_config", "enabled")),
        "ui_dir": Moved(str, ("ui_config", "dir")),
        "ui_content_path": Moved(str, ("ui_config", "content_path")),
        "non_voting_server": Moved(bool, ("read_replica",)),
        "raft_boltdb": Moved(RaftBoltdb, ("raft_logstore", "boltdb")),
        "acl_disabled_ttl": Moved(str),
        "ae_interval": Moved(str),
        "check_deregister_interval_min": Moved(str),
        "check_reap_interval": Moved(str),
        "consul": Moved(dict[str, Any]),
        "revision": Moved(str),
        "segment_limit": Moved(int),
        "segment_name_limit": Moved(int),
        "sync_coordinate_interval_min": Moved(str),
        "sync_coordinate_rate_target": Moved(float),
        "version": Moved(str),
        "version_prerelease": Moved(str),
        "version_metadata": Moved(str),
    },
    Acl: {"disabled_ttl": Moved(str)},
    AclTokens: {
        "master": Moved(str, (*_TOKENS, "initial_management")),
        "agent_master": Moved(str, (*_TOKENS, "agent_recovery")),
    },
    Telemetry: {"disable_compat_1.9": Moved(bool), "disable_per_tenancy_usage_metrics": Moved(bool)},
}
