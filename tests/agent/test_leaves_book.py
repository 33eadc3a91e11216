"""When identities are signed and renewed: the pure part, on clocks of the tests' own."""

import random

import msgspec
import pytest

from lictor.agent import leaves_book
from lictor.agent.leaves_book import Active, Book, Leaf, Now, TooManyLeaves

START = Now(1_800_000_000.0, 1000.0)
TTL = 72 * 3600.0
DOMAIN = "11111111-2222-3333-4444-555555555555.consul"
FIRST = Active("root-1", "key-1", DOMAIN)
SECOND = Active("root-2", "key-2", DOMAIN)


def after(seconds: float, now: Now = START) -> Now:
    return Now(now.wall + seconds, now.steady + seconds)


def leaf(service: str, now: Now, active: Active = FIRST, ttl: float = TTL, index: int = 10) -> Leaf:
    return Leaf(
        service=service,
        uri=f"spiffe://{active.domain}/ns/default/dc/dc1/svc/{service}",
        serial="07",
        certificate="certificate",
        key="key",
        valid_after=now.wall - 60,
        valid_before=now.wall + ttl,
        authority=active.signing_key,
        root=active.root,
        create_index=index,
        modify_index=index,
    )


class World:
    """A book with its clocks, and servers that sign at once unless they are told not to."""

    def __init__(self, seed: int = 1, active: Active = FIRST) -> None:
        self.book = Book(random.Random(seed).random, active)
        self.active = active  # as the servers have it
        self.now = START
        self.ttl = TTL
        self.signs = True
        self.log: list[tuple[float, str]] = []  # what was asked of the servers, and when by the steady clock

    def turn(self) -> None:
        """Have signed all that is due."""
        while due := self.book.due(self.now):
            for service in due:
                self.log.append((self.now.steady - START.steady, service))
                if self.signs:
                    self.book.signed(leaf(service, self.now, self.active, self.ttl), self.now)
                else:
                    self.book.unavailable(service, self.now)

    def run(self, seconds: float) -> None:
        """Let time go by."""
        end = self.now.steady + seconds
        while True:
            self.turn()
            wait = self.book.wait(self.now)
            if self.now.steady + wait >= end:
                self.now = after(end - self.now.steady, self.now)
                self.turn()
                return
            self.now = after(max(wait, 0.001), self.now)

    def learn(self, active: Active) -> None:
        """The agent hears of the active root."""
        self.book.root_changed(active, self.now)

    def state(self, service: str) -> str:
        life = self.book.get(service)
        assert life is not None
        return life.state(self.now)


def test_a_service_is_signed_once_for_all_that_ask() -> None:
    book = Book(random.Random(1).random, FIRST)
    for _ in range(5):
        book.ask("web", START)
    assert book.due(START) == ["web"]
    book.ask("web", START)
    assert book.due(START) == []
    book.signed(leaf("web", START), START)
    assert book.due(START) == []
    life = book.get("web")
    assert life is not None and life.state(START) == "good"


@pytest.mark.parametrize("seed", range(20))
def test_a_leaf_is_renewed_between_60_and_90_percent_of_its_life(seed: int) -> None:
    world = World(seed)
    world.book.ask("web", world.now)
    world.run(TTL * 0.95)
    assert len(world.log) == 2
    part = (world.log[1][0] + 60) / (TTL + 60)
    assert 0.6 <= part <= 0.9


def test_leaves_signed_together_are_not_renewed_together() -> None:
    world = World()
    world.ttl = 7200.0
    for number in range(500):
        world.book.ask(f"s{number}", world.now)
    world.run(0.95 * world.ttl)
    renewals = sorted(at for at, _ in world.log[500:])
    assert len(renewals) >= 500
    assert renewals[499] - renewals[0] > 0.25 * world.ttl
    # In no minute are there more than four times as many as there would be on the average.
    busiest = max(sum(1 for at in renewals if start <= at < start + 60) for start in range(0, 7200, 60))
    assert busiest <= 4 * 500 / (0.3 * world.ttl / 60)


def test_a_change_of_the_root_renews_all_within_half_a_minute_and_not_at_once() -> None:
    world = World()
    for number in range(200):
        world.book.ask(f"s{number}", world.now)
    world.run(100)
    world.log.clear()
    world.active = SECOND
    world.learn(SECOND)
    world.run(leaves_book.ROOT_SPREAD)
    assert len(world.log) == 200
    assert all(life.leaf is not None and life.leaf.authority == "key-2" for life in world.book)
    seconds = [int(at) for at, _ in world.log]
    assert max(seconds.count(second) for second in set(seconds)) < 30
    world.log.clear()
    world.run(3600)
    assert world.log == []


def test_a_leaf_that_was_signed_under_the_new_root_already_is_not_renewed() -> None:
    world = World()
    world.active = SECOND  # the server knows the new root before this agent does
    world.book.ask("web", world.now)
    world.turn()
    world.learn(SECOND)
    world.run(3600)
    assert len(world.log) == 1


