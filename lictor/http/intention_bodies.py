"""Intentions as clients write them, and the names of services as they stand in parameters."""

from typing import Any

import msgspec

from lictor.http.bodies import reworded
from lictor.http.request import Request
from lictor.model.config_entry.decode import UndecodableConfigEntry, decode_record
from lictor.model.config_entry.intentions import JWTRequirement, Permission, SourceIntention
from lictor.model.errors import InvalidRequest, Refused
from lictor.model.intention import CONSUL, Intention
from lictor.model.service_definition import decode_body
from lictor.model.spiffe import NAMESPACE

PEER = "peer:"


class _Body(msgspec.Struct, frozen=True):
    """The fields that are plain. What the servers work out is taken and passed over, so that what was read may be sent
    back.
    """

    id: str = ""
    description: str = ""
    source_peer: str = ""
    source_sameness_group: str = ""
    source_partition: str = ""
    source_ns: str = ""
    source_name: str = ""
    destination_partition: str = ""
    destination_ns: str = ""
    destination_name: str = ""
    source_type: str = ""
    action: str = ""
    default_addr: str = ""
    default_port: int = 0
    meta: dict[str, str] = {}
    precedence: int = 0
    created_at: str = ""
    updated_at: str = ""
    hash: str = ""
    create_index: int = 0
    modify_index: int = 0


class _Structured(msgspec.Struct, frozen=True, rename="pascal"):
    """The fields that have an order of their own."""

    permissions: tuple[Permission, ...] = ()
    jwt: JWTRequirement | None = msgspec.field(default=None, name="JWT")


def decode_intention(body: Any, beginning: str) -> Intention:
    """The intention in a body, unchecked but for where its ends are. Raises `InvalidRequest`, starting with `beginning`
    where it cannot be read.
    """
    plain: dict[str, Any] = {}
    structured: dict[str, Any] = {}
    if isinstance(body, dict):
        for key, value in body.items():
            settled = key.replace("_", "").lower()
            (structured if settled in ("permissions", "jwt") else plain)[key] = value
    with reworded(beginning):
        read = decode_body(_Body, plain if isinstance(body, dict) else {} if body is None else body)
    try:
        rest = decode_record(_Structured, structured)
    except UndecodableConfigEntry as error:
        raise InvalidRequest(f"{beginning}{error}") from None
    _require_here(read)
    return Intention(
        id=read.id,
        description=read.description,
        source_name=read.source_name,
        destination_name=read.destination_name,
        source_type=read.source_type or CONSUL,
        action=read.action,
        permissions=rest.permissions,
        meta=dict(read.meta) or None,
    )


def _require_here(read: _Body) -> None:
    """Raise where an end is in another namespace, partition or cluster: those are Consul Enterprise's, or a config
    entry's.
    """
    if read.source_peer:
        raise Refused("SourcePeer field is not supported on this endpoint. Use config entries instead")
    if read.source_sameness_group:
        raise Refused("SourceSamenessGroup field is not supported on this endpoint. Use config entries instead")
    for field, namespace in (("SourceNS", read.source_ns), ("DestinationNS", read.destination_ns)):
        if namespace not in ("", NAMESPACE):
            raise InvalidRequest(f'Invalid {field} "{namespace}": Namespaces is a Consul Enterprise feature')
    for which, partition in (("source", read.source_partition), ("destination", read.destination_partition)):
        if partition not in ("", "default"):
            raise InvalidRequest(f"Cannot specify a {which} partition with this endpoint")


def source_body(intention: Intention, now: str = "") -> dict[str, Any]:
    """An intention as a source of its destination's entry. With a time it is one that has an id."""
    source = SourceIntention(
        name=intention.source_name,
        action=intention.action,
        permissions=intention.permissions,
        type=intention.source_type,
        description=intention.description,
    )
    if now:
        source = msgspec.structs.replace(
            source,
            legacy_id=intention.id,
            legacy_meta=intention.meta or None,
            legacy_create_time=now,
            legacy_update_time=now,
        )
    shown: dict[str, Any] = msgspec.to_builtins(source)
    return shown


class Ends(msgspec.Struct, frozen=True):
    """The services between which an intention is; `peer` is the cluster of the source where it is not this one."""

    source: str
    destination: str
    peer: str = ""


def ends(request: Request, *, peers: bool = False) -> Ends:
    """The parameters `source` and `destination`. Raises `Refused`."""
    texts = {}
    for parameter in ("source", "destination"):
        values = request.query.get(parameter, [])
        if len(values) != 1 or not values[0]:
            raise Refused(f"required query parameter '{parameter}' not set")
        texts[parameter] = values[0]
    peer = ""
    source = texts["source"]
    if peers and source.startswith(PEER) and "/" in source:
        peer, _, source = source.removeprefix(PEER).partition("/")
    return Ends(
        _here(source, f'source "{texts["source"]}" is invalid: '),
        _here(texts["destination"], f'destination "{texts["destination"]}" is invalid: '),
        peer,
    )


def _here(text: str, beginning: str) -> str:
    name = service_name(text, beginning)
    if name is None:
        raise InvalidRequest(f"{beginning}Namespaces is a Consul Enterprise feature")
    return name


def service_name(text: str, beginning: str) -> str | None:
    """The service in `name` or `default/name`: None for one of a namespace that is not here. Raises `Refused` with
    `beginning` for what is neither.
    """
    if text.startswith(PEER):
        raise Refused(f"{beginning}cannot specify a peer here")
    namespace, slash, name = text.partition("/")
    if not slash:
        return text
    if "/" in name:
        raise Refused(f"{beginning}input can contain at most one '/'")
    return name if namespace == NAMESPACE else None
