"""`/v1/coordinate`: where nodes are in the network, as they estimate it."""

import math
from typing import Any

import msgspec

from lictor.http.api import Api
from lictor.http.bodies import read_record
from lictor.http.reply import Reply
from lictor.http.request import Request
from lictor.http.routes import Family, ReadFunction
from lictor.model.authorizer import READ, WRITE
from lictor.model.coordinate_entry import Coord, CoordinateEntry
from lictor.model.errors import InvalidRequest, NoLeader, Refused
from lictor.store.reads import coordinates
from lictor.store.store import View

family = Family(at_servers=True)

DIMENSIONS = 8
WAN_AREA = "wan"


class UpdateBody(msgspec.Struct, frozen=True, rename="pascal"):
    """The body of an update."""

    datacenter: str = ""
    node: str = ""
    segment: str = ""
    partition: str = ""
    coord: Coord | None = None
    token: str = ""


@family.action("GET", "/v1/coordinate/datacenters", elsewhere=False)
async def datacenters(api: Api, request: Request) -> Any:
    """The servers' coordinates between datacenters, as far as they are known; without gossip, this one's alone."""
    request.require("node", api.agent.node_name, READ)
    agent = api.agent
    known = {server.name: server for server in agent.members(wan=True)}
    found: dict[str, list[dict[str, Any]]] = {}
    for entry in agent.pools.coordinates_between():
        datacenter = known[entry.node].tags.get("dc", "") if entry.node in known else ""
        named = CoordinateEntry(entry.node.removesuffix(f".{datacenter}"), "", entry.coord)
        found.setdefault(datacenter, []).append(_shown(named))
    if not found:
        found[agent.datacenter] = [_shown(CoordinateEntry(agent.node_name))]
    return [{"Datacenter": dc, "AreaID": WAN_AREA, "Coordinates": entries} for dc, entries in sorted(found.items())]


def _shown(entry: CoordinateEntry) -> dict[str, Any]:
    """A coordinate with whole numbers written as such, as Go writes them."""
    coord = {
        "Vec": [_number(value) for value in entry.coord.vec],
        "Error": _number(entry.coord.error),
        "Adjustment": _number(entry.coord.adjustment),
        "Height": _number(entry.coord.height),
    }
    return {"Node": entry.node, "Segment": entry.segment, "Coord": coord}


def _number(value: float) -> float | int:
    return int(value) if value.is_integer() else value


def _segment(request: Request) -> str | None:
    return request.get("segment") if request.has("segment") else None


@family.read("/v1/coordinate/nodes")
def nodes(api: Api, request: Request) -> ReadFunction:
    """The coordinates of every node."""
    segment, accept = _segment(request), request.filter(CoordinateEntry)
    request.require("node", "", READ)

    def run(view: View) -> Any:
        return [_shown(row) for row in coordinates.coordinates(view, segment) if accept is None or accept(row)]

    return run


@family.read("/v1/coordinate/node/:node")
def node(api: Api, request: Request) -> ReadFunction:
    """The coordinates of one node; status 404 where it has none."""
    name, segment = request.vars["node"], _segment(request)
    request.require("node", name, READ)
    return lambda view: [_shown(r) for r in coordinates.coordinates_of(view, name, segment)] or Reply(404)


@family.action("PUT", "/v1/coordinate/update")
async def update(api: Api, request: Request) -> Any:
    """Put a node's coordinate; one of an unknown node is passed over."""
    given = read_record(request, UpdateBody)
    coord = given.coord
    if coord is None:
        raise InvalidRequest("Request decode failed: missing Coord")
    if len(coord.vec) != DIMENSIONS:
        raise Refused("incompatible coordinate")
    if not all(math.isfinite(number) for number in (*coord.vec, coord.error, coord.adjustment, coord.height)):
        raise Refused("invalid coordinate")
    request.require("node", given.node, WRITE)
    leadership = api.agent.leadership
    if leadership is None:
        raise NoLeader
    await leadership.update_coordinate(CoordinateEntry(given.node, given.segment, coord))
    return Reply()
