"""Writes docs/compatibility.md from what the cases cover: `python -m tests.contract.table`.

What is missing or different is written by hand, below and in `deliberate.py`: only a person knows it honestly.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path

from tests.contract import deliberate
from tests.contract.covers import ENDPOINTS, Coverage, coverage
from tests.contract.scenario import Scenario, load_all

DOCUMENT = Path(__file__).parents[2] / "docs" / "compatibility.md"

# What is missing or works otherwise, by family; kept by hand.
MISSING: tuple[tuple[str, str], ...] = (
    ("ACL", "Off, as in the reference without configuration: `/v1/acl/...` says `ACL support disabled`."),
    (
        "Connect",
        "`/v1/discovery-chain/...` is 404. The fields of services that are about proxies are stored and shown.",
    ),
    (
        "Certificate authority",
        "Providers are `consul` and `vault`. Private keys and tokens are in no answer, where the reference shows them: "
        "what was read can be put back without them. `ModifyIndex` in a `PUT` is a condition, and one that does not "
        "hold is an error; in the reference nothing happens. Another `PrivateKeyType` or `PrivateKeyBits` means "
        "another root; the reference keeps the one it has. A root that the built-in provider made is replaced before "
        "it ends, and `NewRoot` has another one made. Serial numbers are random. `State` of the configuration has "
        "`Trouble` while the authority cannot do its work. A deregistered service's certificates are revoked: the "
        "roots have `Revoked` with serial numbers then, `authorize` heeds `ClientCertSerial`, and "
        "`/v1/connect/ca/revoked` is Lictor's own.",
    ),
    (
        "Intentions",
        "As in releases since 1.9: `service-intentions` config entries hold them all, those made by id too. An id, its "
        "times and its own meta last until the destination's entry is edited as one, and the destination of an id "
        "cannot be changed. `/v1/connect/intentions/explain` is Lictor's own.",
    ),
    (
        "Servers",
        "Servers of Lictor make up a cluster among themselves: Consul's servers speak another protocol, and neither "
        "can join the other's. `retry_join`, `start_join` and `/v1/agent/join` take addresses of gossip, and on "
        "servers those of `ports.server` too; of providers there is only `exec`, "
        "which runs a program that prints addresses, and the others are left out with a warning. A server with `-dev` "
        "joins nobody. A server is first a learner, and votes when autopilot promotes it. A server that has lost its "
        "disk takes its own place again by itself. `peers.json` is read as in Raft protocol 3.",
    ),
    (
        "Members",
        "Gossip is Serf's: Consul's agents and plain `serf` agents can be members of one pool with Lictor's, with and "
        "without encryption. A node that a new leader's gossip does not know is critical after a minute, and removed "
        "after `reconnect_timeout`; the reference removes it at once. The health of the cluster's own servers is what "
        "they see when they ask each other. With a gossip port of -1 the members are those servers.",
    ),
    (
        "Client agents",
        "Every endpoint and DNS name of a server. Discovery is answered from what the agent holds, with `X-Cache` "
        "and `Age`, also without `?cached`; the reference asks a server each time, and with `?cached` keeps each "
        "answer for itself. What is not held is passed on to a server. A write that is sent again to another server "
        "counts once; the reference may apply it twice.",
    ),
    (
        "Consistency",
        "Every server answers reads from its own store. Default reads are linearizable, on followers too: the "
        "leader is asked up to which write its lease holds. The reference forwards them, and a leader that was "
        "replaced may answer with what is old for a moment. `consistent` has a majority confirm it; `stale` answers "
        "at once, and `max_stale` falls back to a default read. A blocking query is confirmed when it begins, and "
        "wakes by its own server's store. DNS follows `dns_config.allow_stale` and `max_stale`.",
    ),
    (
        "Writes",
        "Any server takes them. One that meets a change of leader is sent again and takes effect once; without a "
        "leader for `performance.rpc_hold_timeout` it fails with `No cluster leader`, and may yet take effect, as "
        "in the reference.",
    ),
    (
        "Operator",
        "Autopilot works as in releases since 1.10, with redundancy zones, upgrade migration and read "
        "replicas, which the reference keeps for its paid edition. `/v1/operator/raft/transfer-leader` is there as "
        "in releases since 1.15. A server that was removed while it runs is kept out for two minutes.",
    ),
    (
        "Snapshots",
        "The archive has the reference's form, and `consul snapshot inspect` reads it; the state within is Lictor's "
        "own, so neither restores the other's.",
    ),
    (
        "Federation",
        "Servers of Lictor in several datacenters answer for each other (`?dc=`, DNS, prepared queries that fail "
        "over); Consul's servers can be members of the pool between datacenters, and answer no calls. `?dc=` with "
        "`/v1/catalog/register` and `deregister` goes where it says, unless the body does; the reference passes over "
        "it.",
    ),
    (
        "Namespaces, partitions, peering",
        "Not there; the parameters `ns` and `partition` are passed over, and `/v1/peerings` is 404.",
    ),
    (
        "Web page",
        "Not there yet: `GET /` says who answers, `/ui/` and `/robots.txt` are 404; its endpoints are served.",
    ),
    (
        "Envoy",
        "Configured over xDS as Consul's Envoys are; envoy.md says what makes what. Certificates and roots are secrets "
        "(SDS), and intentions about requests are part of the routes. Virtual addresses follow from the services' "
        "names. Routers, splitters, resolvers, gateways and "
        "`envoy_bootstrap_json_tpl` are not there; of Envoy extensions there are `builtin/property-override` and "
        "`builtin/lua`. `connect redirect-traffic` uses nftables where there is `nft`.",
    ),
    ("Config entries", "Stored, validated, listed and deleted; what they do comes with the proxies."),
)

_HEAD = """# Compatibility

