"""The thread for work that blocks."""

import asyncio
import threading

import pytest

from lictor.agent.worker import Worker


async def test_work_is_done_in_order_in_one_other_thread() -> None:
    worker = Worker("work")
    done: list[tuple[int, str]] = []

    def note(number: int) -> int:
        done.append((number, threading.current_thread().name))
        return number

    assert await asyncio.gather(*(worker(note, number) for number in range(100))) == list(range(100))
    worker.close()
    assert done == [(number, "work") for number in range(100)]


async def test_what_the_work_raises_is_raised() -> None:
    worker = Worker("work")
    with pytest.raises(ZeroDivisionError):
        await worker(divmod, 1, 0)
    assert await worker(divmod, 7, 2) == (3, 1)
    worker.close()


async def test_closing_waits_for_what_was_given() -> None:
    worker = Worker("work")
    go, ended = threading.Event(), threading.Event()
    waiting = worker(go.wait)
    last = worker(ended.set)
    waiting.cancel()
    go.set()
    worker.close()
    assert ended.is_set()
    await last


async def test_one_without_work_has_no_thread_to_end() -> None:
    before = threading.active_count()
    Worker("work").close()
    assert threading.active_count() == before
