"""A read that is followed gives its answer, and each that takes its place."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import TypeVar

from lictor.agent import following
from lictor.agent.following import follow
from lictor.model.errors import NoLeader
from lictor.store import kv
from lictor.store.store import Answer, Store, View
from tests.patience import PATIENCE

T = TypeVar("T")


def value_of(view: View) -> bytes | None:
    entry = view.saw_key("a")
    return entry.value if entry is not None else None


def put(store: Store, key: str, value: bytes) -> None:
    store.begin(0.0)
    kv.put(store, key, value, 0)
    store.commit()
    store.flush()


async def test_each_change_is_told_and_what_did_not_change_is_not() -> None:
    store = Store()
    async with aclosing(follow(store, None, value_of)) as answers, asyncio.timeout(PATIENCE):
        assert (await anext(answers)).value is None
        put(store, "b", b"another")
        put(store, "a", b"1")
        assert (await anext(answers)).value == b"1"
        following_one = asyncio.ensure_future(anext(answers))
        await asyncio.sleep(0)
        put(store, "a", b"1")
        for number in range(5):
            put(store, "a", b"%d" % number)
        assert (await following_one).value == b"4"


async def test_nothing_is_watched_once_it_is_closed() -> None:
    store = Store()
    answers = follow(store, None, value_of)
    await anext(answers)
    assert store.watches.topics() == [("kv", "a")]
    await answers.aclose()
    assert store.watches.topics() == []


async def test_what_cannot_be_held_is_tried_again() -> None:
    class Flaky:
        def __init__(self) -> None:
            self.tries = 0

        async def read(self, function: Callable[[View], T]) -> Answer[T]:
            self.tries += 1
            if self.tries == 1:
                raise NoLeader
            return store.read(function)

    store, holder = Store(), Flaky()
    pause, following.PAUSE = following.PAUSE, 0.01
    try:
        async with aclosing(follow(store, holder, value_of)) as answers, asyncio.timeout(PATIENCE):
            assert (await anext(answers)).value is None
    finally:
        following.PAUSE = pause
    assert holder.tries == 2
