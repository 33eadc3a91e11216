"""The checker finds what no order explains, and nothing else."""

import itertools
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from jepsen.checker import FOREVER, Operation, Recorder, Verdict, check, check_by_key, picture
from jepsen.checker.models import ILLEGAL, FencedLock, Lock, Model, Register, Set
from tests.jepsen.histories import drawn, lock, number_set, register

REGISTER = [
    (True, "[w1]      [r1]", "     [r1]     "),
    (False, "[w1]      [r1]", "     [r_]     "),
    (True, "[---w1---]", " [r_] [r1]"),
    (False, "[---w1---]", " [r1] [r_]"),
    (True, "[w1?", "      [r_]  [r1]  [r1]"),
    (True, "[w1?", "      [r_]  [r_]  [r_]"),
    (False, "[w1?", "      [r1]  [r_]"),
    (False, "[w1] [w1?", "      [w2]  [r2] [r1] [w2] [r2] [r1]"),
    (True, "[w1?[w1?", "      [w2]  [r2] [r1] [w2] [r2] [r1]"),
    (True, "[w1] [c12]", "           [r2]"),
    (False, "[w1] [c12]", "          [x23]"),
    (True, "[w1] [x32]", "          [r1]"),
    (True, "[w1] [c12?", "          [r1] [r2]"),
    (False, "[w1] [c12?", "          [r2] [r1]"),
    (False, "[w0] [c01] [r1]", "     [c02]     "),
]
SET = [
    (True, "[a0]    [r01] ", "   [a1]      "),
    (False, "[a0]    [r1]  ", "   [a1]      "),
    (True, "[a0?  [r] [r0]", "[a1?  [r] [r0]"),
    (False, "[a0?  [r0] ", "[a1?      [r1]"),
    (True, "[---a0---]", "[---a1---]", " [r1] "),
    (False, "[---a0---]", "[---a1---]", " [r1] ", "      [r0]"),
    (True, "[-----a0-----]", "[--a1--]", "[-----r0----]", "         [r01]"),
    (True, "[-----a0-----]", "[--a1--]", "[-----r0----]", "[---r01---]"),
    (False, "[-----a0-----]", "[--a1--]", "[-----r0----]", "[---r1---]"),
]
LOCK = [
    (True, "[a:x]     [r:x]", "     [a!y]      [a:y]"),
    (False, "[a:x]     [r:x]", "     [a:y]"),
    (True, "[a:x] [--r:x--]", "        [a:y]"),
    (True, "[a:x] [r:x?", "        [a!y] [a:y] [h:y]"),
    (False, "[a:x] [r:x?", "        [a:y] [h:x]"),
    (True, "[a:x] [a:x] [r:x]", "                 [h:]"),
    (False, "[r:x]"),
    (True, "[r!x]"),
]


@pytest.mark.parametrize(
    ("model", "read", "case"),
    [(Register, register, c) for c in REGISTER] + [(Set, number_set, c) for c in SET] + [(Lock, lock, c) for c in LOCK],
)
def test_a_drawn_history(model: Callable[[], Model], read: Any, case: tuple[Any, ...]) -> None:
    expected, *lines = case
    result = check(drawn(*lines, read=read), model())
    assert (result.verdict is Verdict.LINEARIZABLE) == expected, result


def fenced(*operations: tuple[Any, ...]) -> bool:
    """Whether operations one after another are linearizable; `...` as result stands for no answer."""
    history = []
    for number, (name, value, result) in enumerate(operations):
        returned = FOREVER if result is ... else 10 * number + 5
        history.append(Operation(number, name, value, None if result is ... else result, 10 * number, returned))
    return check(history, FencedLock()).verdict is Verdict.LINEARIZABLE


def test_a_fenced_lock() -> None:
    acquired = ("acquire", ("s1", "a"), True)
    seen = ("read", None, ("s1", 1, "a", 17))
    other = ("acquire", ("s2", "b"), True)
    assert fenced(("read", None, None), acquired, seen, seen)
    assert not fenced(acquired, seen, ("read", None, ("s1", 1, "a", 18))), "one version, two indexes"
    assert not fenced(acquired, seen, other), "held by another"
    assert fenced(acquired, seen, ("end", "s1", ...), other, ("read", None, ("s2", 2, "b", 30)))
    assert not fenced(acquired, ("end", "s1", ...), other, ("read", None, ("s2", 1, "b", 30))), "not counted"
    assert not fenced(acquired, seen, ("end", "s1", True), other, ("read", None, ("s2", 2, "b", 18))), "index too low"
    assert fenced(acquired, seen, ("end", "s1", True), other, ("read", None, ("s2", 2, "b", 19)))
    assert fenced(acquired, seen, ("write", (17, "c"), True), ("write", (17, "d"), False))
    assert not fenced(acquired, seen, ("write", (17, "c"), True), ("write", (17, "d"), True)), "not fenced off"
    assert not fenced(acquired, seen, ("end", "s1", True), ("write", (17, "d"), True)), "not fenced off"
    assert not fenced(acquired, seen, ("write", (17, "c"), False)), "refused for no reason"
    assert fenced(acquired, seen, ("write", (17, "c"), ...), ("read", None, ("s1", 0, "c", 18)))
    assert fenced(acquired, ("release", ("s1", "z"), True), ("read", None, (None, 1, "z", 9)), other)
    assert not fenced(acquired, ("release", ("s2", "z"), True))
    assert fenced(("write", (0, "c"), True), ("write", (0, "c"), False), ("read", None, (None, 0, "c", 4)))
    assert not fenced(acquired, ("read", None, None))


