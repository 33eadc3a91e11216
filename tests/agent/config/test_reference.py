"""The same files judged by the reference's `validate`: what it accepts is accepted, what it refuses is refused."""

import os
import subprocess
from pathlib import Path

import pytest

from lictor.agent.config import find_problems

GOOD = [
    'datacenter = "DC1"',
    "ports { http = 1, dns = 2 }",
    '"datacenter" = "x"',
    'Datacenter = "x"',
    'service = { name = "b" port = 80 }',
    'service { name = "a" tags = ["x"] meta { a = "b" } weights { passing = 2 } enable_tag_override = true }',
    'services = [{ name = "a" id = "1" }, { name = "a" id = "2" }]',
    'check { id = "x" name = "x" tcp = "localhost:1" interval = "1s" timeout = "1s" }',
    'check { name = "x" ttl = "1s" serviceid = "a" deregistercriticalserviceafter = "1m" }',
    'service { name = "a" connect { sidecar_service { proxy { upstreams = [{ destination_name = "b" }] } } } }',
    'service { name = "a" connect { sidecar_service { proxy { upstreams { local_bind_port = 1 } } } } }',
    'node_name = "a_b.c"',
    'client_addr = "127.0.0.1 ::1"',
    'client_addr = ""',
    'addresses { http = "unix:///x" } unix_sockets { mode = "600" }',
    'server = true bootstrap_expect = 3 retry_join = ["a"] encrypt = "pUqJrVyVRj5jsiYEkM/tFQ=="',
    'acl = { enabled = true default_policy = "deny" tokens { master = "x" agent = "y" } }',
    'acl_datacenter = "x" acl_default_policy = "deny" acl_token = "z"',
    'ca_file = "x" cert_file = "y" key_file = "z" verify_incoming = true verify_server_hostname = true',
    'dns_config { node_ttl = "1s" service_ttl { "*" = "1s" } udp_answer_limit = 5 soa { min_ttl = 3 } }',
    'telemetry { prefix_filter = ["+a"] statsite_address = "x" prometheus_retention_time = "1m" }',
    'limits { rpc_rate = 1.5 http_max_conns_per_client = 3 } performance { leave_drain_time = "1s" }',
    'http_config { block_endpoints = ["/x"] response_headers { a = "b" } }',
    'watches = [{ type = "key" key = "x" args = ["y"] }]',
    'node_meta { a = "b" } recursors = ["1.1.1.1"] start_join = ["a"] disable_remote_exec = false',
    'config_entries { bootstrap = [{ kind = "proxy-defaults" name = "global" config { a = 1 } }] }',
    'connect { enabled = true ca_provider = "consul" ca_config { leaf_cert_ttl = "72h" } }',
    'autopilot { min_quorum = 3 } gossip_lan { gossip_nodes = 4 } raft_snapshot_threshold = 5',
    'cache { entry_fetch_max_burst = 3 entry_fetch_rate = 1.5 }',
    'alt_domain = "x" domain = "y"',
    "bootstrap_expect = 0x0",
    'advertise_addr = "{{ GetInterfaceIP \\"lo\\" }}"',
]  # fmt: skip
BAD = [
    'datacentre = "x"',
    'service "web" { port = 80 }',
    "node_name = b",
    "recursors = [1 2]",
    'recursors = "1.1.1.1"',
    'ports = { http = "80" }',
    "ports = { htp = 80 }",
    'server = "true"',
    "check_update_interval = 5",
    'check_update_interval = "5"',
    "bootstrap = true",
    "server = true bootstrap = true bootstrap_expect = 3",
    "server = true bootstrap_expect = -2",
    'datacenter = "a b"',
    'datacenter = ""',
    "ports { http = 8600 }",
    "ports { https = 8500 }",
    "ports { http = 70000 }",
    'client_addr = "bogus"',
    'client_addr = "localhost"',
    'bind_addr = "127.0.0.1 1.1.1.1"',
    'bind_addr = "unix:///x"',
    'advertise_addr = "0.0.0.0"',
    "dns_config { udp_answer_limit = -1 }",
    "dns_config { a_record_limit = -1 }",
    'encrypt = "x"',
    "node_meta { a = 1 }",
    'node_meta { "a b" = "1" }',
    "performance { raft_multiplier = 20 }",
    "autopilot { max_trailing_logs = -1 }",
    "ports { sidecar_min_port = 5 sidecar_max_port = 4 }",
    'segment = "x"',
    'service { name = "a" nam = "b" }',
    'service { name = "a" check { bogus = 1 } }',
    'service { name = "a" tags = "x" }',
    'service { name = "a" port = "80" }',
    'check { name = "a" interval = 5 }',
    'bind_addr = "{{ Nope }}"',
    'serf_lan_allowed_cidrs = ["x"]',
    "a {",
    "auto_encrypt { allow_tls = true }",
]


def reference() -> str:
    binary = os.environ.get("LICTOR_REFERENCE_CONSUL")
    if not binary:
        pytest.skip("LICTOR_REFERENCE_CONSUL names no reference binary")
    return binary


@pytest.mark.parametrize("text", GOOD + BAD)
def test_a_file_is_judged_as_the_reference_judges_it(text: str, tmp_path: Path) -> None:
    bind = "" if "bind_addr" in text else 'bind_addr = "127.0.0.1"\n'
    file = tmp_path / "agent.hcl"
    file.write_text(f'data_dir = "{tmp_path}"\n{bind}{text}\n')
    problems = [str(problem) for problem in find_problems([str(file)])]
    assert (problems == []) == (text in GOOD), problems
    shown = subprocess.run([reference(), "validate", str(file)], capture_output=True, text=True, timeout=60)
    assert (shown.returncode == 0) == (text in GOOD), shown.stdout + shown.stderr
