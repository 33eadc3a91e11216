"""Loading: languages, merging, defaults, flags, deprecated keys, addresses."""

from pathlib import Path

import pytest

from lictor.agent.config import ConfigError, find_problems, load_agent, parse_flags, read_files, validate_paths
from lictor.model.goflags import FlagError
from tests.agent.config.conftest import Load

REAL_LIFE = Path(__file__).parent / "real_life"


def test_the_defaults_are_the_documented_ones(loaded: Load) -> None:
    config, warnings = loaded()
    assert warnings == []
    assert (config.datacenter, config.primary_datacenter, config.node_name) == ("dc1", "dc1", "host1")
    assert (config.ports.http, config.ports.dns, config.ports.https) == (8500, 8600, -1)
    assert [str(one) for one in config.listen.http] == ["tcp://127.0.0.1:8500"]
    assert [str(one) for one in config.listen.dns] == ["tcp://127.0.0.1:8600", "udp://127.0.0.1:8600"]
    assert (config.bind_addr, config.advertise_addr) == ("0.0.0.0", "10.1.2.3")
    assert config.tagged_addresses == {
        "lan": "10.1.2.3", "lan_ipv4": "10.1.2.3", "wan": "10.1.2.3", "wan_ipv4": "10.1.2.3",
    }  # fmt: skip
    assert (config.leave_on_terminate, config.skip_leave_on_interrupt) == (True, False)
    assert config.default_query_time == 300.0


def test_dev_mode_is_a_server_in_memory(loaded: Load) -> None:
    config, warnings = loaded(argv=("-dev",))
    assert warnings == []
    assert config.dev_mode and config.server and config.ui_config.enabled and config.connect.enabled
    assert (config.bind_addr, config.log_level, config.ports.grpc) == ("127.0.0.1", "DEBUG", 8502)
    assert (config.leave_on_terminate, config.skip_leave_on_interrupt) == (False, True)


def test_the_same_configuration_in_three_languages_gives_equal_records(loaded: Load) -> None:
    records = []
    for name in ("agent.hcl", "agent.json", "agent.yaml"):
        text = (REAL_LIFE / name).read_text()
        config, warnings = loaded(text, argv=(), format=name.split(".")[1])
        assert warnings == [
            'retry_join: "provider=aws tag_key=hidden tag_value=server" is left out: there is no provider "aws". Give '
            'addresses, or have a program print them: provider=exec args="/path/program"',
            "bootstrap_expect > 0: expecting 3 servers",
        ]
        records.append(config)
    assert records[0] == records[1] == records[2]
    config = records[0]
    assert [service.name for service in config.services] == ["web", "db"]
    assert config.services[0].all_checks[0].header == {"X-Probe": ("yes", "1")}
    assert config.telemetry.prometheus_retention_time == 60.0
    assert config.dns_config.service_ttl == {"*": 5.0, "web": 10.0}
    assert config.watches[0]["type"] == "key"


def test_later_files_win_lists_grow_and_maps_merge(loaded: Load) -> None:
    config, _ = loaded(
        'datacenter = "a" recursors = ["1.1.1.1"] node_meta { a = "1" b = "1" } ports { http = 1 dns = 2 }',
        'datacenter = "b" recursors = ["2.2.2.2"] node_meta { b = "2" } ports { http = 3 }',
        'service { name = "x" } check { name = "c" ttl = "1s" }',
        'services { name = "y" } services { name = "z" } checks = [{ name = "d" ttl = "1s" }]',
    )
    assert config.datacenter == "b"
    assert config.recursors == ("1.1.1.1", "2.2.2.2")
    assert config.node_meta == {"a": "1", "b": "2"}
    assert (config.ports.http, config.ports.dns) == (3, 2)
    assert [service.name for service in config.services] == ["x", "y", "z"]
    assert [check.name for check in config.checks] == ["c", "d"]


