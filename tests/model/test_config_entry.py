"""Config entries: how they are decoded, filled in, validated and shown."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from lictor.model.config_entry import (
    KINDS,
    RECORDS,
    InvalidConfigEntry,
    UndecodableConfigEntry,
    decode_entry,
    entry_json,
    read_entry,
)

Json = dict[str, Any]


def refused(entry: Any) -> str:
    with pytest.raises(InvalidConfigEntry) as raised:
        decode_entry(entry)
    assert isinstance(raised.value, ValueError)
    return str(raised.value)


def undecodable(entry: Any) -> str:
    with pytest.raises(UndecodableConfigEntry) as raised:
        decode_entry(entry)
    assert raised.value.status == 400
    return str(raised.value)


JWKS = {"Local": {"JWKS": "e30="}}

# What is written, and what is shown of it.
SHOWN: list[tuple[Json, Json]] = [
    (
        {"Kind": "service-defaults", "Name": "web"},
        {"Protocol": "", "TransparentProxy": {}, "MeshGateway": {}, "Expose": {}},
    ),
    (
        {
            "kind": "service-defaults",
            "name": "web",
            "protocol": "HTTP",
            "mesh_gateway": {"mode": "local"},
            "expose": {"checks": True, "paths": {"path": "/a", "local_path_port": "1", "listener_port": 2.0}},
            "external_sni": "x",
            "upstream_config": {
                "defaults": {"connect_timeout_ms": -5, "passive_health_check": {"interval": "10s", "max_failures": 3}},
                "overrides": [{"name": "db", "protocol": "TCP", "limits": {"max_connections": 0}}],
            },
            "meta": {"a": 5},
        },
        {
            "Protocol": "http",
            "TransparentProxy": {},
            "MeshGateway": {"Mode": "local"},
            "Expose": {
                "Checks": True,
                "Paths": [{"ListenerPort": 2, "Path": "/a", "LocalPathPort": 1, "ParsedFromCheck": False}],
            },
            "ExternalSNI": "x",
            "UpstreamConfig": {
                "Overrides": [{"Name": "db", "Protocol": "tcp", "Limits": {"MaxConnections": 0}, "MeshGateway": {}}],
                "Defaults": {"PassiveHealthCheck": {"Interval": 10_000_000_000, "MaxFailures": 3}, "MeshGateway": {}},
            },
            "Meta": {"a": "5"},
        },
    ),
    (
        {"Kind": "proxy-defaults", "Config": {"a": 1.0, "b": {"c": [1, {"d_e": "f"}]}, "t": 1.5}},
        {
            "Name": "global",
            "Config": {"a": 1, "b": {"c": [1, {"d_e": "f"}]}, "t": 1.5},
            "TransparentProxy": {},
            "MeshGateway": {},
            "Expose": {},
            "AccessLogs": {},
        },
    ),
    ({"Kind": "service-router", "Name": "web"}, {"Routes": None}),
    (
        {
            "Kind": "service-router",
            "Name": "web",
            "Routes": [
                {
                    "match": {
                        "http": {"path_exact": "/a", "header": [{"name": "x", "exact": "y"}], "methods": ["get"]}
                    },
                    "destination": {"service": "b", "prefix_rewrite": "/z", "request_timeout": 5_000_000_000},
                },
                {},
            ],
        },
        {
            "Routes": [
                {
                    "Match": {"HTTP": {"PathExact": "/a", "Header": [{"Name": "x", "Exact": "y"}], "Methods": ["GET"]}},
                    "Destination": {"RequestTimeout": "5s", "Service": "b", "PrefixRewrite": "/z"},
                },
                {},
            ]
        },
    ),
    (
        {
            "Kind": "service-splitter",
            "Name": "web",
            "Splits": [{"Weight": 33.333}, {"weight": "66.667", "service": "b"}],
        },
        {"Splits": [{"Weight": 33.33}, {"Weight": 66.67, "Service": "b"}]},
    ),
    (
        {
            "Kind": "service-resolver",
            "Name": "web",
            "ConnectTimeout": "90s",
            "DefaultSubset": "v1",
            "Subsets": [{"v1": {"Filter": "Service.Meta.v == v1", "only_passing": True}}],
            "Failover": {"*": {"datacenters": "dc2"}},
            "LoadBalancer": {"Policy": "maglev", "HashPolicies": [{"SourceIP": True}]},
        },
        {
            "ConnectTimeout": "1m30s",
            "DefaultSubset": "v1",
            "Subsets": {"v1": {"Filter": "Service.Meta.v == v1", "OnlyPassing": True}},
            "Failover": {"*": {"Datacenters": ["dc2"]}},
            "LoadBalancer": {"Policy": "maglev", "HashPolicies": [{"SourceIP": True}]},
        },
    ),
    (
        {"Kind": "ingress-gateway", "Name": "in", "Listeners": [{"Port": 80, "Services": [{"Name": "web"}]}]},
        {
            "TLS": {"Enabled": False},
            "Listeners": [{"Port": 80, "Protocol": "tcp", "Services": [{"Name": "web", "Hosts": None}]}],
        },
    ),
    (
        {"Kind": "terminating-gateway", "Name": "out", "Services": [{"name": "db", "ca_file": "/ca", "sni": "db.x"}]},
        {"Services": [{"Name": "db", "CAFile": "/ca", "SNI": "db.x"}]},
    ),
    (
        {
            "Kind": "service-intentions",
            "Name": "web",
            "Sources": [
                {"Name": "*", "Action": "deny"},
                {"Name": "api", "Permissions": [{"Action": "allow", "HTTP": {"Methods": ["get"]}}]},
            ],
        },
        {
            "Sources": [
                {
                    "Name": "api",
                    "Permissions": [{"Action": "allow", "HTTP": {"Methods": ["GET"]}}],
                    "Precedence": 9,
                    "Type": "consul",
                },
                {"Name": "*", "Action": "deny", "Precedence": 8, "Type": "consul"},
            ]
        },
    ),
    (
        {"Kind": "mesh", "tls": {"incoming": {"tls_min_version": "TLSv1_2"}}, "Peering": {}},
        {
            "TransparentProxy": {"MeshDestinationsOnly": False},
            "TLS": {"Incoming": {"TLSMinVersion": "TLSv1_2"}},
            "Peering": {"PeerThroughMeshGateways": False},
        },
    ),
    (
        {"Kind": "exported-services", "Name": "default", "Services": [{"Name": "web", "Consumers": [{"peer": "b"}]}]},
        {"Services": [{"Name": "web", "Consumers": [{"Peer": "b"}]}]},
    ),
    (
        {"Kind": "sameness-group", "Name": "g", "Members": [{"Partition": "default"}, {"Peer": "b"}]},
        {"Members": [{"Partition": "default"}, {"Peer": "b"}]},
    ),
    (
        {"Kind": "api-gateway", "Name": "gw", "Listeners": [{"Name": "a", "Port": 80, "Protocol": "HTTP"}]},
        {
            "Listeners": [
                {
                    "Name": "a",
                    "Hostname": "",
                    "Port": 80,
                    "Protocol": "http",
                    "TLS": {"Certificates": None, "MaxVersion": "", "MinVersion": "", "CipherSuites": None},
                }
            ],
            "Status": {"Conditions": None},
        },
    ),
    ({"Kind": "bound-api-gateway", "Name": "gw"}, {"Listeners": None}),
    (
        {"Kind": "tcp-route", "Name": "r", "Parents": [{"Name": "gw"}], "Services": [{"Name": "db"}]},
        {
            "Parents": [{"Kind": "api-gateway", "Name": "gw", "SectionName": ""}],
            "Services": [{"Name": "db"}],
            "Status": {"Conditions": None},
        },
    ),
    ({"Kind": "file-system-certificate", "Name": "c"}, {"Certificate": "", "PrivateKey": ""}),
    (
        {
            "Kind": "control-plane-request-limit",
            "Name": "l",
            "Mode": "permissive",
            "read_rate": 100,
            "kv": {"read_rate": 1},
        },
        {"Mode": "permissive", "ReadRate": 100, "WriteRate": 0, "KV": {"ReadRate": 1, "WriteRate": 0}},
    ),
    (
        {"Kind": "jwt-provider", "Name": "p", "json_web_key_set": {"local": {"jwks": "e30="}}},
        {"JSONWebKeySet": {"Local": {"JWKS": "e30="}}, "ClockSkewSeconds": 30},
    ),
]


@pytest.mark.parametrize(("written", "shown"), SHOWN, ids=lambda one: str(one.get("Kind", one.get("kind", ""))))
def test_an_entry_is_shown_as_consul_shows_it(written: Json, shown: Json) -> None:
    entry = decode_entry(written)
    given = {"Kind": entry.kind} | ({} if entry.kind == "mesh" else {"Name": entry.name})
    assert entry_json(entry) == given | shown
    assert list(entry_json(entry))[:1] == ["Kind"]


@pytest.mark.parametrize("written", [written for written, _ in SHOWN], ids=lambda one: str(one.get("Kind", "")))
def test_an_entry_comes_back_from_the_store_as_it_was(written: Json) -> None:
    entry = decode_entry(written)
    stored = entry_json(entry)
    for read in (json.loads(msgspec.json.encode(stored)), msgspec.msgpack.decode(msgspec.msgpack.encode(stored))):
        assert read_entry(read) == entry
        assert decode_entry(read) == entry


def test_an_http_route_is_filled_in() -> None:
    route = {
        "Kind": "http-route",
        "Name": "r",
        "Parents": [{"Name": "gw"}],
        "Rules": [{"Matches": [{"Method": "get"}], "Services": [{"Name": "web"}]}],
    }
    shown = entry_json(decode_entry(route))
    assert shown["Parents"][0]["Kind"] == "api-gateway"
    match = shown["Rules"][0]["Matches"][0]
    assert match == {"Headers": None, "Method": "GET", "Path": {"Match": "prefix", "Value": "/"}, "Query": None}
    assert shown["Rules"][0]["Services"][0]["Weight"] == 1


def test_every_kind_is_known_by_its_record() -> None:
    assert len(KINDS) == 19
    for kind in KINDS:
        assert RECORDS[kind]().kind == kind
        assert kind == "inline-certificate" or kind in {written.get("Kind") for written, _ in SHOWN} | {"http-route"}


def test_what_was_read_may_be_written_back() -> None:
    shown = entry_json(decode_entry({"Kind": "service-defaults", "Name": "web"}))
    assert decode_entry({**shown, "CreateIndex": 5, "ModifyIndex": 7, "Hash": 9}).name == "web"


def test_the_default_tenancy_may_be_named() -> None:
    assert decode_entry({"Kind": "service-defaults", "Name": "web", "Namespace": "default", "Partition": ""})


def resolver(**fields: Any) -> Json:
    return {"Kind": "service-resolver", "Name": "web", **fields}


def router(**route: Any) -> Json:
    return {"Kind": "service-router", "Name": "web", "Routes": [route]}


def splitter(*splits: Json) -> Json:
    return {"Kind": "service-splitter", "Name": "web", "Splits": list(splits)}


def ingress(*listeners: Json, **fields: Any) -> Json:
    return {"Kind": "ingress-gateway", "Name": "in", "Listeners": list(listeners), **fields}


def intentions(*sources: Json, name: str = "web") -> Json:
    return {"Kind": "service-intentions", "Name": name, "Sources": list(sources)}


def api_gateway(*listeners: Json) -> Json:
    return {"Kind": "api-gateway", "Name": "gw", "Listeners": list(listeners)}


def provider(**fields: Any) -> Json:
    return {"Kind": "jwt-provider", "Name": "p", "JSONWebKeySet": JWKS, **fields}


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        ({}, "Payload does not contain a kind/Kind key at the top level"),
        ({"Name": "x"}, "Payload does not contain a kind/Kind key at the top level"),
        ({"Kind": 5}, "Kind value in payload is not a string"),
        ({"Kind": "nope", "Name": "x"}, "invalid config entry kind: nope"),
        ([], "'' expected a map, got 'slice'"),
        ("x", "'' expected a map, got 'string'"),
        (
            {"Kind": "service-defaults", "Name": "web", "Bogus": 1, "MeshGateway": {"Other": 1}, "Namespace": "x"},
            '3 errors occurred:\n\t* invalid config key "Bogus"\n\t* invalid config key "MeshGateway.Other"\n'
            '\t* invalid config key "Namespace", namespaces are a consul enterprise feature\n\n',
        ),
        (
            {"kind": "service-defaults", "KIND": "service-defaults", "Name": "web"},
            '1 error occurred:\n\t* invalid config key "KIND"\n\n',
        ),
        (splitter({"Weight": 100, "Bogus": 1}), '1 error occurred:\n\t* invalid config key "Splits[0].Bogus"\n\n'),
        (resolver(Subsets={"v1": {"X": 1}}), '1 error occurred:\n\t* invalid config key "Subsets[v1].X"\n\n'),
        (
            {"Kind": "service-defaults", "Name": "web", "Expose": [], "MeshGateway": "x", "Protocol": ["a", "b"]},
            "3 error(s) decoding:\n\n* 'Expose' expected a map, got 'slice'"
            "\n* 'MeshGateway' expected a map, got 'string'\n* 'Protocol' expected type 'string', "
            "got unconvertible type '[]interface {}'",
        ),
        (
            {
                "Kind": "service-defaults",
                "Name": "web",
                "Expose": {"Checks": "maybe", "Paths": [{"ListenerPort": "x"}]},
            },
            "2 error(s) decoding:\n\n* cannot parse 'Expose.Checks' as bool: strconv.ParseBool: parsing \"maybe\": "
            "invalid syntax\n* cannot parse 'Expose.Paths[0].ListenerPort' as int: strconv.ParseInt: parsing \"x\": "
            "invalid syntax",
        ),
        (
            resolver(ConnectTimeout="15"),
            "1 error(s) decoding:\n\n* error decoding 'ConnectTimeout': time: missing unit in duration \"15\"",
        ),
        (
            router(Destination={"NumRetries": -1}),
            "1 error(s) decoding:\n\n* cannot parse 'Routes[0].Destination.NumRetries', -1 overflows uint",
        ),
        (
            {"Kind": "service-defaults", "Name": "web", "Meta": "x"},
            "1 error(s) decoding:\n\n* 'Meta' expected a map, got 'string'",
        ),
    ],
)
def test_what_cannot_be_understood_is_named(entry: Any, error: str) -> None:
    assert undecodable(entry) == error


A_HOST = "Associating hosts to a service is not supported for the tcp protocol (listener on port 80)"


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        ({"Kind": "service-defaults"}, "Name is required"),
        (
            {"Kind": "service-defaults", "Name": "*"},
            "service-defaults name must be the name of a service, and not a wildcard",
        ),
        (
            {"Kind": "service-defaults", "Name": "web", "Meta": {"a": "b" * 513}},
            '1 error occurred:\n\t* Meta value for key "a" exceeds maximum length 512\n\n',
        ),
        (
            {"Kind": "service-defaults", "Name": "web", "Destination": {"Addresses": ["*.x", "a", "a"], "Port": 0}},
            "3 errors occurred:\n\t* Destination address '*.x' is invalid Could not validate address *.x as an IP or "
            "Hostname\n\t* Duplicate address 'a' is not allowed\n\t* Invalid Port number 0\n\n",
        ),
        ({"Kind": "proxy-defaults", "Name": "x"}, 'invalid name ("x"), only "global" is supported'),
        ({"Kind": "mesh", "Name": "x"}, 'invalid name ("x"), only "mesh" is supported'),
        (
            {"Kind": "mesh", "TLS": {"Outgoing": {"TLSMinVersion": "TLSv1_3", "TLSMaxVersion": "TLSv1_2"}}},
            "error in outgoing TLS configuration: configuring max version TLSv1_2 less than the configured min version "
            "TLSv1_3 is invalid",
        ),
        ({"Kind": "exported-services", "Name": "x"}, 'exported-services Name must be "default"'),
        (
            {"Kind": "exported-services", "Name": "default", "Services": [{"Name": "web"}]},
            "Services[0]: must have at least one consumer",
        ),
        (splitter(), "no splits configured"),
        (splitter({"Weight": 50}), "the sum of all split weights must be 100, not 50.000000"),
        (
            splitter({"Weight": 99.995}, {"Weight": 0.005, "Service": "b"}),
            "the sum of all split weights must be 100, not 100.010002",
        ),
        (
            splitter({"Weight": 50, "Service": "web"}, {"Weight": 50}),
            'split destination occurs more than once: service="web", subset="", namespace=""',
        ),
        (resolver(ConnectTimeout="-15s"), "Bad ConnectTimeout '-15s', must be >= 0"),
        (resolver(DefaultSubset="v9"), 'DefaultSubset "v9" is not a valid subset'),
        (resolver(Subsets={"": {}}), "Subset defined with empty name"),
        (
            resolver(Subsets={"V_1": {}}),
            'Subset "V_1" is invalid: must be 63 characters or fewer, begin or end with lower case alphanumeric '
            "characters, and contain lower case alphanumeric characters or '-' in between",
        ),
        (
            resolver(Subsets={"v1": {"Filter": "a b"}}),
            'Filter for subset "v1" is not a valid expression: 1:3 (2): no match found, expected: "!=", "==", '
            '"contains", "in", "is", "matches", "not" or [ \\t\\r\\n]',
        ),
        (resolver(Redirect={}), "Redirect is empty"),
        (resolver(Redirect={"ServiceSubset": "y"}), "Redirect.ServiceSubset defined without Redirect.Service"),
        (
            resolver(Redirect={"Service": "x"}, Failover={"*": {"Service": "y"}}),
            "Redirect and Failover cannot both be set",
        ),
        (resolver(Failover={"v1": {"Service": "x"}}), 'Bad Failover["v1"]: not a valid subset'),
        (
            resolver(Failover={"*": {"ServiceSubset": "q"}}),
            'Bad Failover["*"].ServiceSubset "q" is not a valid subset of ""',
        ),
        (resolver(Failover={"*": {"Datacenters": [""]}}), 'Bad Failover["*"].Datacenters: found empty datacenter'),
        (resolver(LoadBalancer={"Policy": "best"}), 'Bad LoadBalancer policy: "best" is not supported'),
        (router(Match={"HTTP": {"PathPrefix": "a"}}), "Route[0] PathPrefix doesn't start with '/': \"a\""),
        (
            router(Match={"HTTP": {"PathExact": "/a", "PathRegex": "b"}}),
            "Route[0] should only contain at most one of PathExact, PathPrefix, or PathRegex",
        ),
        (router(Match={"HTTP": {"Header": [{}]}}), "Route[0] Header[0] missing required Name field"),
        (
            router(Match={"HTTP": {"Header": [{"Name": "x"}]}}),
            "Route[0] Header[0] should only contain one of Present, Exact, Prefix, Suffix, or Regex",
        ),
        (
            router(Match={"HTTP": {"QueryParam": [{"Name": "x"}]}}),
            "Route[0] QueryParam[0] should only contain one of Present, Exact, or Regex",
        ),
        (router(Match={"HTTP": {"Methods": ["GET", "get"]}}), 'Route[0] Methods contains "GET" more than once'),
        (router(Match={"HTTP": {"Methods": ["X"]}}), 'Route[0] Methods contains an invalid method "X"'),
        (
            router(Destination={"PrefixRewrite": "/b"}),
            "Route[0] cannot make use of PrefixRewrite without configuring either PathExact or PathPrefix",
        ),
        (ingress({"Port": 80}), "No service declared for listener with port 80"),
        (
            ingress({"Port": 80, "Protocol": "x", "Services": [{"Name": "a"}]}),
            "protocol must be 'tcp', 'http', 'http2', or 'grpc'. 'x' is an unsupported protocol",
        ),
        (
            ingress({"Port": 80, "Services": [{"Name": "a"}]}, {"Port": 80, "Services": [{"Name": "b"}]}),
            "port 80 declared on two listeners",
        ),
        (ingress({"Port": 80, "Services": [{"Name": "a", "Hosts": ["x"]}]}), A_HOST),
        (
            ingress({"Port": 80, "Protocol": "http", "Services": [{"Name": "a", "Hosts": ["a*"]}]}),
            'Host "a*" is not valid, a wildcard specifier is only allowed as the leftmost label',
        ),
        (
            ingress(
                {"Port": 80, "Protocol": "http", "Services": [{"Name": "a", "Hosts": ["*"]}]}, TLS={"Enabled": True}
            ),
            "Host '*' is not allowed when TLS is enabled, all hosts must be valid DNS records to add as a DNSSAN",
        ),
        ({"Kind": "terminating-gateway", "Name": "t", "Services": [{}]}, "Service name cannot be blank."),
        (
            {"Kind": "terminating-gateway", "Name": "t", "Services": [{"Name": "a", "CertFile": "/x"}]},
            'Service "a" must have a CertFile, CAFile, and KeyFile specified for TLS origination',
        ),
        (intentions(), "At least one source is required"),
        (intentions({"Name": "a"}), "Sources[0].Action must be set to 'allow' or 'deny'"),
        (
            intentions({"Name": "a*", "Action": "deny"}),
            "Sources[0].Name: wildcard character '*' cannot be used with partial values",
        ),
        (
            intentions({"Name": "a", "Action": "deny"}, {"Name": "a", "Action": "allow"}),
            'Sources[1] defines "a" more than once',
        ),
        (
            intentions({"Name": "a", "Permissions": [{"Action": "allow", "HTTP": {}}]}),
            "Sources[0].Permissions[0].HTTP should not be empty",
        ),
        (
            intentions({"Name": "a", "Permissions": [{"Action": "allow", "HTTP": {"PathExact": "/"}}]}, name="*"),
            "Sources[0].Permissions cannot be specified on intentions with wildcarded destinations",
        ),
        (api_gateway(), "api gateway must have at least one listener"),
        (
            api_gateway({"Name": "a", "Port": 80, "Protocol": "udp"}),
            "unsupported listener protocol \"udp\", must be one of 'tcp', or 'http'",
        ),
        (
            api_gateway({"Name": "a", "Port": 1, "Protocol": "tcp"}, {"Name": "b", "Port": 1, "Protocol": "http"}),
            'listeners "a" and "b" cannot be merged',
        ),
        (
            {"Kind": "http-route", "Name": "r", "Parents": [{"Name": "g"}, {"Kind": "api-gateway", "Name": "g"}]},
            "route parents must be unique",
        ),
        (
            {"Kind": "tcp-route", "Name": "r", "Services": [{"Name": "a"}, {"Name": "b"}]},
            "tcp-route currently only supports one service",
        ),
        ({"Kind": "jwt-provider", "Name": "p"}, "JSONWebKeySet is required"),
        (provider(JSONWebKeySet={"Local": {"JWKS": "?"}}), "JWKS must be valid base64 encoded string"),
        (
            provider(Locations=[{"Header": {"Name": "x"}, "Cookie": {"Name": "y"}}]),
            "1 error occurred:\n\t* must set exactly one of: JWT location header, query param or cookie\n\n",
        ),
        ({"Kind": "inline-certificate", "Name": "c", "PrivateKey": "x"}, "failed to parse private key PEM"),
    ],
)
def test_what_cannot_be_accepted_is_refused_in_consuls_words(entry: Json, error: str) -> None:
    assert refused(entry) == error


@pytest.mark.parametrize(
    ("source", "destination", "rank"), [("a", "b", 9), ("*", "b", 8), ("a", "*", 6), ("*", "*", 5)]
)
def test_intentions_precedence(source: str, destination: str, rank: int) -> None:
    entry = entry_json(decode_entry(intentions({"Name": source, "Action": "allow"}, name=destination)))
    assert entry["Sources"][0]["Precedence"] == rank


def _certificate(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "web.example.com")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def test_an_inline_certificate_and_its_key_belong_together() -> None:
    key, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    entry = {"Kind": "inline-certificate", "Name": "c", "Certificate": _certificate(key), "PrivateKey": _pem(key)}
    decoded = decode_entry(entry)
    assert "PRIVATE KEY" not in repr(decoded)
    assert read_entry(entry_json(decoded)) == decoded
    assert refused({**entry, "PrivateKey": _pem(other)}) == "tls: private key does not match public key"
    assert refused({**entry, "Certificate": "x"}) == "failed to parse certificate PEM"
    weak = rsa.generate_private_key(65537, 1024)
    assert refused({**entry, "PrivateKey": _pem(weak)}) == "key length must be at least 2048 bits"


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def _keys_of(kind: str) -> list[str]:
    return [field.encode_name for field in msgspec.structs.fields(RECORDS[kind])]


@settings(max_examples=300, deadline=None)
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_any_json_is_an_entry_or_an_error(data: st.DataObject, kind: str) -> None:
    body = data.draw(st.dictionaries(st.sampled_from([*_keys_of(kind), "Services", "name"]), _VALUES, max_size=5))
    try:
        entry = decode_entry({**body, "Kind": kind, "Name": data.draw(st.sampled_from(["web", "global", "default"]))})
    except InvalidConfigEntry as error:
        assert str(error)
        return
    assert decode_entry(entry_json(entry)) == entry


def test_a_free_form_value_is_bounded_in_depth() -> None:
    deep: Any = 1
    for _ in range(100):
        deep = {"a": deep}
    assert "nested more than 64 levels" in undecodable({"Kind": "proxy-defaults", "Config": {"deep": deep}})