def test_a_leaf_of_which_the_new_root_was_not_yet_known_to_the_servers_is_renewed() -> None:
    world = World()
    world.book.ask("web", world.now)
    assert world.book.due(world.now) == ["web"]
    world.book.root_changed(SECOND, world.now)
    world.book.signed(leaf("web", world.now, FIRST), world.now)
    world.active = SECOND
    world.run(leaves_book.ROOT_SPREAD)
    assert [service for _, service in world.log] == ["web"]


def test_key_ids_written_in_another_way_do_not_renew_for_ever() -> None:
    world = World()
    odd = msgspec.structs.replace(leaf("web", world.now), authority="written in another way")
    world.book.load(odd, world.now)
    world.learn(Active("root-1", "a new intermediate", DOMAIN))
    world.run(3600)
    assert world.log == []


def test_another_trust_domain_renews() -> None:
    world = World()
    world.book.ask("web", world.now)
    world.turn()
    elsewhere = Active("root-1", "key-1", "99999999-2222-3333-4444-555555555555.consul")
    world.active = elsewhere
    world.learn(elsewhere)
    world.run(leaves_book.ROOT_SPREAD)
    assert len(world.log) == 2
    life = world.book.get("web")
    assert life is not None and life.leaf is not None and elsewhere.domain in life.leaf.uri


def test_what_is_held_is_kept_while_nobody_signs_and_renewed_once_somebody_does() -> None:
    world = World()
    world.book.ask("web", world.now)
    world.run(10)
    world.signs = False
    world.run(TTL * 0.95)
    assert world.state("web") == "overdue"
    assert world.book.failing
    life = world.book.get("web")
    assert life is not None and life.leaf is not None and life.leaf.modify_index == 10
    world.run(TTL * 0.1)
    assert world.state("web") == "expired"
    world.signs = True
    world.run(leaves_book.LONGEST_PAUSE + leaves_book.LOOK)
    assert world.state("web") == "good"
    assert not world.book.failing


def test_tries_are_fewer_with_each_failure_and_one_at_a_time() -> None:
    world = World()
    world.signs = False
    for number in range(1000):
        world.book.ask(f"s{number}", world.now)
    world.run(600)
    times = [at for at, _ in world.log]
    assert len(times) <= leaves_book.AT_ONCE + 40
    gaps = [b - a for a, b in zip(times[leaves_book.AT_ONCE :], times[leaves_book.AT_ONCE + 1 :], strict=False)]
    assert all(gap >= 0.5 for gap in gaps)
    assert max(gaps) <= leaves_book.LONGEST_PAUSE + 0.01
    world.signs = True
    world.run(leaves_book.LONGEST_PAUSE)
    assert {world.state(f"s{number}") for number in range(1000)} == {"good"}


def test_the_servers_are_tried_at_once_when_they_are_back() -> None:
    world = World()
    world.signs = False
    world.book.ask("web", world.now)
    world.run(300)
    world.signs = True
    world.book.resume(world.now)
    world.turn()
    assert world.state("web") == "good"


def test_whoever_waits_for_a_leaf_learns_soon_whether_the_servers_are_back() -> None:
    world = World()
    world.signs = False
    world.book.ask("web", world.now)
    world.run(600)
    world.signs = True
    world.book.ask("web", world.now)
    world.run(leaves_book.FIRST_PAUSE)
    assert world.state("web") == "good"


def test_whoever_waits_for_one_that_has_expired_learns_it_too() -> None:
    world = World()
    world.book.ask("web", world.now)
    world.run(60)
    world.signs = False
    world.run(2 * TTL)
    assert world.state("web") == "expired"
    world.signs = True
    world.book.ask("web", world.now)
    world.run(leaves_book.FIRST_PAUSE)
    assert world.state("web") == "good"


def test_a_thousand_services_asked_at_once_are_signed_in_their_order_few_at_a_time() -> None:
    book = Book(random.Random(1).random, FIRST)
    for number in range(1000):
        book.ask(f"s{number}", START)
    order: list[str] = []
    now = START
    while due := book.due(now):
        assert len(due) <= leaves_book.AT_ONCE
        order += due
        now = after(0.02, now)
        for service in due:
            book.signed(leaf(service, now), now)
    assert order == [f"s{number}" for number in range(1000)]


def test_a_rate_limit_of_the_servers_is_lived_with() -> None:
    """Fifty a second, as the servers allow by default: a thousand are through within twice the time that takes."""
    world = World()
    for number in range(1000):
        world.book.ask(f"s{number}", world.now)
    tokens, filled, done, tries = 50.0, world.now.steady, 0, 0
    while done < 1000:
        for service in world.book.due(world.now):
            world.now = after(0.005, world.now)
            tokens, filled = min(50.0, tokens + 50 * (world.now.steady - filled)), world.now.steady
            tries += 1
            if tokens >= 1:
                tokens -= 1
                done += 1
                world.book.signed(leaf(service, world.now), world.now)
            else:
                world.book.unavailable(service, world.now, busy=True)
        if done < 1000:
            world.now = after(max(0.001, world.book.wait(world.now)), world.now)
    assert world.now.steady - START.steady < 40
    assert tries < 1200


