"""Who is told of which change, and the answers that are kept until then."""

from lictor.store.answers import ENTRY_OVERHEAD, TOPIC_OVERHEAD, AnswerCache
from lictor.store.watch import Dependent, Topic, Watches

A: Topic = ("service", "a")
B: Topic = ("service", "b")


class Told(Dependent):
    """Counts how often it was told."""

    def __init__(self) -> None:
        self.seen = ()
        self.times = 0

    def changed(self) -> None:
        self.times += 1


def watching(watches: Watches, *topics: Topic) -> Told:
    told = Told()
    watches.add(told, topics)
    return told


def test_everyone_is_told_once_and_then_forgotten() -> None:
    watches = Watches()
    both, other = watching(watches, A, B), watching(watches, ("node", "n"))
    assert watches.fire([A, B]) == 1
    assert (both.times, other.times) == (1, 0)
    assert watches.fire([A, B]) == 0
    assert len(watches) == 1


def test_a_key_tells_those_who_look_at_its_prefixes() -> None:
    watches = Watches()
    near = [watching(watches, ("kv/", prefix)) for prefix in ("", "a", "a/", "a/b")]
    far = [watching(watches, ("kv/", prefix)) for prefix in ("a/b/", "b", "a/c")]
    key = watching(watches, ("kv", "a/b"))
    watches.fire([("kv", "a/b")])
    assert [told.times for told in near] == [1, 1, 1, 1]
    assert [told.times for told in far] == [0, 0, 0]
    assert key.times == 1
    for told in far:
        watches.discard(told)
    assert len(watches) == 0
    assert watches._prefix_lengths == {}


def test_whoever_is_discarded_is_not_told() -> None:
    watches = Watches()
    told = watching(watches, A)
    watches.discard(told)
    watches.discard(told)
    assert watches.fire([A]) == 0
    assert told.times == 0


def test_everybody_is_told_when_all_is_replaced() -> None:
    watches = Watches()
    all_of_them = [watching(watches, A), watching(watches, ("kv/", "x"), B)]
    assert watches.fire_all() == 2
    assert [told.times for told in all_of_them] == [1, 1]
    assert (len(watches), watches._prefix_lengths) == (0, {})


def test_an_answer_is_kept_until_what_it_saw_changes() -> None:
    watches = Watches()
    cache: AnswerCache[str] = AnswerCache(watches, 10_000)
    cache.put(b"q1", "one", 100, (A,))
    cache.put(b"q2", "two", 100, (B,))
    assert cache.size == 2 * (100 + 2 + ENTRY_OVERHEAD + TOPIC_OVERHEAD)
    watches.fire([A])
    assert cache.answers == {b"q2": "two"}
    cache.clear()
    assert (cache.answers, cache.size, len(watches)) == ({}, 0, 0)


def test_a_newer_answer_takes_the_place_of_an_older_one() -> None:
    watches = Watches()
    cache: AnswerCache[str] = AnswerCache(watches, 10_000)
    cache.put(b"q", "old", 100, (A,))
    cache.put(b"q", "new", 100, (B,))
    watches.fire([A])
    assert cache.answers == {b"q": "new"}
    watches.fire([B])
    assert (cache.answers, cache.size) == ({}, 0)


def test_the_oldest_answers_go_first_and_what_is_too_large_is_not_kept() -> None:
    watches = Watches()
    cache: AnswerCache[int] = AnswerCache(watches, 3 * (ENTRY_OVERHEAD + TOPIC_OVERHEAD + 10))
    for number in range(5):
        cache.put(b"q%d" % number, number, 8, (A,))
        assert cache.size <= cache.limit
    assert list(cache.answers.values()) == [2, 3, 4]
    cache.put(b"big", 9, 100_000, (A,))
    assert b"big" not in cache.answers
    many = tuple(("node", str(n)) for n in range(1000))
    cache.put(b"many", 9, 1, many)
    assert b"many" not in cache.answers, "what an answer looked at takes its place too"
