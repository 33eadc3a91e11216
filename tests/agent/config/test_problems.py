"""Bad configurations: every problem is named with its place, and nothing raises anything but ConfigError."""

import random

import pytest

from lictor.agent.config import ConfigError, SourceFile, load, parse_flags
from lictor.agent.config.documents import parse_document
from lictor.model.hcl import SyntaxProblem
from tests.agent.config.conftest import MACHINE, Problems
from tests.agent.config.test_loading import REAL_LIFE


def test_every_problem_is_reported_with_file_line_key_and_remedy(problems: Problems) -> None:
    first = 'datacentre = "x"\nports {\n  htp = 1\n  http = "80"\n}\ncheck_update_interval = 5\n'
    second = 'session_ttl_min = "1d"\nservice { name = "a"\n check { script = "x" } }\nserver = "yes"'
    assert problems(first, second) == [
        'c0.hcl:1: unknown key "datacentre" (did you mean "datacenter"?)',
        'c0.hcl:3: unknown key "ports.htp" (did you mean "http"?)',
        'c0.hcl:4: key "ports.http" expects a whole number, got the text "80"',
        'c0.hcl:6: key "check_update_interval" expects a duration such as "10s", got 5',
        'c1.hcl:1: key "session_ttl_min": invalid duration: "1d": time: unknown unit "d" in duration "1d"',
        'c1.hcl:3: key "service.check.script" was removed: use "args", a list of texts',
        'c1.hcl:4: key "server" expects true or false, got the text "yes"',
    ]


@pytest.mark.parametrize(
    ("format", "text"),
    [
        ("json", '{\n "datacenter": "x",\n "ports": {\n  "htp": 1}}'),
        ("yaml", "datacenter: x\n\nports:\n  htp: 1\n"),
        ("hcl", 'datacenter = "x"\n\nports {\n htp = 1 }'),
    ],
)
def test_the_line_is_known_in_every_language(problems: Problems, format: str, text: str) -> None:
    assert problems(text, format=format) == [f'c0.{format}:4: unknown key "ports.htp" (did you mean "http"?)']


