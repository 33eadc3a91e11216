"""What a command came to, as bytes: its result, or the error that it failed with.

Servers keep these for the repetition of a client agent's write, and send them to it. A result that is a record comes
back as a dict with the keys of its JSON: what the API shows of it is the same.
"""

from typing import Any

import msgspec

from lictor.model.errors import LictorError
from lictor.rpc.errors import decode_error, encode_error
from lictor.store.txn import TxnError, TxnFailed


class _Outcome(msgspec.Struct, frozen=True, array_like=True):
    """`error` names a class of `lictor.model.errors` and is empty for success; `failed` is that of `TxnFailed`."""

    result: Any = None
    error: str = ""
    text: bytes = b""
    failed: tuple[tuple[int, str], ...] = ()


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Outcome).decode


def encode_result(result: Any) -> bytes:
    """A command's result, or the `LictorError` that it failed with."""
    if isinstance(result, TxnFailed):
        return _encode(_Outcome(error="TxnFailed", failed=tuple((e.op_index, e.what) for e in result.errors)))
    if isinstance(result, LictorError):
        name, text = encode_error(result)
        return _encode(_Outcome(error=name, text=text))
    return _encode(_Outcome(result))


def decode_result(data: bytes) -> Any:
    """The result, or the `LictorError`; it is returned, not raised. Raises `transport.UNREADABLE`."""
    outcome = _decode(data)
    if outcome.failed:
        return TxnFailed([TxnError(index, what) for index, what in outcome.failed])
    if outcome.error:
        return decode_error(outcome.error, outcome.text)
    return outcome.result
