"""Keyring operations, done on every node of the pool by a query, and the count of how they went."""

from __future__ import annotations

import enum

import msgspec

from lictor.gossip import codec
from lictor.gossip.codec import WireError
from lictor.gossip.keyring import Keyring, KeyringError, encode_key
from lictor.gossip.queries import PendingQuery
from lictor.gossip.serf_messages import KeyRequest, KeyResponse, SerfKind, encode

INTERNAL = "_serf_"


class KeyOperation(enum.Enum):
    """A keyring operation; the value is its query's name."""

    INSTALL = INTERNAL + "install-key"
    USE = INTERNAL + "use-key"
    REMOVE = INTERNAL + "remove-key"
    LIST = INTERNAL + "list-keys"


def request(key: bytes) -> bytes:
    """The payload of the query for an operation on a key."""
    return encode(SerfKind.KEY_REQUEST, KeyRequest(key))


def perform(operation: KeyOperation, payload: bytes, keyring: Keyring) -> KeyResponse:
    """Does the operation on this node's keyring."""
    if keyring.primary is None:
        what = "Keyring is empty" if operation is KeyOperation.LIST else "No keyring to modify"
        return KeyResponse(False, f"{what} (encryption not enabled)")
    if operation is KeyOperation.LIST:
        keys = tuple(encode_key(k) for k in keyring.keys)
        return KeyResponse(True, keys=keys, primary_key=encode_key(keyring.primary))
    try:
        key = codec.unpack(KeyRequest, payload[1:]).key
        match operation:
            case KeyOperation.INSTALL:
                keyring.install(key)
            case KeyOperation.USE:
                keyring.use(key)
            case KeyOperation.REMOVE:
                keyring.remove(key)
    except (WireError, KeyringError) as error:
        return KeyResponse(False, str(error))
    return KeyResponse(True)


def answer(response: KeyResponse, room: int) -> bytes:
    """A response of at most `room` bytes; of too many keys the first are told, with a word about it."""
    total = len(response.keys)
    told = response
    for count in range(total, -1, -1):
        if count < total:
            message = f"truncated key list response, showing first {count} of {total} keys"
            told = msgspec.structs.replace(response, keys=response.keys[:count], message=message)
        encoded = encode(SerfKind.KEY_RESPONSE, told)
        if len(encoded) <= room:
            return encoded
    return encode(SerfKind.KEY_RESPONSE, KeyResponse(False, "response does not fit its limit"))


class KeyResult(msgspec.Struct, frozen=True):
    """How an operation went in the whole pool: messages by node, and on how many nodes each key is (the primary)."""

    messages: dict[str, str]
    nodes: int
    responses: int
    errors: int
    keys: dict[str, int]
    primary_keys: dict[str, int]


def result(pending: PendingQuery, nodes: int) -> KeyResult:
    """Counts the answers; `nodes` are the members that could have answered."""
    messages: dict[str, str] = {}
    keys: dict[str, int] = {}
    primaries: dict[str, int] = {}
    errors = 0
    for name, payload in pending.responses.items():
        try:
            if payload[:1] != bytes((SerfKind.KEY_RESPONSE,)):
                raise WireError("Invalid key query response type")
            response = codec.unpack(KeyResponse, payload[1:])
        except WireError as error:
            messages[name] = f"Failed to decode key query response: {error}"
            errors += 1
            continue
        errors += not response.result
        if response.message or not response.result:
            messages[name] = response.message
        for key in response.keys:
            keys[key] = keys.get(key, 0) + 1
        if response.primary_key:
            primaries[response.primary_key] = primaries.get(response.primary_key, 0) + 1
    return KeyResult(messages, nodes, len(pending.responses), errors, keys, primaries)
