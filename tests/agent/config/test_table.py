"""The table of keys: documented, consistent, the source of flags, reload rules, docs and what the API shows."""

import json
from pathlib import Path

import msgspec
import pytest

from lictor.agent.config import debug_config, diff_reload, flag_set
from lictor.agent.config.deprecated import MOVED
from lictor.agent.config.flags import walk
from lictor.agent.config.keys import RuntimeConfig
from lictor.agent.config.reference import reference
from lictor.agent.config.reload import reloadable_keys
from lictor.model.decoding import Computed, is_record, keys_of
from tests.agent.config.conftest import Load

DOCS = Path(__file__).parents[3] / "docs" / "configuration.md"

REFERENCE_FLAGS = """
advertise advertise-wan allow-write-http-from alt-domain bind bootstrap bootstrap-expect check_output_max_size client
config-dir config-file config-format data-dir datacenter default-query-time dev disable-host-node-id
disable-keyring-file dns-port domain enable-local-script-checks enable-script-checks encrypt grpc-port hcl http-port
https-port join join-wan log-file log-json log-level log-rotate-bytes log-rotate-duration log-rotate-max-files
max-query-time node node-id node-meta pid-file primary-gateway protocol raft-protocol recursor rejoin retry-interval
retry-interval-wan retry-join retry-join-wan retry-max retry-max-wan segment serf-lan-allowed-cidrs serf-lan-bind
serf-lan-port serf-wan-allowed-cidrs serf-wan-bind serf-wan-port server server-port syslog ui ui-content-path ui-dir
"""


def test_every_key_is_documented_or_computed() -> None:
    documented = {path[0] for path, _, _ in walk()}
    for name, key in keys_of(RuntimeConfig).items():
        assert name in documented or Computed in key.extras, name
    assert all(setting.doc.endswith(".") for _, _, setting in walk())


def test_the_references_flags_are_all_there() -> None:
    assert set(REFERENCE_FLAGS.split()) <= set(flag_set().names())


def test_older_keys_point_at_keys_that_exist() -> None:
    paths = {path for path, _, _ in walk()}
    for record, moved in MOVED.items():
        for name, move in moved.items():
            assert name not in keys_of(record)
            assert move.to is None or move.to in paths, name
            assert all(target in paths for target, _ in move.also)


def test_the_reference_page_is_current() -> None:
    assert DOCS.read_text() == reference(), "run: python -m lictor.agent.config.reference > docs/configuration.md"


def test_reload_takes_over_what_it_can_and_names_the_rest(loaded: Load) -> None:
    old, _ = loaded('log_level = "INFO" service { name = "a" } service { name = "b" } ports { http = 1 }')
    new, _ = loaded(
        'log_level = "WARN" service { name = "b" port = 1 } service { name = "c" } ports { http = 2 }'
        ' dns_config { node_ttl = "1s" } check { name = "t" ttl = "1s" } datacenter = "x"'
    )
    plan = diff_reload(old, new)
    assert plan.changed == ("checks", "dns_config.node_ttl", "log_level", "services")
    assert plan.refused == ("datacenter", "ports.http", "primary_datacenter")
    assert [service.name for service in plan.services_to_add] == ["b", "c"]
    assert plan.services_to_remove == ("a",)
    assert [check.name for check in plan.checks_to_add] == ["t"]
    assert (plan.config.log_level, plan.config.ports.http, plan.config.datacenter) == ("WARN", 1, "dc1")
    assert diff_reload(plan.config, plan.config).changed == ()


@pytest.mark.parametrize(
    "key", ["log_level", "services", "checks", "watches", "recursors", "node_meta", "dns_config.service_ttl"]
)
def test_what_consul_reloads_is_reloaded(key: str) -> None:
    assert key in set(reloadable_keys())


def test_the_shown_configuration_has_consuls_names_and_no_secrets(loaded: Load) -> None:
    config, _ = loaded(
        'encrypt = "pUqJrVyVRj5jsiYEkM/tFQYfWyJIv4s3XkvDwy7Cu5s=" acl { tokens { default = "s3cret" } }'
        ' service { name = "a" token = "s3cret" } connect { ca_config { token = "s3cret" } }'
        ' auto_config { intro_token = "s3cret" } tls { https { key_file = "s3cret" } }'
        ' watches = [{ type = "nodes" token = "s3cret" args = ["x"] }]'
    )
    shown = debug_config(config)
    text = json.dumps(shown)
    assert "s3cret" not in text and "pUqJ" not in text
    assert shown["ACLToken"] == shown["EncryptKey"] == "hidden"
    assert (shown["DNSDomain"], shown["DNSUDPAnswerLimit"], shown["DNSMaxStale"]) == ("consul.", 3, "87600h0m0s")
    assert (shown["HTTPPort"], shown["HTTPAddrs"]) == (8500, ["tcp://127.0.0.1:8500"])
    assert (shown["ServerMode"], shown["SerfPortLAN"], shown["GossipLANProbeInterval"]) == (False, 8301, "1s")
    assert shown["Logging"]["LogLevel"] == "INFO"


def test_records_are_frozen_with_plain_defaults() -> None:
    config = RuntimeConfig()
    with pytest.raises(AttributeError):
        config.datacenter = "x"  # type: ignore[misc]
    for _, key, _ in walk():
        if not is_record(key.type):
            assert key.default is not msgspec.NODEFAULT