def test_one_that_is_refused_does_not_hold_up_the_others() -> None:
    world = World()
    world.book.ask("bad", world.now)
    for number in range(10):
        world.book.ask(f"s{number}", world.now)
    tries = 0
    for _ in range(1000):
        for service in world.book.due(world.now):
            if service == "bad":
                tries += 1
                world.book.refused(service, world.now)
            else:
                world.book.signed(leaf(service, world.now), world.now)
        world.now = after(0.5, world.now)
    assert 5 < tries < 25
    assert {world.state(f"s{number}") for number in range(10)} == {"good"}
    assert world.state("bad") == "new"


@pytest.mark.parametrize("jump", [-10 * 365 * 86400.0, -3600.0])
def test_a_clock_set_back_does_not_keep_a_leaf_longer_than_its_life(jump: float) -> None:
    world = World()
    world.book.ask("web", world.now)
    world.run(60)
    world.now = Now(world.now.wall + jump, world.now.steady)
    world.run(TTL * 0.92)
    assert len(world.log) == 2


def test_a_clock_set_forward_past_a_leafs_end_renews_it_within_a_look() -> None:
    world = World()
    world.book.ask("web", world.now)
    world.run(60)
    world.now = Now(world.now.wall + 2 * TTL, world.now.steady)
    assert world.state("web") == "expired"
    world.run(leaves_book.LOOK)
    assert len(world.log) == 2
    assert world.state("web") == "good"


def test_whoever_asks_for_an_expired_leaf_has_it_renewed_at_once() -> None:
    world = World()
    world.book.ask("web", world.now)
    world.run(60)
    world.now = Now(world.now.wall + 2 * TTL, world.now.steady)
    world.book.ask("web", world.now)
    world.turn()
    assert world.state("web") == "good"


def test_leaves_from_disk_are_held_and_those_overdue_renewed_soon_and_spread() -> None:
    world = World()
    for number in range(100):
        world.book.load(leaf(f"fresh{number}", world.now), world.now)
        world.book.load(leaf(f"old{number}", after(-0.95 * TTL)), world.now)
    assert {life.state(world.now) for life in world.book} == {"good"}
    world.turn()
    assert len(world.log) < 20
    world.run(leaves_book.START_SPREAD)
    assert sorted(service for _, service in world.log) == sorted(f"old{number}" for number in range(100))


def test_a_leaf_from_disk_that_has_ended_is_signed_at_once() -> None:
    world = World()
    world.book.load(leaf("web", after(-2 * TTL)), world.now)
    assert world.state("web") == "expired"
    world.turn()
    assert world.state("web") == "good"


def test_indexes_only_rise() -> None:
    book = Book(random.Random(1).random, FIRST)
    book.ask("web", START)
    book.due(START)
    book.signed(leaf("web", START, index=50), START)
    book.root_changed(SECOND, START)
    later = after(leaves_book.ROOT_SPREAD)
    assert book.due(later) == ["web"]
    held = book.signed(leaf("web", later, SECOND, index=7), later)  # of a cluster whose indexes began anew
    assert held.modify_index == 51


def test_what_nobody_asks_for_is_forgotten_and_what_is_followed_is_not() -> None:
    world = World()
    world.book.ask("web", world.now)
    world.book.ask("followed", world.now).followers = 1
    world.run(leaves_book.FORGET - 3600)
    world.book.ask("asked", world.now)
    world.book.forget(world.now)
    assert world.book.dropped() == []
    world.run(3600)
    world.book.forget(world.now)
    assert world.book.dropped() == ["web"]
    assert sorted(life.service for life in world.book) == ["asked", "followed"]


def test_there_is_a_bound_on_services_and_the_longest_idle_makes_room() -> None:
    book = Book(random.Random(1).random, FIRST)
    for number in range(leaves_book.MOST):
        book.ask(f"s{number}", START)
    for _ in range(leaves_book.MOST):
        for service in book.due(START):
            book.signed(leaf(service, START), START)
    with pytest.raises(TooManyLeaves):
        book.ask("one more", START)
    later = after(leaves_book.EVICTABLE)
    book.ask("s0", later)
    book.ask("one more", later)
    assert len(book) == leaves_book.MOST
    assert book.get("s0") is not None and book.get("s1") is None
    assert book.dropped() == ["s1"]
    book.load(leaf("from disk", later), later)
    assert book.get("from disk") is None


def test_a_leaf_shows_no_key() -> None:
    one = leaf("web", START)
    shown = repr(one)
    assert "key" not in shown and "certificate" not in shown


def test_a_leaf_that_has_ended_by_the_clock_here_is_asked_for_again_without_haste() -> None:
    book, now, asked = Book(random.Random(1).random, FIRST), START, 0
    book.ask("web", now)
    for _ in range(600):
        for service in book.due(now):
            asked += 1
            book.signed(leaf(service, now, ttl=-1.0), now)  # the clock here is ahead by more than a leaf's life
        now = after(1.0, now)
    assert 8 <= asked <= 12
