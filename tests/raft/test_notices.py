"""Which of a leader's messages may wait, and for how long."""

import asyncio
from collections.abc import Sequence

import pytest

from lictor.raft import notices
from lictor.raft.core.message import Entry, Message, MessageKind
from lictor.raft.notices import Notices
from tests.patience import PATIENCE

LEADER, FOLLOWER, OTHER = 1, 2, 3


def append(index: int, commit: int, entries: int = 0) -> Message:
    """What follows the entry at `index`."""
    following = tuple([Entry(1, index + n) for n in range(1, entries + 1)])
    return Message(MessageKind.APPEND, FOLLOWER, LEADER, 1, 1, index, following, commit)


class Sent:
    """What left, in order."""

    def __init__(self) -> None:
        self.messages: list[tuple[int, Message]] = []
        self.notices = Notices(self.send)
        self.notices.begin(0)

    def send(self, to: int, messages: Sequence[Message]) -> None:
        self.messages += [(to, message) for message in messages]


@pytest.fixture
async def sent() -> Sent:
    return Sent()


async def test_entries_go_at_once_and_tell_what_was_held_back(sent: Sent) -> None:
    entries = append(5, 5, entries=1)
    assert sent.notices.sort(FOLLOWER, [append(5, 5)], 5) == []
    assert sent.notices.sort(FOLLOWER, [entries], 6) == [entries]
    sent.notices.go()
    assert sent.messages == []


async def test_entries_of_the_same_turn_take_the_place_of_a_notice(sent: Sent) -> None:
    entries = append(5, 5, entries=2)
    assert sent.notices.sort(FOLLOWER, [append(5, 5), entries], 7) == [entries]


async def test_a_notice_goes_after_a_while(sent: Sent) -> None:
    notice = append(5, 5)
    assert sent.notices.sort(FOLLOWER, [notice], 5) == []
    async with asyncio.timeout(PATIENCE):
        while not sent.messages:
            await asyncio.sleep(notices.PATIENCE)
    assert sent.messages == [(FOLLOWER, notice)]


async def test_a_notice_goes_at_once_where_another_server_waits_for_it(sent: Sent) -> None:
    first, second = append(5, 4), append(5, 5)
    sent.notices.awaited(5)
    assert sent.notices.sort(FOLLOWER, [first], 5) == [first]
    assert sent.notices.sort(FOLLOWER, [second], 5) == [second]
    assert sent.notices.sort(OTHER, [second], 5) == [second]
    assert sent.notices.sort(FOLLOWER, [append(6, 6)], 6) == []


async def test_a_new_leader_tells_at_once_what_it_found(sent: Sent) -> None:
    found = append(5, 5)
    sent.notices.begin(5)
    assert sent.notices.sort(FOLLOWER, [found], 5) == [found]


async def test_whoever_was_told_an_index_gets_all_that_was_held_back(sent: Sent) -> None:
    first, second = append(5, 5), append(5, 5)
    sent.notices.sort(FOLLOWER, [first], 5)
    sent.notices.sort(OTHER, [second], 5)
    sent.notices.go()
    assert sent.messages == [(FOLLOWER, first), (OTHER, second)]


async def test_everything_else_goes_at_once(sent: Sent) -> None:
    heartbeat = Message(MessageKind.HEARTBEAT, FOLLOWER, LEADER, 1, commit=5)
    probe = append(3, 5)  # not after the last entry: it asks whether the follower has it
    notice = append(5, 5)
    assert sent.notices.sort(FOLLOWER, [heartbeat, notice], 5) == [heartbeat]
    assert sent.notices.sort(FOLLOWER, [probe], 5) == [notice, probe]


async def test_a_leader_no_more_tells_nothing(sent: Sent) -> None:
    sent.notices.sort(FOLLOWER, [append(5, 5)], 5)
    sent.notices.drop()
    sent.notices.go()
    assert sent.messages == []
