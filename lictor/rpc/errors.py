"""Errors on the wire: the name of a class of `lictor.model.errors`, and the text.

Only classes of that module come back as what they were; any other name, from a newer version or a stranger, is a plain
`LictorError`.
"""

from lictor.model import errors
from lictor.model.errors import LictorError

_MAX_TEXT = 64 * 1024  # characters

_KNOWN: dict[str, type[LictorError]] = {
    name: found for name, found in vars(errors).items() if isinstance(found, type) and issubclass(found, LictorError)
}


def encode_error(error: LictorError) -> tuple[str, bytes]:
    """An error's class, or the nearest to it that is known everywhere, and its text."""
    name = next(base.__name__ for base in type(error).__mro__ if _KNOWN.get(base.__name__) is base)
    return name, str(error)[:_MAX_TEXT].encode(errors="replace")


def decode_error(name: str, text: bytes) -> LictorError:
    """The error that they stand for."""
    known = _KNOWN.get(name, LictorError)
    # The classes' constructors differ; what they keep is the text.
    return known.__new__(known, text.decode(errors="replace"))
