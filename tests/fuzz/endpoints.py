"""A good body for every endpoint that takes one, and the parameters that endpoints know: where the fuzzing starts."""

from typing import Any

from tests.ca.authorities import make_leaf, make_root

ID = "11111111-1111-1111-1111-111111111111"

CHECK = {
    "ID": "c1",
    "Name": "check",
    "Notes": "n",
    "ServiceID": "web1",
    "Status": "passing",
    "HTTP": "http://127.0.0.1:1/",
    "Header": {"X-A": ["b"]},
    "Method": "GET",
    "Body": "",
    "Interval": "10m",
    "Timeout": "1s",
    "TLSServerName": "x",
    "TLSSkipVerify": True,
    "SuccessBeforePassing": 1,
    "FailuresBeforeWarning": 1,
    "FailuresBeforeCritical": 2,
    "DeregisterCriticalServiceAfter": "90m",
    "OutputMaxSize": 4096,
}
TTL = {"ID": "t1", "Name": "ttl", "TTL": "30m", "Status": "warning", "DeregisterCriticalServiceAfter": "10m"}
UPSTREAM = {
    "DestinationType": "service",
    "DestinationName": "db",
    "LocalBindAddress": "127.0.0.1",
    "LocalBindPort": 9191,
    "Config": {"protocol": "http", "limits": {"max_connections": 5}},
    "MeshGateway": {"Mode": "local"},
}
PROXY = {
    "DestinationServiceName": "web",
    "DestinationServiceID": "web1",
    "LocalServiceAddress": "127.0.0.1",
    "LocalServicePort": 80,
    "Mode": "direct",
    "Config": {"a": 1, "b": ["c"], "d": {"e": 1.5}},
    "Upstreams": [UPSTREAM],
    "MeshGateway": {"Mode": "none"},
    "Expose": {"Checks": True, "Paths": [{"Path": "/m", "LocalPathPort": 80, "ListenerPort": 81, "Protocol": "http"}]},
}
SERVICE = {
    "Kind": "",
    "ID": "web1",
    "Name": "web",
    "Tags": ["a", "b"],
    "Address": "10.0.0.1",
    "TaggedAddresses": {"lan": {"Address": "10.0.0.1", "Port": 80}},
    "Meta": {"k": "v"},
    "Port": 80,
    "EnableTagOverride": False,
    "Weights": {"Passing": 10, "Warning": 1},
    "Check": TTL,
    "Checks": [CHECK, TTL],
    "Connect": {"Native": False, "SidecarService": {"Port": 21000, "Proxy": {"Upstreams": [UPSTREAM]}}},
    "Token": "t",
}
CATALOG_SERVICE = {
    "Kind": "connect-proxy",
    "ID": "cweb1",
    "Service": "cweb",
    "Tags": ["a"],
    "Address": "10.0.0.2",
    "TaggedAddresses": {"wan": {"Address": "1.2.3.4", "Port": 80}},
    "Meta": {"k": "v"},
    "Port": 8000,
    "Weights": {"Passing": 1, "Warning": 1},
    "Proxy": PROXY,
    "Connect": {"Native": False},
    "Locality": {"Region": "r", "Zone": "z"},
}
CATALOG_CHECK = {
    "Node": "node2",
    "CheckID": "cc1",
    "Name": "c",
    "Status": "passing",
    "Notes": "",
    "Output": "ok",
    "ServiceID": "cweb1",
    "Definition": {"HTTP": "http://x", "Interval": "10s", "Timeout": "1s", "DeregisterCriticalServiceAfter": "30s"},
}
REGISTRATION = {
    "Datacenter": "dc1",
    "ID": "22222222-2222-2222-2222-222222222222",
    "Node": "node2",
    "Address": "10.0.0.2",
    "TaggedAddresses": {"lan": "10.0.0.2", "wan": "1.2.3.4"},
    "NodeMeta": {"a": "b"},
    "Service": CATALOG_SERVICE,
    "Check": CATALOG_CHECK,
    "Checks": [CATALOG_CHECK],
    "SkipNodeUpdate": False,
}
TXN = [
    {"KV": {"Verb": "set", "Key": "a/b", "Value": "aGVsbG8=", "Flags": 5}},
    {"KV": {"Verb": "cas", "Key": "a/b", "Value": "aGVsbG8=", "Index": 3}},
    {"KV": {"Verb": "lock", "Key": "l", "Value": "", "Session": ID}},
    {"KV": {"Verb": "get-tree", "Key": "a"}},
    {"KV": {"Verb": "delete-tree", "Key": "z"}},
    {"KV": {"Verb": "check-index", "Key": "a/b", "Index": 1}},
    {"Node": {"Verb": "set", "Node": {"ID": ID, "Node": "n5", "Address": "1.1.1.1", "Meta": {"a": "b"}}}},
    {"Service": {"Verb": "set", "Node": "n5", "Service": {"ID": "s", "Service": "s", "Port": 1, "Proxy": PROXY}}},
    {"Check": {"Verb": "set", "Check": {"Node": "n5", "CheckID": "k", "Name": "k", "Status": "passing"}}},
    {"Check": {"Verb": "delete", "Check": {"Node": "n5", "CheckID": "k"}}},
    {"Session": {"Verb": "delete", "Session": {"ID": ID}}},
]
QUERY = {
    "Name": "q",
    "Session": "",
    "Token": "",
    "Template": {"Type": "name_prefix_match", "Regexp": "^q-(.+)$", "RemoveEmptyTags": True},
    "Service": {
        "Service": "${match(1)}",
        "Failover": {"NearestN": 3, "Datacenters": ["dc2"]},
        "OnlyPassing": True,
        "Tags": ["a", "!b"],
        "Near": "_agent",
        "NodeMeta": {"a": "b"},
        "ServiceMeta": {"k": "v"},
        "Connect": False,
        "IgnoreCheckIDs": ["x"],
    },
    "DNS": {"TTL": "10s"},
}
CONFIGS: tuple[dict[str, Any], ...] = (
    {"Kind": "service-defaults", "Name": "web", "Protocol": "http", "Meta": {"a": "b"}, "MaxInboundConnections": 5,
     "UpstreamConfig": {"Defaults": {"ConnectTimeoutMs": 5}, "Overrides": [{"Name": "db", "Limits": {}}]}},
    {"Kind": "proxy-defaults", "Name": "global", "Config": {"a": {"b": [1, 2.5, None]}}, "MeshGateway": {}},
    {"Kind": "service-router", "Name": "web", "Routes": [
        {"Match": {"HTTP": {"PathPrefix": "/a", "Header": [{"Name": "x", "Regex": "a+"}], "QueryParam": [{"Name": "q"}],
                            "PathRegex": "/x.*"}},
         "Destination": {"Service": "db", "RequestTimeout": "5s", "NumRetries": 3, "RetryOnStatusCodes": [500]}}]},
    {"Kind": "service-splitter", "Name": "web", "Splits": [{"Weight": 60}, {"Weight": 40, "Service": "db"}]},
    {"Kind": "service-resolver", "Name": "web", "DefaultSubset": "v1", "ConnectTimeout": "3s",
     "Subsets": {"v1": {"Filter": 'Service.Meta.k == "v"', "OnlyPassing": True}},
     "Redirect": {"Service": "db"}, "Failover": {"*": {"Datacenters": ["dc2"]}},
     "LoadBalancer": {"Policy": "ring_hash", "HashPolicies": [{"Field": "header", "FieldValue": "x"}]}},
    {"Kind": "ingress-gateway", "Name": "in", "TLS": {"Enabled": True}, "Listeners": [
        {"Port": 8080, "Protocol": "http", "Services": [{"Name": "*", "Hosts": ["a.example"]}]}]},
    {"Kind": "terminating-gateway", "Name": "out", "Services": [{"Name": "*", "CAFile": "/x", "SNI": "y"}]},
    {"Kind": "service-intentions", "Name": "web", "Sources": [
        {"Name": "db", "Permissions": [{"Action": "allow", "HTTP": {"PathPrefix": "/", "Methods": ["GET"]}}]},
        {"Name": "*", "Action": "deny", "Precedence": 1}]},
    {"Kind": "mesh", "Name": "mesh", "TransparentProxy": {"MeshDestinationsOnly": True},
     "TLS": {"Incoming": {"TLSMinVersion": "TLSv1_2"}}},
    {"Kind": "exported-services", "Name": "default", "Services": [{"Name": "web", "Consumers": [{"Peer": "p"}]}]},
    {"Kind": "api-gateway", "Name": "gw", "Listeners": [{"Name": "l", "Port": 80, "Protocol": "http"}]},
    {"Kind": "http-route", "Name": "r", "Parents": [{"Kind": "api-gateway", "Name": "gw"}],
     "Rules": [{"Matches": [{"Path": {"Match": "prefix", "Value": "/"}}], "Services": [{"Name": "web"}]}]},
    {"Kind": "tcp-route", "Name": "t", "Parents": [{"Kind": "api-gateway", "Name": "gw"}], "Services": [{"Name": "w"}]},
    {"Kind": "jwt-provider", "Name": "j", "Issuer": "x", "JSONWebKeySet": {"Local": {"JWKS": "e30="}}},
    {"Kind": "inline-certificate", "Name": "c", "Certificate": "x", "PrivateKey": "y"},
)  # fmt: skip
INTENTION = {
    "SourceNS": "default",
    "SourceName": "web",
    "DestinationNS": "default",
    "DestinationName": "db",
    "SourceType": "consul",
    "Action": "allow",
    "Description": "d",
    "Meta": {"k": "v"},
    "Precedence": 9,
}

