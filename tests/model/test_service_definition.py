"""Service and check definitions as the HTTP API takes them. The texts were recorded from the reference."""

import random
from typing import Any

import msgspec
import pytest

from lictor.model.errors import InvalidRequest
from lictor.model.service_definition import (
    CheckDefinition,
    ServiceDefinition,
    decode_check,
    decode_service,
    proxy_json,
)
from lictor.model.service_rules import check_registration_problem, service_registration_problem


@pytest.mark.parametrize(
    "body",
    [
        {"Name": "w", "ScriptArgs": ["a"], "Interval": "10s", "DeregisterCriticalServiceAfter": "1m"},
        {"name": "w", "script_args": ["a"], "interval": 10_000_000_000, "deregister_critical_service_after": "60s"},
        {"NAME": "w", "args": ["a"], "INTERVAL": "10000ms", "deregistercriticalserviceafter": "60s"},
    ],
)
def test_a_check_reads_the_same_in_every_spelling(body: dict[str, Any]) -> None:
    expected = CheckDefinition(name="w", script_args=("a",), interval=10.0, deregister_critical_service_after=60.0)
    assert decode_check(body) == expected


def test_a_service_with_everything_is_read_whole() -> None:
    service = decode_service(
        {
            "ID": "web1",
            "Name": "web",
            "Tags": ["a"],
            "Port": 80,
            "tagged_addresses": {"lan": {"address": "10.0.0.1", "port": 8080}},
            "Meta": {"k": "v"},
            "Weights": {"Passing": 5},
            "enable_tag_override": True,
            "Check": {"TTL": "10s"},
            "Checks": [{"HTTP": "http://x", "Header": {"A": ["b"]}, "Interval": "1s", "tls_skip_verify": True}],
            "Connect": {
                "SidecarService": {
                    "Proxy": {
                        "config": {"a": [1, {"b": None}]},
                        "upstreams": [{"destination_name": "db", "local_bind_port": 1}],
                        "expose": {"paths": [{"path": "/m", "listener_port": 2, "local_path_port": 3}]},
                        "mesh_gateway": {"mode": "local"},
                    }
                }
            },
        }
    )
    assert service.tagged_addresses["lan"].port == 8080
    assert [check.kind for check in service.all_checks] == ["ttl", "http"]
    assert service.all_checks[1].header == {"A": ("b",)}
    assert service.weights is not None and (service.weights.passing, service.weights.warning) == (5, 1)
    assert service.connect is not None and service.connect.sidecar_service is not None
    proxy = service.connect.sidecar_service.proxy
    assert proxy is not None
    assert service_registration_problem(service) is None
    assert proxy_json(proxy)["Config"] == {"a": [1, {"b": None}]}
    assert proxy_json(proxy)["MeshGateway"] == {"Mode": "local"}
    assert msgspec.json.decode(msgspec.json.encode(service), type=ServiceDefinition) == service


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"Name": "a", "Port": "80"}, "json: cannot unmarshal string into Go struct field .Port of type int"),
        ({"Name": "a", "Tags": "x"}, "json: cannot unmarshal string into Go struct field .Tags of type []string"),
        ({"Name": 1}, "json: cannot unmarshal number into Go struct field .Name of type string"),
        ({"Name": "a", "Bogus": 1}, 'json: unknown field "Bogus"'),
        ({"Name": "a", "Port": 1.5}, "json: cannot unmarshal number 1.5 into Go struct field .Port of type int"),
        ({"Name": "a", "Meta": {"a": 1}}, "json: cannot unmarshal number into Go struct field .Meta of type string"),
        (
            {"Name": "a", "Weights": []},
            "json: cannot unmarshal array into Go struct field .Weights of type structs.Weights",
        ),
        ({"Name": "a", "Check": {"Interval": "1d"}}, 'time: unknown unit "d" in duration "1d"'),
        ({"Name": "a", "Check": {"script": "x"}}, 'json: unknown field "script"'),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_references_text(body: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_service(body)
    assert str(caught.value) == f"Request decode failed: {text}"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "Missing service name"),
        ({"Name": "a", "Weights": {"Passing": 0, "Warning": 1}}, "Invalid Weights: Passing must be greater than 0"),
        (
            {"Name": "a", "Weights": {"Passing": 70000}},
            "Invalid Weights: DNS Weight must be between 0 and 65535",
        ),
        (
            {"Name": "a", "Meta": {"a b": "x"}},
            "Invalid Service Meta: Couldn't load metadata pair ('a b', 'x'): Key contains invalid characters",
        ),
        (
            {"Name": "a", "Meta": {"consul-x": "x"}},
            "Invalid Service Meta: Couldn't load metadata pair ('consul-x', 'x'): "
            "Key prefix 'consul-' is reserved for internal use",
        ),
        (
            {"Name": "a", "Check": {"ttl": "1s", "interval": "1s"}},
            "Invalid check: Interval and TTL cannot both be specified",
        ),
        ({"Name": "a", "Check": {"interval": True}}, None),
        ({"Name": "a", "Check": {"name": "only"}}, "Invalid check: TTL must be > 0 for TTL checks"),
        (
            {"Name": "a", "Check": {"ttl": "1s", "status": "bad"}},
            "Status for checks must 'passing', 'warning', 'critical'",
        ),
        ({"Name": "a", "Address": "0.0.0.0"}, "Invalid service address"),
        (
            {"Name": "a", "Kind": "mesh-gateway"},
            "1 error occurred:\n\t* Port must be non-zero for a mesh-gateway\n\n",
        ),
        (
            {"Name": "a", "Connect": {"SidecarService": {"ID": "x"}}},
            "1 error occurred:\n\t* A SidecarService cannot specify an ID as this is managed by the agent\n\n",
        ),
    ],
)
def test_what_may_not_be_registered_is_refused_with_the_references_text(body: dict[str, Any], text: str | None) -> None:
    assert service_registration_problem(decode_service(body)) == text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "Missing check name"),
        ({"Name": "a"}, "Invalid check: TTL must be > 0 for TTL checks"),
        ({"Name": "a", "TTL": "10s", "Status": "bad"}, "Bad check status"),
        ({"Name": "a", "AliasService": "x"}, None),
        ({"Name": "a", "H2PING": "x:1", "Interval": "1s"}, None),
        ({"Name": "a", "TTL": "1s", "OutputMaxSize": -1}, "Invalid check: MaxOutputMaxSize must be positive"),
    ],
)
def test_a_check_alone_is_judged_as_the_reference_judges_it(body: dict[str, Any], text: str | None) -> None:
    assert check_registration_problem(decode_check(body)) == text


def test_random_bodies_never_raise_anything_but_invalid_request() -> None:
    chance = random.Random(4)
    keys = ["Name", "Port", "check", "Checks", "Proxy", "upstreams", "Connect", "sidecar_service", "Meta", "ttl", "x"]

    def value(depth: int) -> Any:
        kind = chance.randrange(8 if depth < 5 else 5)
        if kind < 5:
            return [None, True, chance.randrange(-9, 99), float("nan"), "1s"][kind]
        if kind == 5:
            return [value(depth + 1) for _ in range(chance.randrange(3))]
        return {chance.choice(keys): value(depth + 1) for _ in range(chance.randrange(4))}

    for _ in range(3000):
        body = value(0)
        try:
            service_registration_problem(decode_service(body))
        except InvalidRequest:
            pass


def test_endless_nesting_is_refused() -> None:
    body: dict[str, Any] = {}
    for _ in range(100):
        body = {"Name": "a", "connect": {"sidecar_service": body}}
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        decode_service(body)
