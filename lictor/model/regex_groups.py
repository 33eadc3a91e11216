"""Regular expressions whose groups are wanted: what `${match(N)}` of a prepared query template shows.

The syntax is that of `regex_syntax`; the program gets marks where groups begin and end, and is run by Pike's machine: a
list of threads in order of preference, each with the places it has marked. So the leftmost match is found, and among
those the one that a backtracking engine would prefer, in time (length of the text) x (size of the program). It is
slower than `regex.Regex`, which only says whether there is a match.
"""

from __future__ import annotations

from lictor.model.regex_syntax import (
    EDGE,
    MAX_PATTERN,
    Compiler,
    Fork,
    Instruction,
    Look,
    Match,
    Read,
    RegexError,
    _Flags,
    kind_of,
)

__all__ = ["GroupRegex", "RegexError"]

Places = tuple[int, ...]
"""Where in the text each mark was met, by slot: 2n where group n begins, 2n + 1 where it ends; -1: not met."""


class _Mark(Look):
    """Notes the place in the text under `slot`."""

    slot: int


def _mark(slot: int) -> _Mark:
    mark = _Mark(lambda before, after: True)
    mark.slot = slot
    return mark


class _GroupCompiler(Compiler):
    """The compiler of `regex_syntax` that also marks groups, and keeps to the preference of lazy repetitions."""

    def __init__(self, pattern: str) -> None:
        super().__init__(pattern)
        self.groups = 0
        self._capturing = False
        self._lazy = False

    def atom(self, flags: _Flags) -> list[Instruction]:
        self._capturing = self.pattern[self.at] == "("
        return super().atom(flags)

    def flag_group(self, flags: _Flags) -> tuple[list[Instruction], _Flags, bool]:
        self._capturing = self.pattern.startswith(("(?P<", "(?<"), self.at)
        return super().flag_group(flags)

    def group_body(self, flags: _Flags) -> list[Instruction]:
        if not self._capturing:
            return super().group_body(flags)
        self._capturing = False
        self.groups += 1
        slot = 2 * self.groups
        return [_mark(slot), *super().group_body(flags), _mark(slot + 1)]

    def take(self, text: str) -> bool:
        taken = super().take(text)
        self._lazy = taken and text == "?"  # what a repetition asks for last, before it is written out
        return taken

    def repeated(self, piece: list[Instruction], least: int, most: int | None) -> list[Instruction]:
        lazy = self._lazy
        code = super().repeated(piece, least, most)
        if not lazy:
            return code
        inner = {id(instruction) for instruction in piece}
        return [
            Fork(instruction.targets[::-1])
            if isinstance(instruction, Fork) and id(instruction) not in inner
            else instruction
            for instruction in code
        ]


class GroupRegex:
    """A compiled pattern. Raises RegexError when `pattern` is not in RE2's language or is over a limit."""

    def __init__(self, pattern: str) -> None:
        if len(pattern) > MAX_PATTERN:
            raise RegexError(f"expression is too large: {len(pattern)} characters, at most {MAX_PATTERN} are allowed")
        compiler = _GroupCompiler(pattern)
        self._program = compiler.compile()
        self._slots = 2 * compiler.groups + 2

    def groups(self, text: str) -> list[str]:
        """The text of the whole match and of each group ("" for one that took no part); empty without a match."""
        found = self._run(text)
        if found is None:
            return []
        return [text[found[slot] : found[slot + 1]] if found[slot] >= 0 else "" for slot in range(0, self._slots, 2)]

    def _run(self, text: str) -> Places | None:
        program = self._program
        best: Places | None = None
        threads: list[tuple[int, Places]] = []
        before = EDGE
        for at in range(len(text) + 1):
            after = kind_of(text[at]) if at < len(text) else EDGE
            if best is None:
                threads.append((0, (at, *(-1,) * (self._slots - 1))))
            elif not threads:
                break
            reading, matched = self._advance(threads, at, before, after)
            if matched is not None:
                best = matched
            if at < len(text):
                threads = []
                for place, marks in reading:
                    instruction = program[place]
                    if isinstance(instruction, Read) and instruction.accepts(text[at]):
                        threads.append((place + 1, marks))
            before = after
        return best

    def _advance(
        self, threads: list[tuple[int, Places]], at: int, before: int, after: int
    ) -> tuple[list[tuple[int, Places]], Places | None]:
        """Lets every thread go on without reading. Returns those that then want to read, and the match of the first
        that has matched; threads that come after it are dropped.
        """
        reading: list[tuple[int, Places]] = []
        seen: set[int] = set()
        waiting = threads[::-1]
        while waiting:
            place, marks = waiting.pop()
            if place in seen:
                continue
            seen.add(place)
            instruction = self._program[place]
            if isinstance(instruction, Match):
                return reading, (marks[0], at, *marks[2:])
            if isinstance(instruction, Read):
                reading.append((place, marks))
            elif isinstance(instruction, Fork):
                waiting.extend((place + offset, marks) for offset in reversed(instruction.targets))
            elif isinstance(instruction, _Mark):
                slot = instruction.slot
                waiting.append((place + 1, (*marks[:slot], at, *marks[slot + 1 :])))
            elif instruction.holds(before, after):
                waiting.append((place + 1, marks))
        return reading, None