def by_brute_force(history: Sequence[Operation], model: Model) -> bool:
    """Whether any permutation of the history, with any of the unanswered operations, explains it."""
    known = [one for one in history if one.known]
    unknown = [one for one in history if not one.known]
    for count in range(len(unknown) + 1):
        for extra in itertools.combinations(unknown, count):
            for order in itertools.permutations([*known, *extra]):
                if any(b.returned < a.called for a, b in itertools.combinations(order, 2)):
                    continue
                state = model.initial
                for one in order:
                    state = model.step(state, one)
                    if state is ILLEGAL:
                        break
                else:
                    return True
    return False


def made_up(rng: random.Random, operation: Callable[[random.Random], tuple[str, Any, Any]]) -> list[Operation]:
    """A short random history: whatever it holds, it may or may not be linearizable."""
    history = []
    for process in range(3):
        at = rng.randrange(6)
        for _ in range(2):
            name, value, result = operation(rng)
            end = at + rng.randrange(1, 12)
            lost = rng.random() < 0.2
            history.append(Operation(process, name, value, None if lost else result, at, FOREVER if lost else end))
            if lost:
                break
            at = end + rng.randrange(1, 3)
    return history


def any_register(rng: random.Random) -> tuple[str, Any, Any]:
    value, new = rng.randrange(2), rng.randrange(2)
    return rng.choice(
        [
            ("write", value, True),
            ("read", None, value),
            ("read", None, None),
            ("cas", (value, new), rng.random() < 0.5),
            ("delete", None, True),
        ]
    )


def any_set(rng: random.Random) -> tuple[str, Any, Any]:
    seen = tuple(n for n in range(3) if rng.random() < 0.5)
    return rng.choice([("add", rng.randrange(3), True), ("read", None, seen)])


def any_lock(rng: random.Random) -> tuple[str, Any, Any]:
    who = rng.choice("xy")
    return rng.choice(
        [
            ("acquire", who, rng.random() < 0.7),
            ("release", who, rng.random() < 0.7),
            ("holder", None, rng.choice(["x", "y", None])),
        ]
    )


@pytest.mark.parametrize(("model", "operation"), [(Register, any_register), (Set, any_set), (Lock, any_lock)])
def test_it_agrees_with_trying_every_order(model: Callable[[], Model], operation: Any) -> None:
    rng = random.Random(7)
    counts = {True: 0, False: 0}
    for number in range(400):
        history = made_up(rng, operation)
        expected = by_brute_force(history, model())
        result = check(history, model())
        assert (result.verdict is Verdict.LINEARIZABLE) == expected, f"history {number}: {history}"
        counts[expected] += 1
    assert min(counts.values()) > 20, f"both kinds were tried: {counts}"


def simulated(rng: random.Random, clients: int, count: int, lost: float) -> list[Operation]:
    """A long register history that is linearizable by its making: each operation takes effect within its span."""
    clock = 0
    recorder = Recorder(lambda: clock)
    state: Any = None
    open_: dict[int, list[Any]] = {}  # process: number, name, value, has taken effect, result
    next_process = clients
    idle = list(range(clients))
    while count or open_:
        clock += 1
        if count and idle and rng.random() < 0.5:
            process = idle.pop()
            name = rng.choice(["read", "write", "cas"])
            value = {"read": None, "write": rng.randrange(5), "cas": (rng.randrange(5), rng.randrange(5))}[name]
            open_[process] = [recorder.call(process, name, value), name, value, False, None]
            count -= 1
        elif open_:
            process = rng.choice(list(open_))
            number, name, value, done, result = one = open_[process]
            if not done:
                one[3] = True
                one[4] = state if name == "read" else True
                if name == "write":
                    state = value
                elif name == "cas":
                    one[4] = state == value[0]
                    state = value[1] if one[4] else state
            elif rng.random() < lost:
                del open_[process]
                idle.append(next_process)
                next_process += 1
            else:
                recorder.answer(number, result)
                del open_[process]
                idle.append(process)
    return recorder.history()


