"""The body of a transaction, as clients write it, made into operations.

What keeps an operation from being tried at all (no key, no node, an address that cannot be) is found here and told per
operation, as the store tells what its state does not allow.
"""

import base64
import binascii
from typing import Any

import msgspec

from lictor.http.bodies import reworded
from lictor.http.catalog_bodies import CheckBody, ServiceBody, check_row, node_service
from lictor.model.command import CheckOp, KVOp, NodeOp, ServiceOp, SessionOp, TxnOp
from lictor.model.errors import InvalidRequest, LictorError
from lictor.model.ids import is_id
from lictor.model.node import Node
from lictor.model.service_definition import decode_body
from lictor.model.session import Session
from lictor.store.txn import KV_VERBS, READ_VERBS, TxnError

MAX_OPERATIONS = 128
PARSE_FAILED = "Failed to parse body: "


class KVBody(msgspec.Struct, frozen=True, rename="pascal"):
    """A KV operation; `value` is base64."""

    verb: str = ""
    key: str = ""
    value: str | None = None
    flags: int = 0
    index: int = 0
    session: str = ""
    namespace: str = ""
    partition: str = ""


class NodeBody(msgspec.Struct, frozen=True, rename="pascal"):
    """The node of a node operation."""

    id: str = msgspec.field(default="", name="ID")
    node: str = ""
    address: str = ""
    datacenter: str = ""
    tagged_addresses: dict[str, str] | None = None
    meta: dict[str, str] | None = None
    partition: str = ""
    peer_name: str = ""
    create_index: int = 0
    modify_index: int = 0


class NodeOpBody(msgspec.Struct, frozen=True, rename="pascal"):
    """A node operation."""

    verb: str = ""
    node: NodeBody = NodeBody()


class ServiceOpBody(msgspec.Struct, frozen=True, rename="pascal"):
    """A service operation."""

    verb: str = ""
    node: str = ""
    service: ServiceBody = ServiceBody()


class CheckOpBody(msgspec.Struct, frozen=True, rename="pascal"):
    """A check operation."""

    verb: str = ""
    check: CheckBody = CheckBody()


class SessionBody(msgspec.Struct, frozen=True, rename="pascal"):
    """The session of a session operation: its id is all that counts."""

    id: str = msgspec.field(default="", name="ID")
    name: str = ""
    node: str = ""
    namespace: str = ""


class SessionOpBody(msgspec.Struct, frozen=True, rename="pascal"):
    """A session operation."""

    verb: str = ""
    session: SessionBody = SessionBody()


class OpBody(msgspec.Struct, frozen=True, rename="pascal"):
    """One operation: the first kind that is given counts."""

    kv: KVBody | None = msgspec.field(default=None, name="KV")
    node: NodeOpBody | None = None
    service: ServiceOpBody | None = None
    check: CheckOpBody | None = None
    session: SessionOpBody | None = None


class Decoded(msgspec.Struct, frozen=True):
    """The operations, the position of each in the body, what is wrong with those that cannot be tried, and whether all
    of them, those too, only read.
    """

    operations: tuple[TxnOp, ...]
    positions: tuple[int, ...]
    errors: tuple[TxnError, ...]
    read_only: bool


def decode_operations(body: Any, datacenter: str) -> Decoded:
    """What a transaction is to do.

    Raises `InvalidRequest` where the body cannot be read at all.
    """
    if not isinstance(body, list):
        raise InvalidRequest(
            f"{PARSE_FAILED}json: cannot unmarshal {_json_kind(body)} into Go value of type api.TxnOps"
        )
    operations: list[TxnOp] = []
    positions: list[int] = []
    errors: list[TxnError] = []
    read_only = True
    for number, item in enumerate(body):
        with reworded(PARSE_FAILED):
            given = decode_body(OpBody, item)
            value = _value(given.kv) if given.kv is not None else None
        read_only = read_only and not _writes(given)
        try:
            operation = _operation(given, value, datacenter)
        except LictorError as error:
            errors.append(TxnError(number, str(error)))
            continue
        if operation is not None:
            operations.append(operation)
            positions.append(number)
    return Decoded(tuple(operations), tuple(positions), tuple(errors), read_only)


def _writes(given: OpBody) -> bool:
    """Whether an operation may change anything. A KV verb that does not exist counts as a read, as for Consul."""
    if given.kv is not None:
        return given.kv.verb in KV_VERBS - READ_VERBS
    return any(op is not None and op.verb != "get" for op in (given.node, given.service, given.check, given.session))


def _json_kind(value: Any) -> str:
    for kind, name in ((dict, "object"), (str, "string"), (bool, "bool"), (int | float, "number")):
        if isinstance(value, kind):
            return name
    return "null"


def _value(given: KVBody) -> bytes | None:
    if not given.value:
        return None
    try:
        return base64.b64decode(given.value, validate=True)
    except (binascii.Error, ValueError):
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        at = next((i for i, c in enumerate(given.value) if c not in alphabet), len(given.value))
        raise InvalidRequest(f"illegal base64 data at input byte {at}") from None


def _operation(given: OpBody, value: bytes | None, datacenter: str) -> TxnOp | None:
    if given.kv is not None:
        return _kv(given.kv, value)
    if given.node is not None:
        return _node(given.node, datacenter)
    if given.service is not None:
        return _service(given.service)
    if given.check is not None:
        return CheckOp(given.check.verb, check_row(given.check.check, ""))
    if given.session is not None:
        session_id = given.session.session.id
        if not is_id(session_id):
            raise InvalidRequest("Must provide session ID")
        return SessionOp(given.session.verb, Session(id=session_id.lower()))
    return None


def _kv(given: KVBody, value: bytes | None) -> KVOp:
    if not given.key and given.verb != "delete-tree":
        raise InvalidRequest("Must provide key")
    if not (0 <= given.flags < 1 << 64 and 0 <= given.index < 1 << 64):
        raise InvalidRequest("Flags and Index must be whole numbers from 0 to 18446744073709551615")
    return KVOp(given.verb, given.key, value, given.flags, given.index, given.session)


def _node(given: NodeOpBody, datacenter: str) -> NodeOp:
    node = given.node
    if not node.node and not (given.verb == "get" and node.id) and given.verb != "get":
        raise InvalidRequest("Must provide node")
    if node.id and not is_id(node.id):
        raise InvalidRequest("Bad node ID: uuid string is wrong length")
    row = Node(
        id=node.id.lower(),
        node=node.node,
        address=node.address,
        datacenter=node.datacenter or datacenter,
        tagged_addresses=node.tagged_addresses or None,
        meta=node.meta or None,
        modify_index=node.modify_index,
    )
    return NodeOp(given.verb, row)


def _service(given: ServiceOpBody) -> ServiceOp:
    if given.verb != "get":
        return ServiceOp(given.verb, given.node, node_service(given.service))
    # To look one up, its id is all there is to know.
    service = given.service
    bare = ServiceBody(id=service.id, service=service.service or service.id, modify_index=service.modify_index)
    return ServiceOp(given.verb, given.node, node_service(bare))
