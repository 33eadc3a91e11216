"""Writes that may come twice: each counts once, and the repetition gets what the first one got.

A client agent does not know whether a server that went away has passed its write on; it sends it again, perhaps through
another server. So it numbers its writes (`Numbered`): `origin` is a random number of this run of the agent, `low` says
that it waits for no answer below it any more. The answers that may still be asked for are part of the replicated state,
and what is dropped is a function of the log alone:

- what is below an origin's `low`, and the lower half of more than `WAITING` answers of one origin;
- an origin that was silent for `SILENCE`, by the proposers' clock, when another one is heard;
- the longest silent origins beyond `ORIGINS` of them, or beyond `ANSWERS` answers in all.

A write under a number that is below what its origin has settled is refused: it may have taken effect before.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from lictor.model.command import Numbered, Plain
from lictor.model.errors import LictorError, Refused
from lictor.store.numbered_results import decode_result, encode_result
from lictor.store.store import NumberedAnswer, NumberedOrigin, Store

ORIGINS = 16_384
ANSWERS = 65_536
WAITING = 1024  # answers of one origin
SILENCE = 600.0  # seconds
ANSWER_BYTES = 16 * 1024  # a longer answer is not kept
NOTED = 60.0  # seconds: how exactly it is known when an origin was last heard
_AT_ONCE = 16  # silent origins that one command drops


def apply_once(store: Store, command: Numbered, carry_out: Callable[[Store, Plain], Any]) -> Any:
    """Have a command carried out, or return or raise what it came to when it was.

    `carry_out` leaves the store as it was where it raises. Raises `Refused` for a number that is settled.
    """
    known = _origin(store, command.origin)
    kept = store.numbered_answers.get((command.origin, command.number))
    if kept is not None:
        result = decode_result(kept.result)
        if isinstance(result, LictorError):
            raise result
        return result
    if known is not None and command.number < known.low:
        raise Refused("this write was sent again after its sender had given it up: whether it took effect is not known")
    try:
        result = carry_out(store, command.command)
    except Exception as error:
        known_error = isinstance(error, LictorError)
        _keep(
            store, command, error if known_error else LictorError("Internal Server Error: the servers' logs say more")
        )
        raise
    _keep(store, command, result)
    return result


def _origin(store: Store, origin: int) -> NumberedOrigin | None:
    return next(iter(store.numbered_origins.by("origin", origin).values()), None)


def _keep(store: Store, command: Numbered, result: Any) -> None:
    data = encode_result(result)
    if len(data) > ANSWER_BYTES:
        data = encode_result(
            LictorError("the write was carried out; its answer was too long to be kept for a repetition")
        )
    store.numbered_answers.put(NumberedAnswer(command.origin, command.number, data))
    _hear(store, command.origin, command.low)
    _forget_silent(store)


def _hear(store: Store, origin: int, low: int) -> None:
    """Note that an origin was heard, and drop what it has settled."""
    known = _origin(store, origin)
    answers = store.numbered_answers.by("origin", origin)
    settled = max(low, known.low if known is not None else 0)
    if len(answers) > WAITING:
        numbers = sorted(number for _, number in answers)
        settled = max(settled, numbers[len(numbers) // 2])
    before = known.low if known is not None else 0
    if settled > before:
        for key in [key for key in answers if key[1] < settled]:
            store.numbered_answers.delete(key)
    if known is None or store.now - known.heard >= NOTED or _crowded(store):
        if known is not None:
            store.numbered_origins.delete((known.at, origin))
        store.numbered_origins.put(NumberedOrigin(store.index, origin, store.now, settled))
    elif settled > before:
        store.numbered_origins.put(msgspec.structs.replace(known, low=settled))


def _crowded(store: Store) -> bool:
    return len(store.numbered_origins) > ORIGINS or len(store.numbered_answers) > ANSWERS


def _forget_silent(store: Store) -> None:
    origins, answers = store.numbered_origins, store.numbered_answers
    for _ in range(_AT_ONCE):
        oldest = origins.get(next(iter(origins.rows.keys_from((0, 0)))))
        assert oldest is not None
        if len(origins) == 1 or not (_crowded(store) or oldest.heard < store.now - SILENCE):
            return
        for key in list(answers.by("origin", oldest.origin)):
            answers.delete(key)
        origins.delete((oldest.at, oldest.origin))
