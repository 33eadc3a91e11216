"""`/v1/txn`: operations that all take effect, or none."""

from typing import Any

import msgspec

from lictor.http.api import Api
from lictor.http.bodies import read_json
from lictor.http.reply import json_reply
from lictor.http.request import Request
from lictor.http.routes import Family
from lictor.http.txn_bodies import MAX_OPERATIONS, PARSE_FAILED, decode_operations
from lictor.model.authorizer import READ, WRITE
from lictor.model.check import Check
from lictor.model.command import CheckOp, KVOp, NodeOp, ServiceOp, Txn, TxnOp
from lictor.model.errors import Refused, TooLarge
from lictor.store import txn
from lictor.store.txn import TxnError, TxnFailed

family = Family(at_servers=True)


@family.action("PUT", "/v1/txn", body_limit="txn_max_body")
async def run(api: Api, request: Request) -> Any:
    """Run a transaction: status 200 with results, or 409 with what was wrong with each operation that failed."""
    _ = request.consistency  # a contradiction is refused, whatever the operations are
    datacenter = request.get("dc")
    if datacenter and datacenter != api.agent.datacenter:
        raise Refused("No path to datacenter")
    body = read_json(request, PARSE_FAILED)
    if isinstance(body, list) and len(body) > MAX_OPERATIONS:
        raise TooLarge(f"Transaction contains too many operations ({len(body)} > {MAX_OPERATIONS})")
    given = decode_operations(body, api.agent.datacenter)
    operations, errors = given.operations, list(given.errors)
    values = [len(op.value) for op in operations if isinstance(op, KVOp) and op.value is not None]
    if values and max(values) > api.settings.kv_max_value:
        raise TooLarge(
            f"Value for key is too large ({max(values)} > {api.settings.kv_max_value} bytes)",
        )
    for operation in operations:
        _require(request, operation)
    results: list[dict[str, Any]] | None = None
    if not errors:
        try:
            results = await _run(api, request, operations, read_only=given.read_only)
        except TxnFailed as failed:
            errors = [TxnError(given.positions[e.op_index], e.what) for e in failed.errors]
    if results is not None:
        results = [{kind: _row(row) for kind, row in result.items()} for result in results]
    answer: dict[str, Any] = {"Results": results, "Errors": [_shown(e) for e in errors] or None}
    headers: tuple[tuple[str, str], ...] = ()
    if given.read_only:
        contact, known = api.freshness.contact(request.consistency)
        answer |= api.meta(0, request, "")
        headers = (("X-Consul-Knownleader", str(known).lower()), ("X-Consul-Lastcontact", str(contact)))
    return json_reply(answer, pretty=request.pretty, status=409 if errors else 200, headers=headers)


async def _run(api: Api, request: Request, operations: tuple[TxnOp, ...], *, read_only: bool) -> list[dict[str, Any]]:
    if not read_only:
        results: list[dict[str, Any]] = await api.agent.apply(Txn(operations))
        return results
    await api.confirm(request)
    return txn.run(api.agent.store, operations)


def _require(request: Request, operation: TxnOp) -> None:
    access = READ if operation.verb in txn.READ_VERBS else WRITE
    match operation:
        case KVOp():
            request.require("key", operation.key, access)
        case NodeOp():
            request.require("node", operation.node.node, access)
        case ServiceOp():
            request.require("service", operation.service.service, access)
        case CheckOp():
            request.require("node", operation.check.node, access)
        case _:
            request.require("session", "", access)


def _row(row: Any) -> Any:
    """A row as transactions show it: a check's missing tags are null here, and an empty list everywhere else."""
    if isinstance(row, Check):
        row = msgspec.to_builtins(row)
    if isinstance(row, dict) and row.get("ServiceTags") in ((), []):
        return row | {"ServiceTags": None}
    return row


def _shown(error: TxnError) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(error)
    return shown
