"""`/v1/connect/intentions`: who may connect to whom.

All forms are about `service-intentions` config entries: what is written here is read there, and the other way round.
They are written in the primary datacenter, and read in each.
"""

from datetime import UTC, datetime
from typing import Any

import msgspec

from lictor.http.api import Api
from lictor.http.bodies import DECODE_FAILED, read_json
from lictor.http.freshness import DEFAULT
from lictor.http.intention_bodies import Ends, decode_intention, ends, service_name, source_body
from lictor.http.reply import Reply, json_reply, text_reply
from lictor.http.request import Request
from lictor.http.routes import Family, ReadFunction
from lictor.model.authorizer import READ, WRITE
from lictor.model.command import IntentionWrite
from lictor.model.config_entry import InvalidConfigEntry
from lictor.model.errors import InvalidRequest, Refused
from lictor.model.ids import looks_like_id, new_id
from lictor.model.intention import CONSUL, DefaultPolicy, Intention, default_policy
from lictor.model.intention_edit import check_legacy
from lictor.model.spiffe import ServiceId
from lictor.store.reads import intentions
from lictor.store.store import View

family = Family(at_servers=True)

DEFAULT_POLICY = "X-Lictor-Default-Intention-Policy"
MAX_NAMES = 256  # that one match may ask for

_BAD_ID = "failed intention lookup: index error: UUID must be 36 characters"
_CREATE_FAILED = "Failed to decode request body: "
_UPDATE_FAILED = f"Bad request: {DECODE_FAILED}"


class Selectable(msgspec.Struct, frozen=True, rename="pascal"):
    """The fields of an intention that filters know."""

    id: str = msgspec.field(default="", name="ID")
    description: str = ""
    source_peer: str = ""
    source_ns: str = msgspec.field(default="", name="SourceNS")
    source_name: str = ""
    destination_ns: str = msgspec.field(default="", name="DestinationNS")
    destination_name: str = ""
    source_type: str = ""
    action: str = ""
    meta: dict[str, str] | None = None
    precedence: int = 0


def policy(api: Api) -> DefaultPolicy:
    """What holds here where no intention matches."""
    config = api.agent.config
    return default_policy(config.default_intention_policy, config.acl.default_policy if config.acl.enabled else "allow")


def require_mesh(api: Api) -> None:
    """Raise `Refused` where the mesh is off."""
    if not api.agent.config.connect.enabled:
        raise Refused("Connect must be enabled in order to use this endpoint")


@family.read("/v1/connect/intentions")
def every(api: Api, request: Request) -> ReadFunction:
    """Every intention that the caller may see, those that are considered first before others."""
    require_mesh(api)
    accept, rights = request.filter(Selectable), request.authorizer

    def visible(one: Intention) -> bool:
        if accept is not None and not accept(one):
            return False
        return any(rights.allows("intention", name, READ) for name in (one.destination_name, one.source_name))

    return lambda view: [one for one in intentions.intentions(view) if visible(one)]


@family.action("POST", "/v1/connect/intentions", at_primary=True)
async def create(api: Api, request: Request) -> Any:
    """Make an intention that has an id, which is returned."""
    require_mesh(api)
    try:
        given = decode_intention(read_json(request, _CREATE_FAILED), _CREATE_FAILED)
    except InvalidRequest as error:
        raise Refused(str(error)) from None
    request.require("intention", given.destination_name, WRITE)
    if given.id:
        raise Refused("ID must be empty when creating a new intention")
    made = msgspec.structs.replace(given, id=new_id())
    _check(made)
    await api.agent.apply(IntentionWrite("create", made.destination_name, body=source_body(made, _now())))
    return {"ID": made.id}


def _check(intention: Intention) -> None:
    try:
        check_legacy(intention)
    except InvalidConfigEntry as error:
        raise Refused(str(error)) from None


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@family.read("/v1/connect/intentions/match", cacheable=True)
def match(api: Api, request: Request) -> ReadFunction:
    """The intentions about connections to or from services, by the names as they were asked for, each list in the order
    in which it is considered; null where there are none. The default policy is in a header.
    """
    require_mesh(api)
    by = request.query.get("by", [])
    if len(by) != 1:
        raise Refused("required query parameter 'by' not set")
    if by[0] not in ("source", "destination"):
        raise Refused("'by' parameter must be one of 'source' or 'destination'")
    names = request.query.get("name", [])
    if not names:
        raise Refused("required query parameter 'name' not set")
    if len(names) > MAX_NAMES:
        raise InvalidRequest(f"at most {MAX_NAMES} names may be asked for at once")
    services = {name: service_name(name, f'name "{name}" is invalid: ') for name in names}
    for service in services.values():
        request.require("intention", service or "", READ)
    read = intentions.for_source if by[0] == "source" else intentions.for_destination
    headers = ((DEFAULT_POLICY, policy(api).action),)

    def run(view: View) -> Reply:
        found = {
            name: (read(view, service) or None) if service is not None else None
            for name, service in sorted(services.items())
        }
        return json_reply(found, pretty=request.pretty, headers=headers)

    return run


