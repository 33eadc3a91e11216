"""What a server without a cluster decides, and that no schedule of messages and crashes makes two clusters of one
server.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import msgspec
import pytest

from lictor.raft.consensus import ServerRecord
from lictor.server.formation_plan import (
    RANK_PATIENCE,
    Own,
    Plan,
    Promise,
    Sight,
    Standing,
    Step,
    plan_blank,
    refuse_promise,
)
from lictor.server.hello import Hello


def record(name: str) -> ServerRecord:
    return ServerRecord(f"id-{name}", name, f"{name}:8300", ord(name[0]))


def hello(name: str, **changes: object) -> Hello:
    me = record(name)
    plain = Hello(me.id, me.node, me.address, "dc1", me.number, blank=True, expect=3)
    return msgspec.structs.replace(plain, **changes)


def sight(name: str, **changes: object) -> Sight:
    said = hello(name, **changes)
    return Sight(said, f"{name}:8300", 10.0)


def own(name: str = "a", **changes: object) -> Own:
    return msgspec.structs.replace(Own(record(name), "dc1", expect=3), **changes)


def plan(*sights: Sight, me: Own | None = None, standing: Standing = Standing(), **more: object) -> Plan:  # noqa: B008
    return plan_blank(me or own(), standing, sights, **more)  # type: ignore[arg-type]


PROMISE = Promise("p", ord("a"), (record("a"), record("b"), record("c")))
BOUND = Standing(promise=PROMISE)


def test_the_first_in_order_of_node_ids_founds_when_all_that_are_expected_are_there() -> None:
    found = plan(sight("c"), sight("b"))
    assert (found.step, [server.node for server in found.servers]) == (Step.FOUND, ["a", "b", "c"])
    assert plan(sight("c")).step is Step.WAIT
    assert "expecting 3 servers, see 2: a, c" in plan(sight("c")).reason


def test_a_server_that_is_told_to_join_only_itself_says_so() -> None:
    hint = "retry_join names only this server: name the others too, if they do not name it"
    assert plan(lonely=True).reason.endswith(f"expecting 3 servers, see 1: a; {hint}")
    assert hint not in plan().reason and hint not in plan(sight("c"), lonely=True).reason
    waiting = plan(sight("a"), sight("c"), me=own("b"))
    assert (waiting.step, "waiting for a to found" in waiting.reason) == (Step.WAIT, True)


def test_the_next_founds_where_the_first_does_not() -> None:
    both = (sight("a"), sight("c"))
    assert plan(*both, me=own("b"), waited=RANK_PATIENCE - 1).step is Step.WAIT
    assert plan(*both, me=own("b"), waited=RANK_PATIENCE).step is Step.FOUND
    assert plan(*both, me=own("b"), waited=0.0).step is Step.WAIT
    helpless = (sight("a", expect=0), sight("c"))
    assert plan(*helpless, me=own("b")).step is Step.FOUND, "a cannot: it expects none"


def test_of_more_than_expected_the_first_ones_are_taken() -> None:
    found = plan(*(sight(name) for name in "edcb"))
    assert [server.node for server in found.servers] == ["a", "b", "c"]
    assert plan(*(sight(name) for name in "abce"), me=own("d"), waited=1e6).step is Step.WAIT


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (sight("c", expect=5), "c has bootstrap_expect = 5, this server 3"),
        (sight("c", promise="other"), "promised to form a cluster already: c"),
        (sight("c", joining=True), "c is joining a cluster"),
        (sight("c", read_replica=True), "see 2: a, b"),
        (sight("c", datacenter="dc2"), "c at c:8300 is of datacenter dc2, this server of dc1: refused"),
        (sight("c", id="id-a"), "c at c:8300 has this server's node id id-a"),
        (sight("c", id="id-b"), "two of them have the same node id or address"),
        (sight("c", address="d:8300"), "c at c:8300 says that it is at d:8300, where it does not answer"),
    ],
)
def test_what_keeps_servers_from_forming_is_told(other: Sight, reason: str) -> None:
    found = plan(sight("b"), other)
    assert found.step is Step.WAIT
    assert reason in found.reason


def test_whoever_sees_a_cluster_joins_it() -> None:
    member = sight("b", blank=False, leader="c:8300", cluster="x")
    found = plan(member, sight("d"))
    assert (found.step, found.leaders) == (Step.JOIN, ("c:8300",))
    leading = sight("c", blank=False, leader="c:8300", is_leader=True, cluster="x")
    assert plan(member, leading).leaders == ("c:8300",)
    waiting = plan(sight("b", blank=False), sight("c"), sight("d"))
    assert (waiting.step, "it has no leader" in waiting.reason) == (Step.WAIT, True)
    other = sight("d", blank=False, leader="d:8300", is_leader=True, cluster="y")
    assert plan(leading, other).step is Step.WAIT


def test_bootstrap_forms_alone_but_not_against_a_promise() -> None:
    alone = own(alone=True, expect=0)
    assert plan(me=alone).servers == (record("a"),)
    assert plan(me=alone, standing=Standing(joining=True)).step is Step.WAIT
    assert plan(me=own("b", alone=True), standing=BOUND).step is Step.WAIT


def test_a_promise_is_kept_until_the_founder_has_let_go_of_it() -> None:
    b = own("b")
    assert plan(me=b, standing=BOUND).step is Step.WAIT
    assert plan(sight("a", promise="p"), me=b, standing=BOUND).step is Step.WAIT
    assert plan(sight("a"), me=b, standing=BOUND, promised_at=9.0).step is Step.RELEASE
    assert plan(sight("a"), me=b, standing=BOUND, promised_at=11.0).step is Step.WAIT, "an answer from before it counts"
    assert plan(sight("a", number=99), me=b, standing=BOUND).step is Step.WAIT, "another server with its node id"
    cluster = sight("d", blank=False, leader="d:8300", is_leader=True)
    assert plan(cluster, me=b, standing=BOUND).step is Step.WAIT, "it joins nothing meanwhile"
    assert plan(sight("c", blank=False, promise="p"), me=b, standing=BOUND).step is Step.FORM
    assert plan(me=b, standing=BOUND, formed=True).servers == PROMISE.servers
    assert plan(standing=BOUND).step is Step.RELEASE, "a founder that was interrupted begins anew"


@pytest.mark.parametrize(
    ("me", "standing", "blank", "refusal"),
    [
        (own("b"), Standing(), True, ""),
        (own("b"), BOUND, True, ""),
        (own("b", expect=0), Standing(), True, ""),
        (own("b"), Standing(), False, "belongs to a cluster already"),
        (own("b"), Standing(joining=True), True, "has asked to join another cluster"),
        (own("b"), Standing(promise=Promise("q", 1, ())), True, "has promised to form another cluster"),
        (own("b", alone=True), Standing(), True, "has bootstrap set"),
        (own("b", read_replica=True), Standing(), True, "is a read replica"),
        (own("b", expect=5), Standing(), True, "has bootstrap_expect = 5, not 3"),
        (own("d"), Standing(), True, "is not known by its present name"),
    ],
)
def test_who_gives_a_promise(me: Own, standing: Standing, blank: bool, refusal: str) -> None:
    found = refuse_promise(me, standing, PROMISE, blank=blank)
    assert found.startswith(refusal) and bool(found) == bool(refusal)


# -- any schedule -----------------------------------------------------------------------------------------------------


class Model:
    """Servers that do what the plans say. Messages take any time and any order; what is durable survives a crash."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.now = 0.0
        self.names = "abcdef"[: chance.choice((3, 4, 5))]
        self.standing = dict.fromkeys(self.names, Standing())
        self.formed: dict[str, frozenset[str]] = {}
        self.flying: list[Callable[[], None]] = []
        self.lives = dict.fromkeys(self.names, 0)
        self.sights: dict[str, dict[str, Sight]] = {name: {} for name in self.names}
        self.promised_at = dict.fromkeys(self.names, 0.0)
        self.founding: dict[str, tuple[Promise, set[str]]] = {}  # in memory only: who has promised

    def own(self, name: str) -> Own:
        return own(name, expect=3)

    def hello(self, name: str) -> Hello:
        promise = self.standing[name].promise
        blank = name not in self.formed
        return hello(name, blank=blank, promise=promise.id if promise else "", leader="" if blank else f"{name}:8300")

    def stand(self, name: str, standing: Standing) -> None:
        self.standing[name] = standing
        self.promised_at[name] = self.now

    def step(self) -> None:
        self.now += 1.0
        chance, name = self.chance, self.chance.choice(self.names)
        kind = chance.choice(("look", "look", "ask", "ask", "deliver", "deliver", "deliver", "deliver", "crash"))
        if kind == "look":
            self.look(name)
        elif kind == "ask":
            other = chance.choice([other for other in self.names if other != name])
            self.flying.append(partial(self.asked, name, self.lives[name], other, self.now))
        elif kind == "deliver" and self.flying:
            message = self.flying.pop(chance.randrange(len(self.flying)))
            if chance.random() < 0.9:
                message()
        elif kind == "crash" and chance.random() < 0.2:
            self.sights[name], self.promised_at[name] = {}, self.now
            self.founding.pop(name, None)
            self.lives[name] += 1

    def asked(self, by: str, life: int, of: str, at: float) -> None:
        self.flying.append(partial(self.answered, by, life, Sight(self.hello(of), f"{of}:8300", at)))

    def answered(self, by: str, life: int, seen: Sight) -> None:
        known = self.sights[by].get(seen.hello.node)
        if life == self.lives[by] and (known is None or known.asked_at < seen.asked_at):
            self.sights[by][seen.hello.node] = seen

    def requested(self, name: str, promise: Promise) -> None:
        refusal = refuse_promise(self.own(name), self.standing[name], promise, blank=name not in self.formed)
        if not refusal and self.standing[name].promise is None:
            self.stand(name, Standing(promise=promise))
        self.flying.append(partial(self.granted, chr(promise.founder), name, promise.id, not refusal))

    def granted(self, founder: str, by: str, promise_id: str, yes: bool) -> None:
        promise, got = self.founding.get(founder, (None, set()))
        if promise is None or promise.id != promise_id:
            return
        if not yes:
            self.give_up(founder)
            return
        got.add(by)
        if len(got) == len(promise.servers) - 1:
            del self.founding[founder]
            self.form(founder, promise.servers)

    def give_up(self, founder: str) -> None:
        del self.founding[founder]
        self.stand(founder, Standing())

    def form(self, name: str, servers: tuple[ServerRecord, ...]) -> None:
        assert name not in self.formed
        self.formed[name] = frozenset(server.node for server in servers)

    def look(self, name: str) -> None:
        if name in self.formed:
            return
        if name in self.founding:
            if self.chance.random() < 0.1:  # it has waited for long enough
                self.give_up(name)
            return
        seen = list(self.sights[name].values())
        waited = self.chance.choice((0.0, 0.0, 1e6))
        at = self.promised_at[name]
        found = plan_blank(self.own(name), self.standing[name], seen, promised_at=at, waited=waited)
        if found.step is Step.FOUND:
            promise = Promise(f"{self.chance.getrandbits(60):x}", ord(name), found.servers)
            self.stand(name, Standing(promise=promise))
            self.founding[name] = promise, set()
            others = [server.node for server in found.servers if server.node != name]
            self.flying += [partial(self.requested, other, promise) for other in others]
        elif found.step is Step.RELEASE:
            self.stand(name, Standing())
        elif found.step is Step.FORM:
            self.form(name, found.servers)

    def check(self) -> None:
        groups = set(self.formed.values())
        assert all(not one & other for one in groups for other in groups if one != other), groups
        for name, group in self.formed.items():
            assert name in group
            for other in group:
                promise = self.standing[other].promise
                assert promise is not None and {s.node for s in promise.servers} == group, "all have promised it"


@pytest.mark.parametrize("first", range(0, 300, 50))
def test_no_schedule_forms_two_clusters_that_share_a_server_and_in_the_end_all_that_promised_form(first: int) -> None:
    for seed in range(first, first + 50):
        model = Model(random.Random(seed))
        for _ in range(400):
            model.step()
            model.check()
        # Everybody is up, and everything arrives, from now on.
        for _ in range(60):
            model.now += 1.0
            for name in model.names:
                for other in model.names:
                    if other != name:
                        model.answered(name, model.lives[name], Sight(model.hello(other), f"{other}:8300", model.now))
                model.look(name)
            while model.flying:
                model.flying.pop(0)()
            model.check()
        groups = set(model.formed.values())
        assert len(groups) == 1, f"seed {seed}: {groups}"
        assert set(model.formed) == next(iter(groups)), f"seed {seed}: all that promised have formed"