def test_long_histories_with_many_lost_answers_are_decided_quickly() -> None:
    rng = random.Random(3)
    for clients, count, lost in ((5, 5000, 0.0), (10, 2000, 0.0), (8, 1000, 0.03)):
        history = simulated(rng, clients, count, lost)
        started = time.monotonic()
        result = check(history, Register())
        assert result.verdict is Verdict.LINEARIZABLE, result
        assert time.monotonic() - started < 30, f"{clients} clients, {count} operations"


def test_the_order_that_is_reported_explains_the_history() -> None:
    history = simulated(random.Random(5), 6, 500, 0.02)
    order = check(history, Register()).order
    assert {id(one) for one in history if one.known} <= {id(one) for one in order}
    state = Register().initial
    for one in order:
        state = Register().step(state, one)
        assert state is not ILLEGAL
    for before, after in itertools.pairwise(order):
        assert before.called <= after.returned


def test_a_stale_read_in_a_long_history_is_found_where_it_is() -> None:
    history = simulated(random.Random(11), 5, 600, 0.0)
    end = max(one.returned for one in history)
    history.append(Operation(0, "write", 9, True, end + 1, end + 2))
    history.append(Operation(1, "read", None, 9, end + 3, end + 4))
    stale = Operation(2, "read", None, 3, end + 5, end + 6)
    history += [stale, Operation(3, "read", None, 9, end + 7, end + 8)]
    result = check(history, Register())
    assert result.verdict is Verdict.NOT_LINEARIZABLE
    assert result.culprit is stale
    assert result.states == (9,)
    assert len(result.order) == 602
    assert "read() → 3 of process 2" in str(result)


def test_too_large_a_search_is_given_up_and_says_so() -> None:
    history = [Operation(n, "write", n, True, 0, 1000 + n) for n in range(12)]
    history.append(Operation(99, "read", None, 99, 1, 999))
    assert check(history, Register(), limit=500).verdict is Verdict.UNDECIDED


def test_keys_are_objects_of_their_own() -> None:
    history = [
        Operation(0, "write", 1, True, 0, 1, "a"),
        Operation(0, "read", None, None, 2, 3, "b"),
        Operation(0, "read", None, 2, 4, 5, "a"),
    ]
    results = check_by_key(history, Register())
    assert [(one.key, one.verdict) for one in results] == [
        ("a", Verdict.NOT_LINEARIZABLE),
        ("b", Verdict.LINEARIZABLE),
    ]


def test_an_operation_that_the_model_does_not_know_is_an_error() -> None:
    with pytest.raises(ValueError, match="a register has no operation 'push'"):
        check([Operation(0, "push", 1, True, 0, 1)], Register())


def test_a_recorder_keeps_what_was_answered_what_was_not_and_not_what_had_no_effect() -> None:
    times = iter(range(100))
    recorder = Recorder(lambda: next(times))
    first = recorder.call(1, "write", 5)
    second = recorder.call(2, "write", 6)
    recorder.call(3, "write", 7)
    recorder.forget(second)
    recorder.answer(first, True)
    answered, lost = recorder.history()
    assert (answered.value, answered.called, answered.returned, answered.known) == (5, 0, 3, True)
    assert (lost.value, lost.called, lost.known) == (7, 2, False)


def test_the_picture_of_a_failure_is_one_file_that_shows_it(tmp_path: Path) -> None:
    result = check(drawn("[w1]      [r1]", "[w2?      ", "     [r_] ", read=register), Register())
    file = tmp_path / "failure.html"
    picture.save(result, Register(), file)
    page = file.read_text()
    assert "not linearizable" in page
    assert "src=" not in page and "href=" not in page, "it needs nothing else"
    drawing = ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + 6])
    space = "{http://www.w3.org/2000/svg}"
    looks = [group.get("class") for group in drawing.iter(f"{space}g")]
    assert sorted(filter(None, looks)) == ["op", "op culprit", "op later", "op unknown"]
    assert any("state is 1" in (title.text or "") for title in drawing.iter(f"{space}title"))


def test_the_picture_of_a_long_history_is_cut_to_the_place(tmp_path: Path) -> None:
    history = simulated(random.Random(11), 5, 800, 0.01)
    end = max(one.returned for one in history if one.known)
    history.append(Operation(2, "read", None, 77, end + 5, end + 6))
    result = check(history, Register())
    assert result.verdict is Verdict.NOT_LINEARIZABLE
    page = picture.html(result, Register())
    assert len(page) < 200_000
    assert "read() → 77" in page
