"""The files on quorums and on changes of membership: arithmetic, without any server."""

from lictor.raft.core.membership import (
    ChangeRefused,
    Membership,
    MembershipChange,
    Transition,
    changed,
    leave_joint,
    simple,
)
from lictor.raft.core.message import NO_LIMIT
from lictor.raft.core.quorum import UNBOUNDED, Outcome, Quorum, majority_index
from lictor.raft.core.tracker import Tracker
from tests.raft.conformance import describe, wording
from tests.raft.conformance.datadriven import Command


class ConfigurationPlayer:
    """Changes one membership, a command at a time."""

    def __init__(self) -> None:
        self._tracker = Tracker(10, NO_LIMIT)
        self._last_index = 0  # grows with every command, so that `next` shows when a server came in

    def run(self, command: Command) -> str:
        """Do what a command says. Returns what it prints."""
        try:
            self._tracker.adopt(self._changed(self._tracker.membership, command), self._last_index)
        except ChangeRefused as error:
            return wording.error(error) + "\n"
        finally:
            self._last_index += 1
        return f"{describe.membership(self._tracker.membership)}\n{describe.progress_map(self._tracker.progress)}"

    @staticmethod
    def _changed(membership: Membership, command: Command) -> Membership:
        changes = describe.parse_changes(command.input)
        if command.name == "simple":
            return simple(membership, changes)
        if command.name == "leave-joint":
            return leave_joint(membership)
        automatic = command.value("autoleave") == "true"
        return changed(membership, MembershipChange(changes, Transition.IMPLICIT if automatic else Transition.EXPLICIT))


def play_quorum(command: Command) -> str:
    """The printed result of `committed` or `vote`, with the checks that hold for every one of them."""
    incoming = frozenset(map(int, command.values("cfg")))
    joint = command.values("cfgj")
    outgoing = frozenset(int(node) for node in joint if node != "zero")
    order = list(dict.fromkeys(map(int, (*command.values("cfg"), *(node for node in joint if node != "zero")))))
    given = command.values("votes" if command.name == "vote" else "idx")
    if len(given) != len(order):
        raise ValueError(f"line {command.line}: {len(given)} values for {len(order)} voters")
    known = {node: value for node, value in zip(order, given, strict=True) if value != "_"}
    quorum = Quorum(incoming, outgoing)
    swapped = Quorum(outgoing, incoming)
    if command.name == "vote":
        votes = {node: value == "y" for node, value in known.items()}
        outcome = quorum.outcome(votes)
        _same(outcome, swapped.outcome(votes))
        return describe.OUTCOMES[outcome] + "\n"
    indexes = {node: int(value) for node, value in known.items()}
    index = _committed(quorum, indexes)
    _same(index, _committed(swapped, indexes))
    if not joint:
        _check_majority(incoming, indexes, index)
    return _chart(quorum.voters, indexes) + ("∞" if index == UNBOUNDED else str(index)) + "\n"


def _committed(quorum: Quorum, indexes: dict[int, int]) -> int:
    return quorum.committed_index(lambda node: indexes.get(node, 0))


def _check_majority(voters: frozenset[int], indexes: dict[int, int], index: int) -> None:
    _same(index, majority_index(voters, lambda node: indexes.get(node, 0)))
    _same(index, _committed(Quorum(voters, voters), indexes))
    if voters:
        reached = [at for at in indexes.values() if 2 * sum(one >= at for one in indexes.values()) > len(voters)]
        _same(index, max(reached, default=0))
    for node, at in indexes.items():
        if at < index:  # whoever lags behind the committed index may lag further
            _same(index, _committed(Quorum(voters), {**indexes, node: at - 1}))
            _same(index, _committed(Quorum(voters), {**indexes, node: 0}))


def _same(expected: int | Outcome, found: int | Outcome) -> None:
    if expected != found:
        raise AssertionError(f"{found} by another way to compute {expected}")


def _chart(voters: frozenset[int], indexes: dict[int, int]) -> str:
    """A bar for every voter, as long as the number of those below it."""
    if not voters:
        return "<empty majority quorum>"
    count = len(voters)
    lines = [" " * count + "    idx\n"]
    for node in sorted(voters):
        index = indexes.get(node, 0)
        below = sum(indexes.get(other, 0) < index for other in voters)
        bar = "x" * below + ">" + " " * (count - below) if node in indexes else "?" + " " * count
        lines.append(f"{bar} {index:5d}    (id={node:x})\n")
    return "".join(lines)
