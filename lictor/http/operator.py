"""`/v1/operator`: what the operator of a cluster looks at and sets."""

from typing import Any

import msgspec

from lictor.http.api import Api
from lictor.http.autopilot_json import health_json, state_json
from lictor.http.bodies import read_record, unsigned_parameter
from lictor.http.reply import Reply, json_reply
from lictor.http.request import Request
from lictor.http.routes import Family, ReadFunction
from lictor.model.authorizer import READ, WRITE
from lictor.model.command import SettingWrite
from lictor.model.duration import format_nanoseconds, parse_nanoseconds
from lictor.model.errors import InvalidRequest, NoLeader
from lictor.server.autopilot_config import SETTING, AutopilotConfig
from lictor.server.leadership import Leadership
from lictor.server.server import Server
from lictor.store.reads import config, usage
from lictor.store.store import View

family = Family(at_servers=True)

_AUTOPILOT_FAILED = "Bad request: Error parsing autopilot config: "


def _server(api: Api) -> Server:
    server = api.agent.server
    if server is None:
        raise NoLeader
    return server


def _leadership(api: Api) -> Leadership:
    leadership = api.agent.leadership
    if leadership is None:
        raise NoLeader
    return leadership


# -- Raft -------------------------------------------------------------------------------------------------------------


@family.action("GET", "/v1/operator/raft/configuration")
async def raft_configuration(api: Api, request: Request) -> Any:
    """The servers of the cluster."""
    request.require("operator", "", READ)
    await api.confirm(request)
    servers = [
        {
            "ID": peer.id,
            "Node": peer.node,
            "Address": peer.address,
            "Leader": peer.leader,
            "ProtocolVersion": peer.protocol_version,
            "Voter": peer.voter,
        }
        for peer in _server(api).consensus.peers()
    ]
    return {"Servers": servers, "Index": 0}


@family.action("DELETE", "/v1/operator/raft/peer")
async def remove_peer(api: Api, request: Request) -> Any:
    """Remove a server from the cluster, by `id` or `address`."""
    by_id, by_address = request.has("id"), request.has("address")
    if not by_id and not by_address:
        raise InvalidRequest(
            "Bad request: Must specify either ?id with the server's ID or ?address with IP:port of peer to remove"
        )
    if by_id and by_address:
        raise InvalidRequest("Bad request: Must specify only one of ?id or ?address")
    request.require("operator", "", WRITE)
    kind = "id" if by_id else "address"
    await _leadership(api).remove_peer(kind, request.get(kind))
    return Reply()


@family.action("POST", "/v1/operator/raft/transfer-leader")
async def transfer_leader(api: Api, request: Request) -> Any:
    """Hand the leadership to another server."""
    request.require("operator", "", WRITE)
    await _leadership(api).transfer(request.get("id"))
    return {"Success": True}


# -- Autopilot --------------------------------------------------------------------------------------------------------


class AutopilotBody(msgspec.Struct, frozen=True, rename="pascal"):
    """The body that sets autopilot's configuration; durations are texts or nanoseconds."""

    cleanup_dead_servers: bool = False
    last_contact_threshold: Any = 0
    max_trailing_logs: int = 0
    min_quorum: int = 0
    server_stabilization_time: Any = 0
    redundancy_zone_tag: str = ""
    disable_upgrade_migration: bool = False
    upgrade_version_tag: str = ""
    create_index: int = 0
    modify_index: int = 0


@family.action("GET", "/v1/operator/autopilot/configuration")
async def autopilot_configuration(api: Api, request: Request) -> Any:
    """Autopilot's configuration."""
    request.require("operator", "", READ)
    await api.confirm(request)
    found = api.agent.store.read(config.setting, SETTING).value
    if found is None:
        return msgspec.to_builtins(AutopilotConfig()) | {"CreateIndex": 0, "ModifyIndex": 0}
    return found.body | {"CreateIndex": found.create_index, "ModifyIndex": found.modify_index}


@family.action("PUT", "/v1/operator/autopilot/configuration")
async def set_autopilot_configuration(api: Api, request: Request) -> Any:
    """Replace autopilot's configuration; with `cas` only if it still has that modify index."""
    given = read_record(request, AutopilotBody, _AUTOPILOT_FAILED)
    new = AutopilotConfig(
        given.cleanup_dead_servers,
        _duration(given.last_contact_threshold),
        given.max_trailing_logs,
        given.min_quorum,
        _duration(given.server_stabilization_time),
        given.redundancy_zone_tag,
        given.disable_upgrade_migration,
        given.upgrade_version_tag,
    )
    for number in (new.max_trailing_logs, new.min_quorum):
        if not 0 <= number < 1 << 63:
            raise InvalidRequest(f"{_AUTOPILOT_FAILED}{number} is not a whole number from 0 on")
    request.require("operator", "", WRITE)
    cas, index = request.has("cas"), 0
    if cas:
        index = unsigned_parameter(request.get("cas"), "Bad request: Error parsing cas value: ")
    return await api.agent.apply(SettingWrite(SETTING, msgspec.to_builtins(new), index, cas))


def _duration(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InvalidRequest(f'{_AUTOPILOT_FAILED}a duration must be a text such as "200ms" or nanoseconds')
    try:
        return format_nanoseconds(parse_nanoseconds(value) if isinstance(value, str) else value)
    except ValueError as error:
        raise InvalidRequest(f"{_AUTOPILOT_FAILED}{error}") from None


@family.action("GET", "/v1/operator/autopilot/health")
async def autopilot_health(api: Api, request: Request) -> Any:
    """The servers' health; status 429 where one is unhealthy."""
    request.require("operator", "", READ)
    state = await _leadership(api).autopilot_state()
    return json_reply(health_json(state), pretty=request.pretty, status=200 if state.healthy else 429)


@family.action("GET", "/v1/operator/autopilot/state")
async def autopilot_state(api: Api, request: Request) -> Any:
    """Autopilot's whole picture of the servers."""
    request.require("operator", "", READ)
    return state_json(await _leadership(api).autopilot_state())


# -- usage ------------------------------------------------------------------------------------------------------------


@family.read("/v1/operator/usage", dated=True)
def operator_usage(api: Api, request: Request) -> ReadFunction:
    """How many nodes, services and instances there are."""
    request.require("operator", "", READ)
    datacenter = api.agent.datacenter

    def run(view: View) -> Any:
        counted = usage.usage(view)
        meta = api.meta(view.index, request, request.consistency.mode)
        rest = {"NotModified": False, "Backend": 0, "ResultsFilteredByACLs": False}
        return {"Usage": {datacenter: counted}} | meta | rest

    return run