@family.read("/v1/connect/intentions/check", cacheable=True)
def check(api: Api, request: Request) -> ReadFunction:
    """Whether a connection would be let through that nobody looks into: layer-7 permissions refuse it."""
    require_mesh(api)
    asked = ends(request)
    if request.get("source-type", CONSUL) != CONSUL:
        raise Refused(f'unsupported SourceType: "{request.get("source-type")}"')
    request.require("service", asked.destination, READ)
    source, default = ServiceId("", "", asked.source), policy(api)
    return lambda view: {"Allowed": intentions.decision(view, source, asked.destination, default).allowed}


@family.read("/v1/connect/intentions/exact")
def exact(api: Api, request: Request) -> ReadFunction:
    """The intention with just these ends, `*` meaning itself; status 404 where there is none."""
    require_mesh(api)
    asked = ends(request, peers=True)
    _require_either(request, asked)

    def run(view: View) -> Any:
        found = intentions.exact(view, asked.source, asked.destination, asked.peer)
        return found if found is not None else text_reply("Intention not found", 404)

    return run


def _require_either(request: Request, asked: Ends) -> None:
    """Who may see the intentions of either end may see those between them."""
    if not request.authorizer.allows("intention", asked.source, READ):
        request.require("intention", asked.destination, READ)


@family.action("PUT", "/v1/connect/intentions/exact", at_primary=True)
async def upsert(api: Api, request: Request) -> Any:
    """Put the intention with these ends, whatever was there."""
    require_mesh(api)
    asked = ends(request)
    given = decode_intention(read_json(request), DECODE_FAILED)
    request.require("intention", asked.destination, WRITE)
    given = msgspec.structs.replace(given, id="", source_name=asked.source, destination_name=asked.destination)
    if given.meta:
        await _require_same_meta(api, given)
    command = IntentionWrite("upsert", asked.destination, asked.source, body=source_body(given))
    return await api.agent.apply(command)


async def _require_same_meta(api: Api, given: Intention) -> None:
    """Meta is the whole entry's: what was read may be sent back with it, and nothing else."""
    await api.freshness.admit(DEFAULT)
    meta = api.agent.store.read(intentions.entry_meta, given.destination_name).value
    if meta is None:
        raise Refused("Meta must not be specified")
    if meta != given.meta:
        raise Refused("Meta must not be specified, or should be unchanged during an update.")


@family.action("DELETE", "/v1/connect/intentions/exact", at_primary=True)
async def delete_exact(api: Api, request: Request) -> Any:
    """Remove the intention with these ends; there need not be one."""
    require_mesh(api)
    asked = ends(request)
    request.require("intention", asked.destination, WRITE)
    return await api.agent.apply(IntentionWrite("delete", asked.destination, asked.source))


@family.read("/v1/connect/intentions/:id")
def one(api: Api, request: Request) -> ReadFunction:
    """The intention of an id; status 404 where there is none."""
    require_mesh(api)
    legacy_id = request.vars["id"]
    if not looks_like_id(legacy_id):
        raise InvalidRequest(f"Bad request: {_BAD_ID}")
    rights = request.authorizer

    def run(view: View) -> Any:
        found = intentions.by_id(view, legacy_id.lower())
        if found is None:
            return text_reply("Intention not found", 404)
        if not any(rights.allows("intention", name, READ) for name in (found.source_name, found.destination_name)):
            return text_reply("Permission denied", 403)
        return found

    return run


@family.action("PUT", "/v1/connect/intentions/:id", at_primary=True)
async def update(api: Api, request: Request) -> Any:
    """Replace the intention of an id, but for its destination."""
    require_mesh(api)
    given = decode_intention(read_json(request, _UPDATE_FAILED), _UPDATE_FAILED)
    given = msgspec.structs.replace(given, id=await _known(api, request, "modify"))
    request.require("intention", given.destination_name, WRITE)
    _check(given)
    body = source_body(given, _now())
    await api.agent.apply(IntentionWrite("update", given.destination_name, id=given.id, body=body))
    return {"ID": given.id}


@family.action("DELETE", "/v1/connect/intentions/:id", at_primary=True)
async def delete(api: Api, request: Request) -> Any:
    """Remove the intention of an id."""
    require_mesh(api)
    await api.agent.apply(IntentionWrite("delete-id", id=await _known(api, request, "delete")))
    return True


async def _known(api: Api, request: Request, what: str) -> str:
    """The id in the path, of an intention that exists and that the caller may write."""
    legacy_id = request.vars["id"]
    if not looks_like_id(legacy_id):
        raise Refused(f"Intention lookup failed: {_BAD_ID}")
    await api.freshness.admit(DEFAULT)
    found = api.agent.store.read(intentions.by_id, legacy_id.lower()).value
    if found is None:
        raise Refused(f"Cannot {what} non-existent intention: '{legacy_id}'")
    request.require("intention", found.destination_name, WRITE)
    return found.id
