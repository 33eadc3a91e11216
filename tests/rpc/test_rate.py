"""The bucket that bounds an agent's calls to servers."""

import random

import pytest

from lictor.model.errors import RateExceeded
from lictor.rpc.rate import Bucket


def taken(bucket: Bucket, now: float, tries: int = 1000) -> int:
    return sum(bucket.take(now) for _ in range(tries))


def test_it_begins_full_and_fills_at_its_rate() -> None:
    bucket = Bucket(2.0, 10, 100.0)
    assert taken(bucket, 100.0) == 10
    assert taken(bucket, 100.25) == 0
    assert taken(bucket, 100.5) == 1, "what was filled before is not lost"
    assert taken(bucket, 103.0) == 5


def test_it_holds_no_more_than_the_burst() -> None:
    bucket = Bucket(1000.0, 7, 0.0)
    assert taken(bucket, 3600.0) == 7
    assert taken(bucket, 7200.0) == 7


@pytest.mark.parametrize("rate", [-1.0, 0.0])
def test_without_a_rate_there_is_no_limit(rate: float) -> None:
    assert taken(Bucket(rate, 1, 0.0), 0.0, 5000) == 5000


@pytest.mark.parametrize("burst", [0, -5])
def test_a_burst_below_one_lets_one_call_through_at_a_time(burst: int) -> None:
    bucket = Bucket(1.0, burst, 0.0)
    assert taken(bucket, 0.0) == 1
    assert taken(bucket, 1.0) == 1


def test_a_clock_that_goes_back_gives_nothing_and_takes_nothing() -> None:
    bucket = Bucket(1.0, 3, 10.0)
    assert taken(bucket, 5.0) == 3
    assert taken(bucket, 10.0) == 0
    assert taken(bucket, 11.0) == 1


def test_no_window_of_time_sees_more_than_the_burst_and_the_rate() -> None:
    chance = random.Random(3)
    for _ in range(200):
        rate, burst = chance.uniform(0.1, 50.0), chance.randrange(1, 20)
        bucket, now, times = Bucket(rate, burst, 0.0), 0.0, []
        for _ in range(300):
            now += chance.choice([0.0, chance.expovariate(rate), chance.expovariate(3 * rate)])
            if bucket.take(now):
                times.append(now)
        for first in range(0, len(times), 7):
            for last in range(first, len(times)):
                assert last - first + 1 <= burst + rate * (times[last] - times[first]) + 1e-6


def test_what_the_caller_is_told_is_what_consul_says() -> None:
    assert str(RateExceeded()) == "RPC rate limit exceeded"
    assert RateExceeded().status == 429
