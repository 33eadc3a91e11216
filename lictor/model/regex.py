"""Regular expressions in RE2's language, matched in linear time.

Filters, intentions and routers take patterns from the network. Consul and Envoy give these to RE2, which has no
back-references and no look-around, and never takes more time than (length of the text) x (size of the pattern). The
`re` of the standard library has neither property: `(a+)+$` against forty characters would stop an agent for hours.
So patterns have their own small engine here.

How it works: a recursive-descent parser (the syntax is that of https://github.com/google/re2/wiki/Syntax) compiles the
pattern straight into a program of four instructions (Thompson's construction); the program is run as a deterministic
automaton whose states are computed when a text first reaches them and then remembered, so a text costs one dictionary
lookup a character. Only the question "does it occur in the text?" is answered: no groups, no positions. That is what
makes one set of program positions enough.

Where this differs from RE2: Unicode scripts (`\\p{Greek}`) are refused, Unicode categories (`\\pL`, `\\p{Lu}`) are not;
`(?U)` is accepted and, as laziness cannot change whether there is a match, means nothing.
"""

from __future__ import annotations

from lictor.model.errors import InvalidRequest
from lictor.model.regex_syntax import EDGE, MAX_PATTERN, Compiler, Fork, Match, Predicate, Read, RegexError, kind_of

__all__ = ["MAX_PATTERN", "Regex", "RegexError", "TooCostly"]

# Linear is not cheap: a pattern of thousands of instructions over thousands of texts that lead it to ever new states
# would hold up an agent for minutes. What computing states costs (instructions looked at) is counted; each character of
# a text earns some back, so that no pattern that finds its states again ever reaches the bound.
_MAX_COST = 2_000_000
_EARNED = 10
_MAX_REMEMBERED = 100_000  # places and transitions of remembered states; past this all are forgotten and built anew


class _State:
    """One state of the automaton: where the program may stand, and what was just read. Filled in as texts pass."""

    __slots__ = ("before", "following", "places", "unmatched_at_end")

    def __init__(self, places: frozenset[int], before: int) -> None:
        self.places = places
        self.before = before
        self.following: dict[str, _State | None] = {}  # None: the pattern has occurred
        self.unmatched_at_end: bool | None = None


class TooCostly(InvalidRequest):
    """A pattern that leads to ever new states on the texts that it is given."""


class Regex:
    """A compiled pattern. Raises RegexError when `pattern` is not in RE2's language or is over a limit."""

    def __init__(self, pattern: str) -> None:
        if len(pattern) > MAX_PATTERN:
            raise RegexError(f"expression is too large: {len(pattern)} characters, at most {MAX_PATTERN} are allowed")
        self.pattern = pattern
        self._program = Compiler(pattern).compile()
        self._states: dict[tuple[frozenset[int], int], _State] = {}
        self._remembered = 0
        self._cost = 0
        self._start = self._state(frozenset((0,)), EDGE)

    def search(self, text: str) -> bool:
        """Whether the pattern occurs anywhere in `text`. Takes time linear in its length. Raises `TooCostly`."""
        if self._cost:
            self._cost = max(0, self._cost - _EARNED * len(text))
        state = self._start
        for char in text:
            try:
                following = state.following[char]
            except KeyError:
                following = self._step(state, char)
            if following is None:
                return True
            state = following
        if state.unmatched_at_end is None:
            state.unmatched_at_end = self._reachable(state.places, state.before, EDGE) is not None
        return not state.unmatched_at_end

    def _state(self, places: frozenset[int], before: int) -> _State:
        state = self._states.get((places, before))
        if state is None:
            state = self._states[places, before] = _State(places, before)
            self._remembered += len(places) + 1
        return state

    def _step(self, state: _State, char: str) -> _State | None:
        if self._cost > _MAX_COST:
            self._cost = 0
            raise TooCostly("the regular expression has too many ways to match: repeat smaller parts, or fewer times")
        if self._remembered > _MAX_REMEMBERED:
            for old in self._states.values():
                old.following.clear()
            self._states.clear()
            self._remembered = 0
            self._start = self._state(frozenset((0,)), EDGE)
        after = kind_of(char)
        reachable = self._reachable(state.places, state.before, after)
        following = None
        if reachable is not None:
            # Index 0 is always added: the occurrence may begin at any character.
            places = {place + 1 for place, accepts in reachable if accepts(char)} | {0}
            following = self._state(frozenset(places), after)
        state.following[char] = following
        self._remembered += 1
        return following

    def _reachable(self, places: frozenset[int], before: int, after: int) -> list[tuple[int, Predicate]] | None:
        """The reading instructions that `places` lead to without reading, or None when they lead to a match."""
        reading = []
        seen = set(places)
        waiting = list(places)
        while waiting:
            place = waiting.pop()
            instruction = self._program[place]
            self._cost += 1
            targets: list[int] = []
            if isinstance(instruction, Match):
                return None
            if isinstance(instruction, Read):
                reading.append((place, instruction.accepts))
            elif isinstance(instruction, Fork):
                targets = [place + offset for offset in instruction.targets]
            elif instruction.holds(before, after):
                targets = [place + 1]
            for target in targets:
                if target not in seen:
                    seen.add(target)
                    waiting.append(target)
        return reading
