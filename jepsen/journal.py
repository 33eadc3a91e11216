"""The history of a run as a file: JSON lines, which hold all that a verdict and a report need.

The first line is the `Head`. Then come, as they end, `Op`s (what a client asked and was told), `Fault`s (what was done
to the servers, and when it was undone) and `Remark`s (what happened by itself). All times are microseconds since the
run began.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TextIO

import msgspec

from jepsen.checker import FOREVER, Operation

SECOND: Final = 1_000_000

OK: Final = "ok"  # answered
FAIL: Final = "fail"  # refused, as a compare-and-set that did not match; that is an answer too
INFO: Final = "info"  # no answer: it may take effect at any time, or never
NONE: Final = "none"  # certainly without effect, and it told nothing


class Head(msgspec.Struct, frozen=True, tag="head", omit_defaults=True):
    """What was run. `began` is the Unix time."""

    workload: str
    program: str
    nemesis: str
    servers: int
    seconds: float
    seed: int
    began: float
    clients: int = 0
    multiplier: int = 1


class Op(msgspec.Struct, frozen=True, tag="op", omit_defaults=True):
    """One request. `how` tells variants of an operation apart. `again` is True of the repetition of one that failed,
    False of one that is repeated if it fails, and None of one that never is.
    """

    process: int
    name: str
    called: int
    returned: int
    end: str
    server: str
    key: str = ""
    value: Any = None
    result: Any = None
    how: str = ""
    error: str = ""
    again: bool | None = None


class Fault(msgspec.Struct, frozen=True, tag="fault", omit_defaults=True):
    """What was done to the servers: it began, had struck, and was undone again."""

    name: str
    servers: tuple[str, ...]
    began: int
    struck: int
    ended: int
    note: str = ""


class Remark(msgspec.Struct, frozen=True, tag="remark"):
    """Something that happened at a time. `kind`: `phase` of the run, `start` of a server, `leader`, `accident`."""

    at: int
    kind: str
    text: str


Entry = Head | Op | Fault | Remark


class History(msgspec.Struct, frozen=True):
    """A file of entries, sorted."""

    head: Head
    ops: tuple[Op, ...]
    faults: tuple[Fault, ...]
    remarks: tuple[Remark, ...]

    def phase(self, name: str) -> int:
        """When a phase began: `load`, `healed` or `settled`. Forever, if it never did."""
        return next((one.at for one in self.remarks if one.kind == "phase" and one.text == name), FOREVER)


def operations(ops: Iterable[Op]) -> list[Operation]:
    """What the checker judges: all but those that had no effect."""
    return [
        Operation(
            op.process, op.name, op.value, op.result, op.called, op.returned if op.end != INFO else FOREVER, op.key
        )
        for op in ops
        if op.end != NONE
    ]


class Journal:
    """Writes a history while it happens. `clock` gives microseconds since the run began."""

    def __init__(self, path: Path, head: Head, clock: Callable[[], int]) -> None:
        self.now = clock
        self._file: TextIO = path.open("w", encoding="utf-8")
        self._encode = msgspec.json.Encoder().encode
        self.write(head)

    def write(self, entry: Entry) -> None:
        """Add an entry."""
        self._file.write(self._encode(entry).decode() + "\n")

    def remark(self, kind: str, text: str) -> None:
        """Something has happened just now."""
        self.write(Remark(self.now(), kind, text))
        self._file.flush()

    def close(self) -> None:
        """Write what is still held back."""
        self._file.close()


def read(path: Path) -> History:
    """A history from its file. Raises `ValueError` with the line that cannot be read, and `OSError`."""
    head: Head | None = None
    ops: list[Op] = []
    faults: list[Fault] = []
    remarks: list[Remark] = []
    for entry in _entries(path):
        match entry:
            case Head():
                head = entry
            case Op():
                ops.append(entry)
            case Fault():
                faults.append(entry)
            case Remark():
                remarks.append(entry)
    if head is None:
        raise ValueError(f"{path}: no line tells what was run; the first should")
    ops.sort(key=lambda one: one.called)
    faults.sort(key=lambda one: one.began)
    return History(head, tuple(ops), tuple(faults), tuple(remarks))


def _entries(path: Path) -> Iterator[Entry]:
    decode = msgspec.json.Decoder(Entry).decode
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                entry = decode(line)
            except msgspec.DecodeError as error:
                raise ValueError(f"{path}:{number}: {error}") from None
            if isinstance(entry, Op):
                entry = msgspec.structs.replace(entry, value=_hashable(entry.value), result=_hashable(entry.result))
            yield entry


def _hashable(value: Any) -> Any:
    return tuple(_hashable(one) for one in value) if isinstance(value, list) else value