def test_flags_win_over_files_and_their_lists_come_first(loaded: Load) -> None:
    argv = (
        "-data-dir=/f", "-http-port", "9000", "-server=false", "-retry-join=a", "-node-meta=k:v:w", "--log-json",
        "-retry-interval=1m", "-hcl=ports { dns = 77 }",
    )  # fmt: skip
    config, _ = loaded('data_dir = "/x" server = true ports { http = 1 dns = 2 } retry_join = ["b"]', argv=argv)
    assert (config.data_dir, config.server, config.log_json) == ("/f", False, True)
    assert (config.ports.http, config.ports.dns) == (9000, 77)
    assert config.retry_join == ("a", "b")
    assert config.node_meta == {"k": "v:w"}
    assert config.retry_interval == 60.0


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["-http-prt=1"], "did you mean -http-port?"),
        (["extra"], "Unexpected extra arguments: [extra]"),
        (["-node-meta=x"], "key:value"),
        (["-config-format=toml"], "must be either"),
    ],
)
def test_a_bad_command_line_is_refused(argv: list[str], words: str) -> None:
    with pytest.raises(FlagError) as caught:
        parse_flags(argv)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        ('ca_file = "x"', "ca_file", "tls.defaults.ca_file"),
        ('acl { tokens { master = "x" } }', "acl.tokens.master", "acl.tokens.initial_management"),
        ('acl_datacenter = "x"', "acl_datacenter", "primary_datacenter"),
        ('start_join = ["x"]', "start_join", "retry_join"),
        ("ui = true", "ui", "ui_config.enabled"),
        ('acl_ttl = "1m"', "acl_ttl", "acl.token_ttl"),
    ],
)
def test_an_older_key_is_read_with_a_warning_that_names_its_successor(
    loaded: Load, text: str, old: str, new: str
) -> None:
    _, warnings = loaded(text)
    assert warnings == [f"The '{old}' field is deprecated. Use the '{new}' field instead."]


def test_an_older_keys_value_lands_at_its_successor_unless_that_is_given(loaded: Load) -> None:
    config, _ = loaded(
        'verify_incoming = true acl_replication_token = "t" ca_file = "old" tls { defaults { ca_file = "new" } }'
        ' tls_min_version = "tls12" acl_ttl = "2m"'
    )
    assert config.tls.defaults.verify_incoming and config.tls.grpc.verify_incoming is False
    assert (config.acl.tokens.replication, config.acl.enable_token_replication) == ("t", True)
    assert (config.tls.defaults.ca_file, config.tls.defaults.tls_min_version) == ("new", "TLSv1_2")
    assert config.acl.token_ttl == 120.0


def test_addresses_come_from_templates_sockets_and_several_words(loaded: Load) -> None:
    config, _ = loaded(
        'client_addr = "127.0.0.1 {{ GetPrivateIP }} ::1" bind_addr = "{{ GetInterfaceIP \\"eth0\\" }}"'
        ' addresses { http = "unix:///run/l.sock 127.0.0.1" } ports { https = 8501 } recursors = ["{{ GetPublicIP }}"]'
    )
    assert config.bind_addr == config.advertise_addr == "10.1.2.3"
    assert [str(one) for one in config.listen.http] == ["unix:///run/l.sock", "tcp://127.0.0.1:8500"]
    assert [str(one) for one in config.listen.https] == [
        "tcp://127.0.0.1:8501", "tcp://10.1.2.3:8501", "tcp://[::1]:8501",
    ]  # fmt: skip
    assert config.recursors == ("8.8.4.4",)


def test_one_expected_server_is_bootstrap_mode(loaded: Load) -> None:
    config, warnings = loaded("server = true bootstrap_expect = 1")
    assert (config.bootstrap, config.bootstrap_expect) == (True, 0)
    assert warnings == [
        "BootstrapExpect is set to 1; this is the same as Bootstrap mode.",
        "bootstrap = true: do not enable unless necessary",
    ]


def test_a_folder_is_read_in_name_order_and_other_files_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text('{"datacenter": "b"}')
    (tmp_path / "a.hcl").write_text('datacenter = "a" data_dir = "/d" bind_addr = "127.0.0.1"')
    (tmp_path / "c.yml").write_text("node_name: c\n")
    (tmp_path / "README.md").write_text("nothing")
    (tmp_path / "inner").mkdir()
    config, warnings = load_agent(parse_flags([f"-config-dir={tmp_path}"]))
    assert (config.datacenter, config.node_name) == ("b", "c")
    assert len(warnings) == 1 and "skipping file" in warnings[0] and "README.md" in warnings[0]


def test_the_order_of_file_and_folder_flags_is_kept() -> None:
    assert parse_flags(["-config-dir=a", "-config-file=b", "-config-dir=c"]).files == ("a", "b", "c")


def test_the_format_flag_reads_any_file_in_one_language(tmp_path: Path) -> None:
    (tmp_path / "agent.conf").write_text('{"datacenter": "x"}')
    files, _ = read_files([str(tmp_path / "agent.conf")], "json")
    assert files[0].format == "json"
    with pytest.raises(ConfigError, match="extension"):
        read_files([str(tmp_path / "agent.conf")])