BODIES: dict[tuple[str, str], tuple[Any, ...]] = {
    ("PUT", "/v1/agent/service/register"): (
        SERVICE,
        {**CATALOG_SERVICE, "Name": "px", "Service": None, "Proxy": PROXY},
    ),
    ("PUT", "/v1/agent/check/register"): (CHECK, TTL, {"Name": "s", "Args": ["/bin/true"], "Interval": "10s"}),
    ("PUT", "/v1/agent/check/update/:check_id"): ({"Status": "passing", "Output": "fine"},),
    ("PUT", "/v1/agent/token/:name"): ({"Token": "x"},),
    ("PUT", "/v1/event/fire/:name"): ({"any": "payload"},),
    ("PUT", "/v1/catalog/register"): (REGISTRATION,),
    ("PUT", "/v1/catalog/deregister"): ({"Node": "node2", "ServiceID": "cweb1", "CheckID": "cc1"},),
    ("PUT", "/v1/kv/*key"): ("value",),
    ("PUT", "/v1/connect/ca/configuration"): (
        {"Provider": "consul", "Config": {"LeafCertTTL": "72h", "PrivateKeyBits": 256, "CSRMaxPerSecond": 50}},
        {"Provider": "consul", "Config": {"PrivateKey": "x", "RootCert": "x"}, "ModifyIndex": 1},
    ),
    ("PUT", "/v1/connect/ca/revoked"): ({"SerialNumber": "0a:1b:2c"}, {"CertPEM": make_leaf(make_root())}),
    ("POST", "/v1/agent/connect/authorize"): (
        {
            "Target": "db",
            "ClientCertURI": "spiffe://11111111-2222-3333-4444-555555555555.consul/ns/default/dc/dc1/svc/web",
            "ClientCertSerial": "07",
        },
    ),
    ("PUT", "/v1/session/create"): (
        {
            "LockDelay": "15s",
            "Name": "s",
            "Node": "n1",
            "NodeChecks": ["serfHealth"],
            "Behavior": "release",
            "TTL": "30s",
            "ServiceChecks": [{"ID": "x", "Namespace": ""}],
        },
        {"TTL": "10s", "Behavior": "delete", "LockDelay": 15, "Checks": []},
    ),  # fmt: skip
    ("PUT", "/v1/txn"): (TXN, TXN[:1], TXN[6:9], TXN[3:4]),
    ("POST", "/v1/query"): (QUERY, {"Name": "plain", "Service": {"Service": "web"}}),
    ("PUT", "/v1/query/:query"): (QUERY,),
    ("PUT", "/v1/coordinate/update"): (
        {"Node": "n1", "Segment": "", "Coord": {"Vec": [0.1] * 8, "Error": 1.5, "Adjustment": 0, "Height": 1e-5}},
    ),
    ("PUT", "/v1/config"): CONFIGS,
    ("POST", "/v1/connect/intentions"): (INTENTION,),
    ("PUT", "/v1/connect/intentions/:id"): (INTENTION,),
    ("PUT", "/v1/connect/intentions/exact"): (
        INTENTION,
        {"Permissions": [{"Action": "allow", "HTTP": {"PathRegex": "/a.*", "Header": [{"Name": "x", "Exact": "y"}]}}]},
    ),
    ("PUT", "/v1/connect/intentions/explain"): (
        {
            "Kind": "service-intentions",
            "Name": "db",
            "Sources": [{"Name": "web", "Permissions": [{"Action": "deny", "HTTP": {"PathPrefix": "/a"}}]}],
        },
    ),
    ("PUT", "/v1/agent/connect/connections/:proxy_id"): (
        {"Inbound": [{"SourceURI": "spiffe://x.consul/ns/default/dc/dc1/svc/web", "Connections": 3}]},
        {"Inbound": [{"SourceURI": "spiffe://x.consul/ns/default/dc/dc1/svc/web", "Connections": 1}], "Reporter": "p"},
    ),
    ("PUT", "/v1/agent/connect/proxies/:proxy_id"): (
        {"Deaf": [{"Address": "127.0.0.1:9191", "Reason": "Address already in use"}]},
    ),
    ("PUT", "/v1/snapshot"): ("no archive",),
    ("PUT", "/v1/operator/autopilot/configuration"): (
        {
            "CleanupDeadServers": True,
            "LastContactThreshold": "200ms",
            "MaxTrailingLogs": 250,
            "MinQuorum": 0,
            "ServerStabilizationTime": "10s",
            "RedundancyZoneTag": "",
            "DisableUpgradeMigration": False,
        },
    ),  # fmt: skip
    ("POST", "/v1/operator/keyring"): ({"Key": "3lg9DxVfKNzI8O+IQ5Ek+Q=="},),
    ("PUT", "/v1/operator/keyring"): ({"Key": "3lg9DxVfKNzI8O+IQ5Ek+Q=="},),
    ("DELETE", "/v1/operator/keyring"): ({"Key": "3lg9DxVfKNzI8O+IQ5Ek+Q=="},),
}

PARAMETERS = (
    "index", "wait", "hash", "stale", "consistent", "cached", "pretty", "dc", "filter", "near", "tag", "passing",
    "node-meta", "recurse", "keys", "separator", "raw", "flags", "cas", "acquire", "release", "token", "ns", "limit",
    "format", "loglevel", "logjson", "wan", "segment", "enable", "reason", "note", "name", "node", "service", "id",
    "address", "relay-factor", "local-only", "max_stale", "merge-central-config", "replace-existing-checks", "prune",
    "peer", "partition", "kind", "source", "create", "ingress", "connect",
    "by", "destination", "source-type", "change",
)  # fmt: skip

FILTERS = (
    'Service.Tags contains "a"',
    'ServiceMeta.k == "v" and not (ServicePort != 80 or Node in Tags)',
    "Meta is empty",
    'Service matches "^w.*b$"',
    'Node.Meta["a b"] is not empty',
    "Checks.Status == `passing`",
    '"x" in ServiceTags or "y" not in ServiceTags',
)

# What ends the agent, never ends itself, or talks to the network.
LEFT_OUT = frozenset({"/v1/agent/leave", "/v1/agent/monitor", "/v1/agent/metrics/stream", "/v1/agent/join/:address"})
