"""Errors on the wire: the name of a class of `lictor.model.errors`, and the text.

Only classes of that module come back as what they were; any other name, from a newer version or a stranger, is a plain
`LictorError`.
"""

from lictor.model import errors
from lictor.model.errors import LictorError
from lictor.rpc import frame

_MAX_TEXT = 64 * 1024  # characters

_KNOWN: dict[str, type[LictorError]] = {
    name: found for name, found in vars(errors).items() if isinstance(found, type) and issubclass(found, LictorError)
}


def encode_error(number: int, error: LictorError) -> bytes:
    """The frame that fails a call or stream with an error: as its class, or the nearest that is known, says it."""
    name = next(base.__name__ for base in type(error).__mro__ if _KNOWN.get(base.__name__) is base)
    return frame.encode(frame.ERROR, number, name, str(error)[:_MAX_TEXT].encode(errors="replace"))


def decode_error(name: str, text: bytes) -> LictorError:
    """The error of a frame."""
    known = _KNOWN.get(name, LictorError)
    # The classes' constructors differ; what they keep is the text.
    return known.__new__(known, text.decode(errors="replace"))
