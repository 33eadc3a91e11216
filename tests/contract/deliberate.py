"""Where Lictor's answers differ from the reference's on purpose, each with its reason. Nothing else may differ.

- `ADDED_HEADERS`, `ADDED_FIELDS`, `ADDED_RECORDS`: headers, JSON fields and DNS records that later releases of Consul
  have and 1.8.7 has not;
- `OMITTED_HEADERS`: headers of the reference's that tell nothing;
- `LOOSENED`: text that names the inside of the reference, compared only in part;
- `CHANGED`: requests where Lictor follows a later release, with its whole answer.

`compare` applies them to one answer; everything that they do not name must be equal.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from tests.contract.normal import dump


@dataclass(frozen=True)
class Header:
    """A line before the body, the statuses of the answers that may differ by it (0 for DNS), and which requests."""

    line: re.Pattern[str]
    statuses: range
    reason: str
    requests: str = ""  # that they begin with


@dataclass(frozen=True)
class Loosened:
    """Text that is replaced on both sides before they are compared."""

    pattern: re.Pattern[str]
    replacement: str
    reason: str


@dataclass(frozen=True)
class Changed:
    """A request whose answer follows a later release: the scenario, the request line with its body, the answer."""

    scenario: str
    request: str
    answer: tuple[str, ...]
    reason: str


_ROOTS = "whether there is a leader is told of the mesh's roots as of all else; the reference always says no"

ADDED_HEADERS: tuple[Header, ...] = (
    Header(
        re.compile(r"X-Consul-(Default-Acl-Policy|Query-Backend|Results-Filtered-By-Acls): .*"),
        range(200, 600),
        "every later release sends them; clients that do not know them ignore them",
    ),
    Header(
        re.compile(r"X-Consul-Effective-Consistency: (leader|consistent|stale)"),
        range(200, 600),
        "the reference sends it for some reads, later releases for every read",
    ),
    Header(
        re.compile(r"\(query\)"),
        range(404, 405),
        "a caller can wait for what is not there yet: the headers to do it with are on 404 answers of reads too",
    ),
    Header(
        re.compile(r"\(query\)"),
        range(200, 201),
        "single intentions, matches and checks can be waited for as the list can, as in later releases",
        "GET /v1/connect/intentions/",
    ),
    *(
        Header(re.compile(r"\(query\)"), range(200, 201), _ROOTS, path)
        for path in ("GET /v1/connect/ca/roots", "GET /v1/agent/connect/ca/roots")
    ),
)

ADDED_RECORDS: tuple[Header, ...] = (
    Header(
        re.compile(r'(answer|additional): \S+ \d+ TXT "consul-version=[^"]*"'),
        range(1),
        "the node's meta `consul-version`, which later releases set",
    ),
)

OMITTED_HEADERS: tuple[Header, ...] = (
    *(
        Header(
            re.compile(r"X-Consul-(Index: <index>|Knownleader: false|Lastcontact: <number>)"),
            range(200, 201),
            _ROOTS,
            path,
        )
        for path in ("GET /v1/connect/ca/roots", "GET /v1/agent/connect/ca/roots")
    ),
    Header(
        re.compile(r"X-Consul-(Index: <index>|Knownleader: false|Lastcontact: <number>)"),
        range(400, 600),
        "on a failed read the reference sends its headers with values that mean nothing",
    ),
    Header(
        re.compile(r"Vary: \(absent\)"),
        range(300, 500),
        "the reference's router answers some requests itself, without the header that all others have",
    ),
)

# JSON fields by name, which may stand where the reference has none.
ADDED_FIELDS: dict[str, str] = {
    "ExposedPort": "of a check: the port at which a proxy exposes it; later releases show it",
    "Interval": "of a check; later releases show it",
    "Timeout": "of a check; later releases show it",
    "Datacenter": "of an agent's service; later releases show it",
    "PeerName": "of everything that can be imported; later releases show it",
    "SocketPath": "of a service; later releases show it",
    "consul-version": "of a node's meta; later releases set it",
    "read_replica": "of the service `consul`, beside the older `non_voter`",
    "grpc_port": "of the service `consul`; later releases set it",
    "grpc_tls_port": "of the service `consul`; later releases set it",
    "ft_si": "a member's tag: the server knows service intentions as config entries",
    "TransparentProxy": "of a proxy, of proxy-defaults and service-defaults, and in the page's list of services",
    "AccessLogs": "of proxy-defaults; later releases show it",
    "Targets": "of a prepared query's failover; later releases show it",
    "SamenessGroup": "of a prepared query; later releases show it",
    "ConnectNative": "in the page's list of services; later releases show it",
    "ConnectedWithProxy": "in the page's list of services; later releases show it",
    "RootCertTTL": "of the authority's configuration; later releases show it",
    "ConnectedWithGateway": "in the page's list of services; later releases show it",
    "consul-virtual": "a tagged address of what the mesh reaches, the virtual address of its service; since 1.11",
}

LOOSENED: tuple[Loosened, ...] = (
    Loosened(
        re.compile(r"(Request decode failed: |Failed to parse body: ).*"),
        r"\1<what is wrong with the JSON>",
        "the reference's JSON library words it; ours words it in its own way",
    ),
    Loosened(
        re.compile(r"^(400|500) (.*)\nFailed to create boolean expression evaluator: "),
        r"400 \2\nFailed to create boolean expression evaluator: ",
        "a mistake in a filter is the client's: 400, where the reference says 500",
    ),
    Loosened(
        re.compile(r'(Selector "[^"]*" is not valid) \(column \d+\)(, did you mean "[^"]*"\?)?'),
        r"\1",
        "the text goes on to say where, and what may have been meant",
    ),
    Loosened(
        re.compile(r"^404 text/plain; charset=utf-8\nInvalid URL path: not a recognized HTTP API endpoint$"),
        "404",
        "for a path that is none later releases say so, the reference says nothing",
    ),
    Loosened(
        re.compile(r"\n400 Bad Request: .*"),
        "\n400 Bad Request",
        "the text goes on to say what is wrong with the path",
    ),
    Loosened(
        re.compile(r"(Interval must be > 0 for) .* checks"),
        r"\1 <these types of> checks",
        "the text lists the types of checks, of which there are more now",
    ),
    Loosened(
        re.compile(r"Port (or SocketPath )?must be set for a Connect proxy"),
        "Port must be set for a Connect proxy",
        "the text of later releases",
    ),
    Loosened(
        re.compile(r"(one of Service, ServiceSubset, Namespace,)( Targets, SamenessGroup,)? or Datacenters"),
        r"\1 or Datacenters",
        "the text of later releases",
    ),
    Loosened(
        re.compile(r'"(version|build)": "[^"]*"'),
        r'"\1": "<version>"',
        "the version of the agent",
    ),
    Loosened(
        re.compile(r'"(Tags|ServiceTags|Services|Checks)": (null|\[\])'),
        r'"\1": []',
        "an empty list is `[]`, where the reference says null in some answers and `[]` in others",
    ),
    Loosened(
        re.compile(r'"Meta": (null|\{\})(,\n *"ModifyIndex": [^\n]*\n *"Precedence")'),
        r'"Meta": null\2',
        "an intention without Meta has null, as in later releases",
    ),
    Loosened(
        re.compile(r'\n *"Namespace": "default",'),
        "",
        "of a router's destination: there are no namespaces",
    ),
)

_UNKNOWN_SERVICE = (
    "404 text/plain; charset=utf-8",
    'Unknown service ID "{name}". Ensure that the service ID is passed, not the service name.',
)
_UNKNOWN_CHECK = (
    "404 text/plain; charset=utf-8",
    'Unknown check ID "{name}". Ensure that the check ID is passed, not the check name.',
)
_MISSING = "404 since 1.11 for what is not registered; clients go by the version that the agent tells"
_QUERY_OPTIONS = "Allow names OPTIONS, which is served here as everywhere"

CHANGED: tuple[Changed, ...] = (
    Changed(
        "agent/checks",
        "PUT /v1/agent/check/deregister/{name}-never",
        (
            "404 text/plain; charset=utf-8",
            'Unknown check ID "{name}-never". Ensure that the check ID is passed, not the check name.',
        ),
        _MISSING,
    ),
    Changed(
        "agent/services",
        "PUT /v1/agent/service/deregister/{name}-never",
        (
            "404 text/plain; charset=utf-8",
            'Unknown service ID "{name}-never". Ensure that the service ID is passed, not the service name.',
        ),
        _MISSING,
    ),
    Changed(
        "agent/maintenance",
        "PUT /v1/agent/service/maintenance/{name}-never?enable=true",
        (
            "404 text/plain; charset=utf-8",
            'Unknown service ID "{name}-never". Ensure that the service ID is passed, not the service name.',
        ),
        _MISSING,
    ),
    Changed("agent/check-refusals", "PUT /v1/agent/check/pass/{name}", _UNKNOWN_CHECK, _MISSING),
    Changed("agent/check-refusals", "PUT /v1/agent/check/warn/{name}", _UNKNOWN_CHECK, _MISSING),
    Changed("agent/check-refusals", "PUT /v1/agent/check/fail/{name}", _UNKNOWN_CHECK, _MISSING),
    Changed(
        "agent/check-refusals", 'PUT /v1/agent/check/update/{name} {"Status": "passing"}', _UNKNOWN_CHECK, _MISSING
    ),
    Changed(
        "agent/check-refusals",
        "PUT /v1/agent/check/pass/",
        (
            "404 text/plain; charset=utf-8",
            'Unknown check ID "". Ensure that the check ID is passed, not the check name.',
        ),
        _MISSING,
    ),
    Changed(
        "agent/check-refusals",
        'PUT /v1/agent/check/register {"Name": "{name}", "TTL": "10s", "ServiceID": "{name}"}',
        ("404 text/plain; charset=utf-8", 'ServiceID "{name}" does not exist'),
        _MISSING,
    ),
    Changed(
        "agent/service-refusals",
        'PUT /v1/agent/service/register {"Name": "{name}", "Kind": "connect-proxy", "Proxy": '
        '{"DestinationServiceName": "*"}, "Port": 1}',
        (
            "400 text/plain; charset=utf-8",
            "1 error occurred:",
            "\t* Proxy.DestinationServiceName must not be a wildcard for Connect proxy services",
        ),
        "refused since 1.10",
    ),
    Changed(
        "agent/service-refusals",
        'PUT /v1/agent/service/register {"Name": "{name}", "Connect": {"Native": true, "SidecarService": {}}}',
        (
            "400 text/plain; charset=utf-8",
            "1 error occurred:",
            "\t* Port or SocketPath must be set for a Connect native service.",
        ),
        "refused since 1.9",
    ),
    Changed(
        "query/refusals",
        "POST /v1/query/x",
        ("405 text/plain; charset=utf-8", "Allow: OPTIONS,GET,PUT,DELETE", "method POST not allowed"),
        _QUERY_OPTIONS,
    ),
    Changed(
        "query/refusals",
        "POST /v1/query/x/execute",
        ("405 text/plain; charset=utf-8", "Allow: OPTIONS,GET", "method POST not allowed"),
        _QUERY_OPTIONS,
    ),
    Changed(
        "query/refusals",
        "PUT /v1/query/x/explain",
        ("405 text/plain; charset=utf-8", "Allow: OPTIONS,GET", "method PUT not allowed"),
        _QUERY_OPTIONS,
    ),
    Changed(
        "query/refusals",
        "OPTIONS /v1/query/x",
        ("200", "Allow: OPTIONS,GET,PUT,DELETE"),
        "an answer to OPTIONS has no body, as everywhere else",
    ),
    Changed(
        "query/refusals",
        "OPTIONS /v1/query/x/execute",
        ("200", "Allow: OPTIONS,GET"),
        "an answer to OPTIONS has no body, as everywhere else",
    ),
    Changed(
        "http/routing",
        "GET /",
        ("200 text/plain; charset=utf-8", "Lictor Agent"),
        "there is no web page yet to lead to",
    ),
    Changed(
        "http/routing",
        "GET /robots.txt",
        ("404",),
        "it belongs to the web page, which is not there yet",
    ),
    Changed(
        "http/routing",
        "FOO /v1/status/leader",
        ("400 text/plain; charset=utf-8", "400 Bad Request"),
        "the HTTP parser refuses methods that there are not, before any path is looked at",
    ),
    Changed(
        "http/tuned",
        "GET /v1/nope",
        (
            "404 text/plain; charset=utf-8",
            "Access-Control-Allow-Origin: *",
            "X-Consul-Translate-Addresses: true",
            "X-Contract: yes",
            "Invalid URL path: not a recognized HTTP API endpoint",
        ),
        "the configured headers are on every answer, also where the reference's router answers",
    ),
    Changed(
        "catalog/reads",
        'GET /v1/catalog/services?filter=ServiceName == "{name}-web"',
        (
            "200 application/json",
            "(query)",
            "X-Consul-Effective-Consistency: leader",
            '{"{name}-web": ["blue", "v1", "v2"]}',
        ),
        "the reference passes over the parameter, later releases filter",
    ),
    Changed(
        "txn/catalog",
        'PUT /v1/txn [{"Session": {"Verb": "delete", "Session": {"ID": "7b1c9a5e-0000-4000-8000-000000000000"}}}]',
        ("200 application/json", '{"Errors": null, "Results": []}'),
        "the reference does not know the session verb; destroying an absent session succeeds, as it does alone",
    ),
    Changed(
        "config/refusals",
        'PUT /v1/config {"Kind": "service-defaults"}',
        (
            "500 text/plain; charset=utf-8",
            "Name is required",
        ),
        "texts and rules of later releases",
    ),
    Changed(
        "config/refusals",
        'PUT /v1/config {"Kind": "proxy-defaults", "Name": "{name}"}',
        (
            "500 text/plain; charset=utf-8",
            'invalid name ("{name}"), only "global" is supported',
        ),
        "texts and rules of later releases",
    ),
    Changed(
        "config/refusals",
        'PUT /v1/config {"Kind": "service-resolver", "Name": "{name}", "Subsets": {"v": {"Filter": "Bogus =="}}}',
        (
            "500 text/plain; charset=utf-8",
            'Filter for subset "v" is not a valid expression: 1:9 (8):'
            ' no match found, expected: "-", "0", "\\"", "`", [ \\t\\r\\n], [1-9] or [a-zA-Z]',
        ),
        "a filter that cannot be read is refused when it is written, not when it is used",
    ),
    Changed(
        "config/refusals",
        "GET /v1/config/",
        (
            "200 application/json",
            "(query)",
            "[",
            "  {",
            '    "CreateIndex": "<index:1>",',
            '    "Expose": {},',
            '    "Kind": "service-defaults",',
            '    "MeshGateway": {"Mode": "weird"},',
            '    "ModifyIndex": "<index:1>",',
            '    "Name": "{name}",',
            '    "Protocol": "",',
            '    "TransparentProxy": {}',
            "  }",
            "]",
        ),
        "two of the entries before it were refused",
    ),
    Changed(
        "http/cache",
        "GET /v1/query/{name}/execute?cached",
        (
            "404 text/plain; charset=utf-8",
            "Query not found",
        ),
        "the same 404 as without `cached`",
    ),
    Changed(
        "ui/ui",
        "GET /v1/internal/ui/services",
        (
            "200 application/json",
            "(query)",
            "[",
            "  {",
            '    "ChecksCritical": 1,',
            '    "ChecksPassing": 0,',
            '    "ChecksWarning": 0,',
            '    "ConnectNative": false,',
            '    "ConnectedWithGateway": false,',
            '    "ConnectedWithProxy": false,',
            '    "Datacenter": "dc1",',
            '    "ExternalSources": null,',
            '    "GatewayConfig": {},',
            '    "InstanceCount": 1,',
            '    "Name": "{name}-db",',
            '    "Nodes": ["{name}"],',
            '    "Tags": ["x"],',
            '    "TransparentProxy": false',
            "  },",
            "  {",
            '    "ChecksCritical": 1,',
            '    "ChecksPassing": 3,',
            '    "ChecksWarning": 0,',
            '    "ConnectNative": false,',
            '    "ConnectedWithGateway": false,',
            '    "ConnectedWithProxy": true,',
            '    "Datacenter": "dc1",',
            '    "ExternalSources": ["test"],',
            '    "GatewayConfig": {},',
            '    "InstanceCount": 1,',
            '    "Name": "{name}-web",',
            '    "Nodes": ["contract"],',
            '    "Tags": ["v1"],',
            '    "TransparentProxy": false',
            "  },",
            "  {",
            '    "ChecksCritical": 1,',
            '    "ChecksPassing": 2,',
            '    "ChecksWarning": 0,',
            '    "ConnectNative": false,',
            '    "ConnectedWithGateway": false,',
            '    "ConnectedWithProxy": false,',
            '    "Datacenter": "dc1",',
            '    "ExternalSources": ["test"],',
            '    "GatewayConfig": {},',
            '    "InstanceCount": 1,',
            '    "Kind": "connect-proxy",',
            '    "Name": "{name}-web-sidecar-proxy",',
            '    "Nodes": ["contract"],',
            '    "Tags": ["v1"],',
            '    "TransparentProxy": false',
            "  },",
            "  {",
            '    "ChecksCritical": 0,',
            '    "ChecksPassing": 1,',
            '    "ChecksWarning": 0,',
            '    "ConnectNative": false,',
            '    "ConnectedWithGateway": false,',
            '    "ConnectedWithProxy": false,',
            '    "Datacenter": "dc1",',
            '    "ExternalSources": null,',
            '    "GatewayConfig": {},',
            '    "InstanceCount": 1,',
            '    "Name": "consul",',
            '    "Nodes": ["contract"],',
            '    "Tags": null,',
            '    "TransparentProxy": false',
            "  }",
            "]",
        ),
        "later releases count the checks of its proxies into a service, and leave ProxyFor out",
    ),
)


def compare(scenario: str, request: str, expected: list[str], got: list[str]) -> tuple[list[str], list[str]]:
    """Both answers as they are to be compared: equal when they differ by nothing but what is named above."""
    for changed in CHANGED:
        if changed.scenario == scenario and changed.request == request:
            expected = list(changed.answer)
    expected_head, expected_body = _split(expected)
    got_head, got_body = _split(got)
    status = int(got[0].split(" ")[0]) if got and got[0][:3].isdigit() else 0
    added = tuple(item for item in ADDED_HEADERS + ADDED_RECORDS if request.startswith(item.requests))
    got_head = _without(got_head, expected_head, added, status)
    omitted = tuple(item for item in OMITTED_HEADERS if request.startswith(item.requests))
    expected_head = _without(expected_head, got_head, omitted, status)
    return _loosened(expected_head + _show(expected_body)), _loosened(got_head + _show(_trim(got_body, expected_body)))


def _without(lines: list[str], other: list[str], headers: tuple[Header, ...], status: int) -> list[str]:
    """The lines but for headers that may stand on one side alone."""
    return [
        line
        for line in lines
        if line in other or not any(status in item.statuses and item.line.fullmatch(line) for item in headers)
    ]


def _split(answer: list[str]) -> tuple[list[str], Any]:
    """Status and headers, and the body: JSON where it is that, else its lines."""
    for start, line in enumerate(answer):
        if line[:1] in ("{", "[", '"') or line in ("true", "false", "null"):
            try:
                return answer[:start], json.loads("\n".join(answer[start:]))
            except ValueError:
                break
    return answer, None


def _show(body: Any) -> list[str]:
    return [] if body is None else dump(body)


def _trim(got: Any, expected: Any) -> Any:
    """The body without fields that may be added, where the other side has not the field."""
    if isinstance(got, dict) and isinstance(expected, dict):
        trimmed = {
            key: _trim(value, expected.get(key))
            for key, value in got.items()
            if key in expected or key not in ADDED_FIELDS
        }
        for key in ("TaggedAddresses", "ServiceTaggedAddresses"):
            if not expected.get(key) and (trimmed.get(key) or {}).keys() == {"consul-virtual"}:
                del trimmed[key]
                trimmed |= {key: expected[key]} if key in expected else {}
        return trimmed
    if isinstance(got, list) and isinstance(expected, list):
        others = expected + [expected[-1] if expected else None] * len(got)
        return [_trim(item, other) for item, other in zip(got, others, strict=False)]
    return got


def _loosened(lines: list[str]) -> list[str]:
    text = "\n".join(lines)
    for item in LOOSENED:
        text = item.pattern.sub(item.replacement, text)
    return text.split("\n")
