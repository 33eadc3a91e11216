"""The lease's arithmetic, and its promise under clocks that run apart."""

import random

from lictor.raft.core.quorum import Quorum
from lictor.raft.lease import HOLD, LEASE, NEVER, Hold, Lease

THREE = Quorum(frozenset({1, 2, 3}))


def leading(number: int = 1) -> Lease:
    lease = Lease(number, 10.0)
    lease.begin(5)
    return lease


def test_without_a_majority_there_is_no_lease() -> None:
    lease = leading()
    assert lease.until(THREE, 100.0) == NEVER
    lease.echoed(2, 5, 99.0)
    assert lease.until(THREE, 100.0) == 99.0 + 10.0 * LEASE


def test_a_lease_counts_from_the_earliest_time_that_a_majority_returned() -> None:
    lease = Lease(1, 10.0)
    lease.begin(5)
    five = Quorum(frozenset({1, 2, 3, 4, 5}))
    for number, sent in ((2, 90.0), (3, 91.0), (4, 92.0)):
        lease.echoed(number, 5, sent)
    assert lease.until(five, 100.0) == 91.0 + 10.0 * LEASE


def test_what_belongs_to_another_term_does_not_count() -> None:
    lease = leading()
    lease.echoed(2, 4, 99.0)
    lease.echoed(3, 6, 99.0)
    assert lease.until(THREE, 100.0) == NEVER
    lease.echoed(2, 5, 99.0)
    lease.begin(7)
    assert lease.until(THREE, 100.0) == NEVER


def test_an_older_time_does_not_take_the_place_of_a_newer() -> None:
    lease = leading()
    lease.echoed(2, 5, 99.0)
    lease.echoed(2, 5, 50.0)
    assert lease.until(THREE, 100.0) == 99.0 + 10.0 * LEASE


def test_while_members_are_exchanged_both_majorities_count() -> None:
    lease = leading()
    lease.echoed(2, 5, 99.0)
    joint = Quorum(frozenset({1, 2, 3}), frozenset({1, 4, 5}))
    assert lease.until(joint, 100.0) == NEVER
    lease.echoed(4, 5, 98.0)
    assert lease.until(joint, 100.0) == 98.0 + 10.0 * LEASE


def test_a_leader_that_does_not_vote_needs_a_majority_of_those_who_do() -> None:
    lease = leading(number=9)
    lease.echoed(2, 5, 99.0)
    assert lease.until(THREE, 100.0) == NEVER
    lease.echoed(3, 5, 97.0)
    assert lease.until(THREE, 100.0) == 97.0 + 10.0 * LEASE


def test_who_handed_over_has_no_lease_again_in_this_term() -> None:
    lease = leading()
    lease.echoed(2, 5, 99.0)
    lease.give_up()
    lease.echoed(3, 5, 101.0)
    assert lease.until(THREE, 102.0) == NEVER
    lease.begin(6)
    lease.echoed(3, 6, 103.0)
    assert lease.until(THREE, 104.0) > 104.0


def test_a_vote_is_held_after_a_leader_was_heard_and_after_a_restart() -> None:
    hold = Hold(10.0)
    assert not hold.holds(0.0)
    hold.restarted(0.0)
    assert hold.holds(8.9) and not hold.holds(9.0)
    hold.hear(3, 5, 77.0, 20.0)
    assert hold.holds(28.9) and not hold.holds(29.0)
    assert hold.echo(3) == (5, 77.0)
    assert hold.echo(2) == (0, 0.0)


def test_no_lease_outlives_a_majority_of_holds() -> None:
    """Clocks at rates up to a quarter apart, messages late by anything: once enough votes are free, it is over."""
    chance = random.Random(1)
    checked = 0
    for _ in range(2000):
        slow = chance.uniform(1.0, 1.25)
        rates = {number: chance.choice((1.0, slow)) for number in (1, 2, 3)}
        offsets = {number: chance.uniform(-1e6, 1e6) for number in (1, 2, 3)}

        def clock(number: int, true: float, r: dict[int, float] = rates, o: dict[int, float] = offsets) -> float:
            return true * r[number] + o[number]

        lease, holds = leading(), {2: Hold(10.0), 3: Hold(10.0)}
        events = []
        for number in (2, 3):
            sent = chance.uniform(0.0, 20.0)
            heard = sent + chance.expovariate(0.5)
            events.append((heard, number, sent))
        for heard, number, sent in events:
            holds[number].hear(1, 5, clock(1, sent), clock(number, heard))
            term, echo = holds[number].echo(1)
            lease.echoed(number, term, echo)
        end = lease.until(THREE, clock(1, max(heard for heard, _, _ in events)))
        over = (end - offsets[1]) / rates[1]  # in true time
        # Another leader needs one of the two followers beside the one that stands, who is the other.
        free = [heard + 10.0 * HOLD / rates[number] for heard, number, _ in events]
        assert over <= max(free) + 1e-6
        checked += over > max(heard for heard, _, _ in events)
    assert checked > 100
