"""`/v1/agent` about the agent itself: who it is, its machine, its members, its numbers, its log."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from lictor.agent.config import RuntimeConfig, debug_config
from lictor.agent.host import host_info
from lictor.agent.log_stream import LogReader
from lictor.agent.logs import LogError, read_level
from lictor.agent.metrics import INTERVAL_SECONDS
from lictor.agent.metrics_format import PROMETHEUS_DISABLED, PROMETHEUS_TYPE, prometheus, summary
from lictor.agent.stats import stats
from lictor.http.api import Api
from lictor.http.reply import Reply, Stream, json_bytes, text_reply
from lictor.http.request import Request
from lictor.http.routes import Family, ReadFunction
from lictor.model.authorizer import READ
from lictor.model.envoy_version import TRIED
from lictor.model.errors import InvalidRequest, Refused
from lictor.model.member import Member
from lictor.model.version import API_VERSION, __version__
from lictor.store.store import View

family = Family()


@family.action("GET", "/v1/agent/self")
async def myself(api: Api, request: Request) -> Any:
    """Configuration, coordinate, member, statistics and meta."""
    agent = api.agent
    request.require("agent", agent.node_name, READ)
    config = agent.config
    return {
        "Config": {
            "Datacenter": config.datacenter,
            "PrimaryDatacenter": config.primary_datacenter,
            "NodeName": config.node_name,
            "NodeID": agent.node_id,
            "Revision": f"lictor {__version__}",
            "Server": config.server,
            "Version": API_VERSION,
            "BuildDate": "1970-01-01T00:00:01Z",
        },
        "DebugConfig": debug_config(config),
        "Coord": agent.pools.coordinate,
        "Member": agent.members()[0],
        "Stats": stats(agent),
        "Meta": agent.meta(),
        "xDS": _xds(config),
    }


def _xds(config: RuntimeConfig) -> dict[str, Any]:
    """Where Envoys get their configuration, -1 for nowhere, and which versions of it are known to work."""
    plain = next((one.port for one in config.listen.grpc if one.network == "tcp"), -1)
    tls = next((one.port for one in config.listen.grpc_tls if one.network == "tcp"), -1)
    return {
        "SupportedProxies": {"envoy": list(TRIED)},
        "Port": plain,
        "Ports": {"Plaintext": plain, "TLS": tls},
    }


@family.read_local("/v1/agent/version")
def version(api: Api, request: Request) -> ReadFunction:
    """The version whose interface this is, and the program's own."""
    request.require("agent", api.agent.node_name, READ)
    return lambda view: {
        "SHA": "",
        "BuildDate": "1970-01-01T00:00:01Z",
        "HumanVersion": f"{API_VERSION} (lictor {__version__})",
        "FIPS": "",
    }


@family.action("GET", "/v1/agent/host")
async def host(api: Api, request: Request) -> Any:
    """Memory, processors, system and disk of the machine."""
    request.require("operator", "", READ)
    return await asyncio.to_thread(host_info, api.agent.config.data_dir)


@family.read_local("/v1/agent/members")
def members(api: Api, request: Request) -> ReadFunction:
    """The members that this agent knows: of the datacenter, or with `wan` the servers of all of them."""
    accept = request.filter(Member)
    # `?wan` without a value is the datacenter's own, as in Consul.
    wan = bool(request.get("wan"))
    if request.get("segment") not in ("", "_all"):
        raise Refused("Network segments are not supported in this version of Consul")

    def read(view: View) -> Any:
        view.saw("agent", "members")
        return [
            member
            for member in api.agent.members(wan=wan)
            if request.authorizer.allows("node", member.name, READ) and (accept is None or accept(member))
        ]

    return read


@family.action("GET", "/v1/agent/metrics")
async def metrics(api: Api, request: Request) -> Any:
    """The last finished interval as JSON, or every metric in Prometheus' format."""
    agent = api.agent
    request.require("agent", agent.node_name, READ)
    if request.get("format") != "prometheus":
        return summary(agent.metrics, time.time())
    retention = agent.config.telemetry.prometheus_retention_time
    if retention <= 0:
        return text_reply(PROMETHEUS_DISABLED, 415)
    return Reply(200, prometheus(agent.metrics, time.time(), retention).encode(), PROMETHEUS_TYPE)


@family.action("GET", "/v1/agent/metrics/stream")
async def metrics_stream(api: Api, request: Request) -> Any:
    """Each interval as a line of JSON, when it is finished."""
    request.require("agent", api.agent.node_name, READ)

    async def lines() -> AsyncIterator[bytes]:
        while True:
            now = time.time()
            await asyncio.sleep(INTERVAL_SECONDS - now % INTERVAL_SECONDS)
            yield json_bytes(summary(api.agent.metrics, time.time())) + b"\n"

    return Stream(lines(), "application/json")


@family.action("GET", "/v1/agent/monitor")
async def monitor(api: Api, request: Request) -> Any:
    """The log as it is written, from `loglevel` (INFO) on, as text or with `logjson` as JSON."""
    agent = api.agent
    request.require("agent", agent.node_name, READ)
    name = request.get("loglevel") or "INFO"
    try:
        level = read_level(name)
    except LogError:
        raise InvalidRequest(f"Bad request: Unknown log level: {name}") from None
    logs = agent.logs
    if logs is None:
        raise Refused("this agent keeps no log")

    async def lines() -> AsyncIterator[bytes]:
        async with LogReader(logs, level, request.flag("logjson")) as reader:
            async for chunk in reader:
                yield chunk

    return Stream(lines())