@pytest.mark.parametrize(
    ("format", "text", "line"),
    [
        ("json", '{\n "a": 1\n "b": 2}', 3),
        ("json", "[1]", 1),
        ("json", "[" * 100_000, 1),
        ("json", '{"a": ' + "1" * 5000 + "}", 1),
        ("yaml", "a: 1\nb: [\n", 3),
        ("yaml", "a: !!python/object:os.system x", 1),
        ("yaml", "? [a]\n: b", 1),
        ("yaml", "a: 1\n--- \nb: 2", 2),
        ("yaml", "a: \x01", 1),
        ("yaml", "a: &a [*a]", 1),
        ("yaml", "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
            f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)
        ), 1),
        ("hcl", "a = 1\nb = c", 2),
    ],
)  # fmt: skip
def test_a_file_that_does_not_parse_is_one_problem(format: str, text: str, line: int) -> None:
    with pytest.raises(SyntaxProblem) as caught:
        parse_document(text, format)
    assert caught.value.line == line or len(text) > 200 or format == "yaml"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("bootstrap = true", "'bootstrap = true' requires 'server = true'"),
        ("bootstrap_expect = 3", "'bootstrap_expect > 0' requires 'server = true'"),
        (
            "server = true bootstrap = true bootstrap_expect = 3",
            "'bootstrap_expect > 0' and 'bootstrap = true' are mutually exclusive",
        ),
        (
            "server = true bootstrap_expect = -2",
            "bootstrap_expect cannot be -2. Must be greater than or equal to zero",
        ),
        ('datacenter = "a b"', 'datacenter cannot be "a b". Please use only [a-z0-9-_]'),
        ('datacenter = ""', "datacenter cannot be empty"),
        ("ports { http = 70000 }", "ports.http: invalid port: 70000"),
        ('lookup_map { mode = "rw" }', 'lookup_map.mode "rw" must be permissions in octal, such as "0644"'),
        ('lookup_map { mode = "0666" }', 'lookup_map.mode "0666" lets others write what programs rely on'),
        ("gossip_lan { gossip_nodes = 0 }", "gossip_lan.gossip_nodes cannot be 0. Must be greater than zero"),
        ('gossip_wan { probe_interval = "0s" }', "gossip_wan.probe_interval cannot be 0s. Must be greater than zero"),
        ("cache { entry_fetch_max_burst = 0 }", "cache.entry_fetch_max_burst must be strictly positive, was: 0"),
        ("cache { entry_fetch_rate = -1 }", "cache.entry_fetch_rate must be strictly positive, was: -1"),
        ('cache { entry_ttl = "0s" }', "cache.entry_ttl cannot be 0s. Must be 1s or more"),
        ('serf_lan_allowed_cidrs = ["x"]', "serf_lan_allowed_cidrs: invalid cidr: x"),
        ('serf_wan_allowed_cidrs = ["10.0.0.0/8", "y/8"]', "serf_wan_allowed_cidrs: invalid cidr: y/8"),
        (
            'server = true advertise_reconnect_timeout = "1h"',
            "advertise_reconnect_timeout can only be used on a client",
        ),
        (
            'reconnect_timeout_wan = "-1s"',
            "reconnect_timeout_wan cannot be -1s. Must be greater than or equal to zero",
        ),
        ('discovery_max_stale = "-1s"', "discovery_max_stale cannot be -1s. Must be greater than or equal to zero"),
        ('retry_interval_wan = "-1s"', "retry_interval_wan cannot be -1s. Must be greater than or equal to zero"),
        ("limits { rpc_max_burst = -1 }", "limits.rpc_max_burst cannot be -1. Must be greater than or equal to zero"),
        ("rpc { enable_streamin = true }", 'unknown key "rpc.enable_streamin" (did you mean "enable_streaming"?)'),
        ('primary_gateways = ["10.0.0.1:443"]', "'primary_gateways' requires 'server = true'"),
        (
            'server = true primary_gateways = ["10.0.0.1:443"]',
            "'primary_gateways' should only be configured in a secondary datacenter",
        ),
        (
            'server = true retry_join_wan = ["a"] connect { enable_mesh_gateway_wan_federation = true }',
            "'retry_join_wan' is incompatible with 'connect.enable_mesh_gateway_wan_federation = true'",
        ),
        ('client_addr = "bogus"', "client_addr: invalid ip address: bogus"),
        (
            'bind_addr = "127.0.0.1 1.1.1.1"',
            "bind_addr cannot contain multiple addresses. Use 'addresses.{dns,http,https}' instead.",
        ),
        ('bind_addr = "unix:///x"', "bind_addr cannot be a unix socket"),
        ('advertise_addr = "0.0.0.0"', "Advertise address cannot be 0.0.0.0, :: or [::]"),
        (
            "dns_config { udp_answer_limit = -1 }",
            "dns_config.udp_answer_limit cannot be -1. Must be greater than or equal to zero",
        ),
        (
            "performance { raft_multiplier = 20 }",
            "performance.raft_multiplier cannot be 20. Must be between 1 and 10",
        ),
        (
            "ports { sidecar_min_port = 5 sidecar_max_port = 4 }",
            "sidecar_min_port must be less than sidecar_max_port. To disable, set both to zero.",
        ),
        (
            'node_meta { "a b" = "1" }',
            "node_meta invalid: Couldn't load metadata pair ('a b', '1'): Key contains invalid characters",
        ),
        ('encrypt = "AAAA"', "encrypt has invalid key: key size must be 16, 24 or 32 bytes"),
        (
            "ports { http = 8600 }",
            "HTTP address 127.0.0.1:8600 already configured for DNS: ports.http and ports.dns must differ",
        ),
        ('log_level = "loud"', "Invalid log level: loud. Valid log levels are: [TRACE DEBUG INFO WARN ERROR]"),
        ('acl { default_policy = "x" }', 'acl.default_policy cannot be "x". Must be one of: allow, deny'),
        ('session_ttl_min = "-1s"', "session_ttl_min cannot be -1s. Must be greater than or equal to zero"),
        ('bind_addr = "{{ Nope }}"', 'error parsing "{{ Nope }}": function "Nope" not defined'),
        ('service { name = "a" check { http = "x" } }', 'service "a": Invalid check: Interval must be > 0'),
        ('node_id = "x"', 'node_id "x" is not a UUID'),
        ('watches = [{ type = "bogus" args = ["x"] }]', "Unsupported watch type: bogus"),
        (
            'check { name = "a" args = ["x"] interval = "1s" }',
            "Scripts are disabled on this agent; to enable, configure 'enable_script_checks' or "
            "'enable_local_script_checks' to true",
        ),
    ],
)
def test_keys_that_do_not_go_together_are_refused(problems: Problems, text: str, problem: str) -> None:
    found = problems(text)
    assert any(problem in one for one in found), found
    assert all(one.startswith("c0.hcl:1: ") for one in found)


def test_a_data_dir_is_needed_except_in_dev_mode(problems: Problems) -> None:
    assert problems(argv=()) == ["data_dir cannot be empty"]
    assert problems(argv=("-dev",)) == []
    assert problems("bootstrap = true", argv=("-dev",)) == ["c0.hcl:1: 'bootstrap = true' not allowed in dev mode"]


def test_random_bytes_and_mutated_files_raise_nothing_but_config_errors() -> None:
    chance = random.Random(5)
    flags = parse_flags(["-data-dir=/d"])
    for format in ("hcl", "json", "yaml"):
        valid = (REAL_LIFE / f"agent.{format}").read_text()
        for round in range(60):
            if round % 3 == 0:
                text = bytes(chance.randrange(256) for _ in range(200)).decode("latin-1")
            else:
                start = chance.randrange(len(valid) - 400)
                text = valid if round % 3 == 1 else valid[start : start + 400]
                characters = list(text)
                for _ in range(chance.randrange(1, 6)):
                    characters[chance.randrange(len(characters))] = chance.choice('{}[]=,":\n -1ax&*!|>#\t\\')
                text = "".join(characters)
            try:
                load(flags, [SourceFile("fuzz", text, format)], MACHINE, "h")
            except ConfigError as error:
                assert all(str(problem) for problem in error.problems)
