"""`/v1/session`: the leases that hold locks."""

from typing import Any

import msgspec

from lictor.http.api import Api
from lictor.http.bodies import read_json
from lictor.http.reply import text_reply
from lictor.http.request import Request
from lictor.http.routes import Family, ReadFunction
from lictor.model.authorizer import READ, WRITE
from lictor.model.check import SERF_HEALTH
from lictor.model.command import SessionCreate, SessionDestroy
from lictor.model.duration import format_duration, parse_duration
from lictor.model.errors import InvalidRequest, NoLeader, Refused
from lictor.model.ids import looks_like_id, new_id
from lictor.model.session import (
    DELETE,
    LOCK_DELAY_DEFAULT,
    RELEASE,
    TTL_MAX,
    TTL_MIN,
    ServiceCheck,
    Session,
)
from lictor.store.reads import sessions

family = Family(at_servers=True)

LOCK_DELAY_LIMIT = 86400.0 * 365  # seconds; what is over `LOCK_DELAY_MAX` is stored, and does not count

_FIELDS = {
    name.lower(): name
    for name in ("Name", "Node", "NodeChecks", "ServiceChecks", "Checks", "LockDelay", "Behavior", "TTL", "ID")
}


@family.action("PUT", "/v1/session/create")
async def create(api: Api, request: Request) -> Any:
    """Make a session; returns its id."""
    session = _decode(api, request)
    request.require("session", session.node, WRITE)
    return {"ID": await api.agent.apply(SessionCreate(session))}


def _decode(api: Api, request: Request) -> Session:
    body = read_json(request) if request.body.strip() else {}
    if not isinstance(body, dict):
        raise InvalidRequest("Request decode failed: expected an object")
    given: dict[str, Any] = {}
    for written in body:
        given[_FIELDS.get(str(written).lower(), str(written))] = body[written]
    node = _text(given, "Node") or request.agent_node or api.agent.node_name
    behavior = _text(given, "Behavior") or RELEASE
    if behavior not in (RELEASE, DELETE):
        raise Refused(f"Invalid Behavior setting '{behavior}'")
    ttl = _text(given, "TTL")
    seconds = 0.0
    if ttl:
        try:
            seconds = parse_duration(ttl)
        except ValueError as error:
            raise Refused(f"Session TTL '{ttl}' invalid: {error}") from None
        least = api.agent.config.session_ttl_min or TTL_MIN
        if seconds != 0 and not least <= seconds <= TTL_MAX:
            raise Refused(
                f"Invalid Session TTL '{round(seconds * 1e9)}', must be between "
                f"[{format_duration(least)}={format_duration(TTL_MAX)}]"
            )
    node_checks, former = _check_lists(given)
    return Session(
        id=new_id(),
        name=_text(given, "Name"),
        node=node,
        lock_delay=_lock_delay(given.get("LockDelay")),
        behavior=behavior,
        ttl=ttl if seconds else "",
        node_checks=node_checks,
        checks=former or msgspec.UNSET,
        service_checks=_service_checks(given.get("ServiceChecks")),
    )


def _text(given: dict[str, Any], field: str) -> str:
    value = given.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidRequest(
            f"Request decode failed: json: cannot unmarshal {_json_kind(value)} into Go struct field .{field} "
            "of type string"
        )
    return value


def _json_kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return "object" if isinstance(value, dict) else "array"


def _lock_delay(value: Any) -> int:
    """Nanoseconds, from a duration, or from a number: seconds while it is small, nanoseconds otherwise."""
    seconds = LOCK_DELAY_DEFAULT
    if isinstance(value, str):
        try:
            seconds = parse_duration(value)
        except ValueError as error:
            raise InvalidRequest(f"Request decode failed: {error}") from None
    elif isinstance(value, int | float) and not isinstance(value, bool):
        value = min(max(value, 0), round(LOCK_DELAY_LIMIT * 1e9))
        seconds = float(value) if value < 1000 * 1000 else value / 1e9
    elif value is not None:
        raise InvalidRequest("Request decode failed: LockDelay must be a duration or a number")
    return round(min(max(seconds, 0.0), LOCK_DELAY_LIMIT) * 1e9)


def _check_lists(given: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The node checks, and those that are told under the former name, `Checks`. Where one of the two lists is not
    given it is the node's own health alone; where one is given and empty, the session stands on no node check at all.
    """
    alive = (SERF_HEALTH,)
    node_checks = _checks(given, "NodeChecks") if "NodeChecks" in given else alive
    former = _checks(given, "Checks") if "Checks" in given else alive
    if not node_checks or not former:
        return (), ()
    return node_checks, () if former == alive else former


def _checks(given: dict[str, Any], field: str) -> tuple[str, ...]:
    value = given.get(field)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise InvalidRequest(f"Request decode failed: {field} must be a list of check ids")
    return tuple(dict.fromkeys(value))


def _service_checks(value: Any) -> tuple[ServiceCheck, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise InvalidRequest("Request decode failed: ServiceChecks must be a list")
    found = []
    for item in value:
        lowered = {k.lower(): v for k, v in item.items()} if isinstance(item, dict) else {}
        if not isinstance(lowered.get("id"), str):
            raise InvalidRequest("Request decode failed: each of ServiceChecks must have an ID")
        found.append(ServiceCheck(lowered["id"], str(lowered.get("namespace") or "")))
    return tuple(found)


def _session_id(request: Request) -> str:
    session_id = request.vars["session"]
    if not session_id:
        raise InvalidRequest("Missing session")
    if not looks_like_id(session_id):
        raise Refused("failed session lookup: index error: UUID must be 36 characters")
    return session_id.lower()


@family.action("PUT", "/v1/session/destroy/:session")
async def destroy(api: Api, request: Request) -> Any:
    """End a session; there need not be one."""
    session_id = _session_id(request)
    request.require("session", session_id, WRITE)
    await api.agent.apply(SessionDestroy(session_id))
    return True


@family.action("PUT", "/v1/session/renew/:session")
async def renew(api: Api, request: Request) -> Any:
    """Begin a session's TTL anew; returns the session."""
    session_id = _session_id(request)
    request.require("session", session_id, WRITE)
    leadership = api.agent.leadership
    if leadership is None:
        raise NoLeader
    session = await leadership.renew_session(session_id)
    if session is None:
        return text_reply(f"Session id '{session_id}' not found", 404)
    return [session]


@family.read("/v1/session/info/:session")
def info(api: Api, request: Request) -> ReadFunction:
    """One session, in a list."""
    session_id = _session_id(request)
    request.require("session", session_id, READ)
    return lambda view: sessions.session(view, session_id)


@family.read("/v1/session/node/:node")
def of_node(api: Api, request: Request) -> ReadFunction:
    """A node's sessions."""
    node = request.vars["node"]
    if not node:
        raise InvalidRequest("Missing node name")
    request.require("session", node, READ)
    return lambda view: sessions.sessions_of_node(view, node)


@family.read("/v1/session/list")
def every(api: Api, request: Request) -> ReadFunction:
    """Every session."""
    request.require("session", "", READ)
    return sessions.sessions