Which of Consul's interfaces Lictor serves, and how that is known. This page is written by `python -m
tests.contract.table`; do not edit it. The suite in `tests/contract` plays requests against Consul 1.8.7 and against
Lictor, and compares status, headers and bodies.

*Requests* are recorded from the reference and compared; *cases* are tests of timing, sizes, restarts and whatever else
a recording cannot say. An endpoint with neither is not tested against the reference.
"""


def main() -> None:
    """Writes the document."""
    DOCUMENT.write_text(document())


def document() -> str:
    """The document's text. Every module of cases is imported, so that its declarations are known."""
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        importlib.import_module(f"tests.contract.{path.stem}")
    scenarios = load_all()
    covered = coverage(scenarios)
    parts = [_HEAD, "## HTTP API\n"]
    for family, endpoints in ENDPOINTS.items():
        parts.append(f"### {family}\n\n" + "\n".join(_rows(endpoints, covered)) + "\n")
    parts.append(_dns(scenarios))
    parts.append("## Missing or different\n\n" + "\n".join(_bullets(MISSING)) + "\n")
    parts.append(_differences())
    return "\n".join(parts)


def _rows(endpoints: Iterable[str], covered: dict[str, Coverage]) -> list[str]:
    lines = ["| endpoint | parameters seen | requests | cases |", "| --- | --- | --- | --- |"]
    for endpoint in endpoints:
        known = covered[endpoint]
        parameters = ", ".join(f"`{name}`" for name in sorted(known.parameters)) or "-"
        lines.append(f"| `{endpoint}` | {parameters} | {known.requests} | {known.cases} |")
    return lines


def _dns(scenarios: list[Scenario]) -> str:
    kinds: dict[str, int] = {}
    for scenario in scenarios:
        for step in scenario.steps:
            words = step.request.split()
            if words[0] == "DIG":
                kinds[words[2]] = kinds.get(words[2], 0) + 1
    shown = ", ".join(f"{kind} ({count})" for kind, count in sorted(kinds.items()))
    return f"## DNS\n\nRecorded questions by type: {shown}.\n"


def _bullets(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return [f"- **{title}**: {text}" for title, text in pairs]


def _differences() -> str:
    lines = ["### Differences on purpose\n"]
    lines += [f"- added header `{item.line.pattern}`: {item.reason}" for item in deliberate.ADDED_HEADERS]
    lines += [f"- added record `{item.line.pattern}`: {item.reason}" for item in deliberate.ADDED_RECORDS]
    lines += [f"- left out on errors `{item.line.pattern}`: {item.reason}" for item in deliberate.OMITTED_HEADERS]
    lines += [f"- added field `{name}`: {reason}" for name, reason in deliberate.ADDED_FIELDS.items()]
    lines += [f"- compared in part `{item.pattern.pattern}`: {item.reason}" for item in deliberate.LOOSENED]
    lines += [f"- `{item.request}`: {item.reason}" for item in deliberate.CHANGED]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
