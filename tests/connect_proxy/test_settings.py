"""What a proxy block means: Consul's keys, their defaults, and what is passed over."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lictor.connect_proxy.records import ProxyService
from lictor.connect_proxy.settings import (
    Address,
    Ejection,
    InboundSettings,
    OutboundSettings,
    Problems,
    SidecarSettings,
    sidecar_settings,
)


def settings(proxy: dict[str, Any], **service: Any) -> tuple[SidecarSettings, list[str]]:
    """What a registration means, and what is wrong with it."""
    row = {"ID": "web-sidecar-proxy", "Kind": "connect-proxy", "Service": "web-sidecar-proxy", "Port": 21000}
    block = {"DestinationServiceName": "web", "LocalServicePort": 8080, **proxy}
    problems = Problems()
    found = sidecar_settings(msgspec.convert({**row, **service, "Proxy": block}, ProxyService), problems)
    return found, problems.found


def test_a_plain_sidecar_has_consuls_defaults() -> None:
    found, problems = settings({"Upstreams": [{"DestinationName": "db", "LocalBindPort": 9191}]})
    assert not problems
    assert found.service == "web"
    assert found.inbound == InboundSettings(
        bind=Address("0.0.0.0", 21000),
        target=Address("127.0.0.1", 8080),
        connect_timeout=1.0,
        handshake_timeout=10.0,
    )
    assert found.outbound == (OutboundSettings(bind=Address("127.0.0.1", 9191), name="db", connect_timeout=10.0),)


def test_every_key_is_read() -> None:
    found, problems = settings(
        {
            "Config": {
                "bind_address": "10.0.0.1",
                "bind_port": "22000",
                "local_service_address": "127.0.0.2:81",
                "local_connect_timeout_ms": 500,
                "handshake_timeout_ms": "2500",
                "max_inbound_connections": 7,
                "proxy_protocol": "v2",
                "accept_proxy_protocol": True,
                "idle_timeout_ms": 0,
                "drain_timeout_ms": 1500,
            },
            "Upstreams": [
                {
                    "DestinationName": "q",
                    "DestinationType": "prepared_query",
                    "Datacenter": "dc2",
                    "LocalBindSocketPath": "/run/q.sock",
                    "LocalBindSocketMode": "0660",
                    "Config": {
                        "connect_timeout_ms": 3000,
                        "limits": {"max_connections": 9},
                        "passive_health_check": {
                            "interval": "30s",
                            "max_failures": 3,
                            "base_ejection_time": "1m",
                            "max_ejection_percent": 40,
                        },
                    },
                }
            ],
        }
    )
    assert not problems
    assert found.drain_timeout == 1.5
    assert found.inbound == InboundSettings(
        bind=Address("10.0.0.1", 22000),
        target=Address("127.0.0.2", 81),
        connect_timeout=0.5,
        handshake_timeout=2.5,
        max_connections=7,
        proxy_protocol="v2",
        accept_proxy_protocol=True,
        idle_timeout=0.0,
    )
    assert not found.inbound.reuses, "who is at the ends of a connection is told of each"
    assert found.outbound == (
        OutboundSettings(
            bind=Address(path="/run/q.sock"),
            name="q",
            kind="prepared_query",
            datacenter="dc2",
            mode=0o660,
            connect_timeout=3.0,
            max_connections=9,
            ejection=Ejection(30.0, 3, 60.0, 40),
        ),
    )


def test_connections_are_used_again_unless_the_proxy_or_the_upstream_says_otherwise() -> None:
    def reuse(proxy: dict[str, Any], *upstreams: dict[str, Any]) -> list[bool]:
        wanted = [{"DestinationName": "q", "LocalBindPort": 1000, "Config": one} for one in upstreams]
        found, problems = settings({"Config": proxy, "Upstreams": wanted})
        assert not problems and found.inbound is not None
        return [found.inbound.reuses, *(one.reuse for one in found.outbound)]

    off, on = {"reuse_connections": False}, {"reuse_connections": "true"}
    assert reuse({}, {}, off) == [True, True, False]
    assert reuse(off, {}, on) == [False, False, True]
    assert reuse({"proxy_protocol": "v1"}, {}) == [False, True]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("local_connect_timeout_ms", "soon"),
        ("handshake_timeout_ms", -1),
        ("max_inbound_connections", True),
        ("proxy_protocol", "v3"),
        ("accept_proxy_protocol", "perhaps"),
        ("reuse_connections", "seldom"),
        ("bind_port", 70000),
        ("local_service_address", "nowhere:x"),
    ],
)
def test_what_cannot_be_read_is_told_and_its_default_holds(key: str, value: object) -> None:
    plain, _ = settings({})
    found, problems = settings({"Config": {key: value}})
    assert len(problems) == 1
    assert key in problems[0]
    assert found == plain


def test_an_upstream_may_have_addresses_of_its_own() -> None:
    config = {"addresses": ["10.0.0.1:20000", "[::1]:20001", "10.0.0.2"]}
    upstream = {"DestinationName": "db", "LocalBindPort": 9191, "Config": config}
    found, problems = settings({"Upstreams": [upstream]}, Datacenter="dc1")
    assert found.outbound[0].kind == "static"
    assert found.outbound[0].datacenter == "dc1"
    assert found.outbound[0].addresses == (Address("10.0.0.1", 20000), Address("::1", 20001))
    assert len(problems) == 1
    assert "10.0.0.2" in problems[0]


def test_a_service_behind_a_socket() -> None:
    found, _ = settings({"LocalServicePort": 0, "LocalServiceSocketPath": "/run/web.sock"})
    assert found.inbound is not None
    assert found.inbound.target == Address(path="/run/web.sock")


def test_a_service_without_a_port_has_a_listener_all_the_same() -> None:
    """Its sidecar's check looks whether there is one."""
    found, problems = settings({"LocalServicePort": 0})
    assert not problems
    assert found.inbound is not None
    assert found.inbound.bind == Address("0.0.0.0", 21000)


def test_upstreams_that_are_no_listeners_are_left_out() -> None:
    found, problems = settings(
        {
            "Upstreams": [
                {"DestinationName": "*", "CentrallyConfigured": True},
                {"DestinationName": "far", "DestinationPeer": "east", "LocalBindPort": 1},
                {"DestinationName": "nowhere"},
            ]
        }
    )
    assert not found.outbound
    assert len(problems) == 2