def test_unreadable_files_are_all_named(tmp_path: Path) -> None:
    (tmp_path / "bad.hcl").write_bytes(b"a = 1\n\xff\xfe")
    with pytest.raises(ConfigError) as caught:
        read_files([str(tmp_path / "missing.hcl"), str(tmp_path / "bad.hcl")])
    texts = [str(problem) for problem in caught.value.problems]
    assert texts == [
        f"{tmp_path}/missing.hcl: cannot be read: No such file or directory",
        f"{tmp_path}/bad.hcl:2: is not UTF-8 text",
    ]


def test_validating_paths_gives_warnings_or_raises(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.hcl", tmp_path / "bad.hcl"
    good.write_text('data_dir = "/d" bind_addr = "127.0.0.1" ca_file = "x"')
    bad.write_text('\n\ndatacentre = "x"')
    assert validate_paths([str(good)]) == [
        "The 'ca_file' field is deprecated. Use the 'tls.defaults.ca_file' field instead.",
    ]
    assert find_problems([str(good)]) == []
    found = [str(problem) for problem in find_problems([str(good), str(bad)])]
    assert found == [f'{bad}:3: unknown key "datacentre" (did you mean "datacenter"?)']


def test_what_concerns_other_agents_is_read_with_its_durations_in_seconds(loaded: Load) -> None:
    config, warnings = loaded(
        'encrypt_verify_incoming = false encrypt_verify_outgoing = false reconnect_timeout = "9h" '
        'reconnect_timeout_wan = "1h" advertise_reconnect_timeout = "15m" leave_on_terminate = false '
        "skip_leave_on_interrupt = true rejoin_after_leave = true disable_keyring_file = true "
        'advertise_addr = "10.9.9.9" advertise_addr_wan = "8.8.8.8" serf_lan = "10.9.9.1" serf_wan = "10.9.9.2" '
        'serf_lan_allowed_cidrs = ["10.0.0.0/8"] check_update_interval = "0s" discovery_max_stale = "90s" '
        "use_streaming_backend = false rpc { enable_streaming = false } "
        'gossip_lan { gossip_interval = "50ms" retransmit_mult = 2 } gossip_wan { probe_timeout = "2s" } '
        "cache { entry_fetch_max_burst = 4 entry_fetch_rate = 0.5 } "
        'dns_config { use_cache = true cache_max_age = "1m" } '
        'limits { rpc_rate = 100 rpc_max_burst = 50 rpc_client_timeout = "5s" rpc_handshake_timeout = "1s" }'
    )
    assert (config.encrypt_verify_incoming, config.encrypt_verify_outgoing) == (False, False)
    assert (config.reconnect_timeout, config.reconnect_timeout_wan) == (32400.0, 3600.0)
    assert [warning for warning in warnings if "reconnect" in warning] == [
        "reconnect_timeout_wan = 1h0m0s: an agent that is away for longer is forgotten, a server with it; 8h0m0s or "
        "more is advised"
    ]
    assert config.advertise_reconnect_timeout == 900.0
    assert (config.leave_on_terminate, config.skip_leave_on_interrupt) == (False, True)
    assert (config.rejoin_after_leave, config.disable_keyring_file) == (True, True)
    assert str(config.listen.serf_lan) == "tcp://10.9.9.1:8301" and str(config.listen.serf_wan) == "tcp://10.9.9.2:8302"
    assert str(config.advertise_serf_lan) == "tcp://10.9.9.9:8301"
    assert str(config.advertise_serf_wan) == "tcp://8.8.8.8:8302"
    assert (config.serf_lan_allowed_cidrs, config.check_update_interval) == (("10.0.0.0/8",), 0.0)
    assert (config.discovery_max_stale, config.use_streaming_backend, config.rpc.enable_streaming) == (
        90.0,
        False,
        False,
    )
    assert (config.gossip_lan.gossip_interval, config.gossip_lan.retransmit_mult) == (0.05, 2)
    assert (config.gossip_wan.probe_timeout, config.gossip_wan.probe_interval) == (2.0, 5.0)
    assert (config.cache.entry_fetch_max_burst, config.cache.entry_fetch_rate) == (4, 0.5)
    assert (config.dns_config.use_cache, config.dns_config.cache_max_age) == (True, 60.0)
    limits = config.limits
    assert (limits.rpc_rate, limits.rpc_max_burst) == (100.0, 50)
    assert (limits.rpc_client_timeout, limits.rpc_handshake_timeout) == (5.0, 1.0)
