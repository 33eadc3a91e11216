"""Every kind of definition becomes its type of check, with the defaults where it leaves them open."""

from __future__ import annotations

import pytest

from lictor.agent.checks.alias import AliasCheck
from lictor.agent.checks.build import Check, CheckSettings, build, output_max_size, rules
from lictor.agent.checks.connection import TlsSettings
from lictor.agent.checks.docker import DockerCheck
from lictor.agent.checks.grpc import GrpcCheck
from lictor.agent.checks.h2ping import H2PingCheck
from lictor.agent.checks.http import HttpCheck
from lictor.agent.checks.os_service import OsServiceCheck
from lictor.agent.checks.script import ScriptCheck
from lictor.agent.checks.tcp import TcpCheck
from lictor.agent.checks.ttl import TtlCheck
from lictor.agent.checks.udp import UdpCheck
from lictor.model.service_definition import CheckDefinition as Definition

SETTINGS = CheckSettings(tls=TlsSettings(ca_file="ca.pem", server_name="agent.test"), docker_host="tcp://engine:2375")
TLS = TlsSettings(ca_file="ca.pem", server_name="agent.test")


@pytest.mark.parametrize(
    ("definition", "check"),
    [
        (Definition(http="http://a/", interval=1), HttpCheck("http://a/", tls=TLS)),
        (
            Definition(
                http="https://a/",
                method="PUT",
                header={"A": ("1", "2")},
                body="b",
                disable_redirects=True,
                tls_skip_verify=True,
                tls_server_name="b",
                timeout=3,
                output_max_size=10,
            ),
            HttpCheck(
                "https://a/", "PUT", (("A", ("1", "2")),), "b", True, TlsSettings(True, "b", ca_file="ca.pem"), 3, 10
            ),
        ),
        (Definition(tcp="a:1"), TcpCheck("a:1")),
        (Definition(tcp="a:1", tcp_use_tls=True, timeout=3), TcpCheck("a:1", TLS, 3)),
        (Definition(udp="a:1", body="x"), UdpCheck("a:1", "x")),
        (Definition(grpc="a:1/b"), GrpcCheck("a:1/b")),
        (Definition(grpc="a:1/b", grpc_use_tls=True), GrpcCheck("a:1/b", TLS)),
        (Definition(h2ping="a:1"), H2PingCheck("a:1", TLS)),
        (Definition(h2ping="a:1", h2ping_use_tls=False), H2PingCheck("a:1", None)),
        (Definition(script_args=("a", "b")), ScriptCheck(("a", "b"), 30.0)),
        (
            Definition(script_args=("a",), docker_container_id="c", timeout=3),
            DockerCheck("c", ("a",), "tcp://engine:2375", 3),
        ),
        (Definition(os_service="sshd"), OsServiceCheck("sshd")),
        (Definition(ttl=10), TtlCheck(10)),
        (Definition(alias_service="a", alias_node="n"), AliasCheck("a", "n")),
    ],
)
def test_a_definition_becomes_its_check(definition: Definition, check: Check) -> None:
    assert build(definition, SETTINGS) == check


def test_the_smaller_limit_of_output_holds() -> None:
    settings = CheckSettings(check_output_max_size=100)
    sizes = [output_max_size(Definition(output_max_size=size), settings) for size in (0, 50, 200)]
    assert sizes == [100, 50, 100]


def test_rules_take_the_definition_s_numbers() -> None:
    given = Definition(
        service_id="web",
        ttl=10,
        status="passing",
        success_before_passing=1,
        failures_before_warning=2,
        failures_before_critical=3,
        deregister_critical_service_after=90,
    )
    made = rules(given, CheckSettings(check_update_interval=7))
    assert (made.initial_status, made.ttl, made.deregister_after, made.output_push_interval) == ("passing", 10, 90, 7)
    assert (made.success_before_passing, made.failures_before_warning, made.failures_before_critical) == (1, 2, 3)
    assert rules(Definition(ttl=10), CheckSettings()).initial_status == "critical"
