"""One client agent at a server: which topics it follows, and what it is still to be told. Pure.

What is told goes in the order of the states of the store that it is about. So a topic begins only when nothing is
queued any more, and what changes meanwhile is queued behind it. The queue is bounded: what does not fit is thrown away,
and the topics that it was about begin again, once the agent has taken what was before. Until then it is *behind*.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from lictor.store.partial_messages import Dropped, Kept, Refused, encode
from lictor.store.watch import Topic

if TYPE_CHECKING:
    from lictor.server.subscriptions_topics import Followed, Topics

QUEUE_BYTES = 2 * 1024 * 1024  # what waits for one agent
AT_ONCE = 1024 * 1024  # bytes of changes in one piece; topics that change by more begin again
START_BYTES = 64 * 1024  # a piece that has so much of beginning topics gets no more
ROW_BYTES = 16  # what looking at a row counts there: no step is to take long

TOO_LARGE = "there is too much of it to be held by an agent"


class Session:
    """See above. `woken` is called when there is something to take; `piece(messages, whole)` makes a piece's bytes."""

    __slots__ = (
        "_behind",
        "_chunks",
        "_mark",
        "_piece",
        "_queue",
        "_queued",
        "_starting",
        "_topics",
        "overflows",
        "topics",
        "woken",
    )

    def __init__(self, topics: "Topics", piece: Callable[[list[msgspec.Raw], bool], bytes]) -> None:
        self.topics: dict[Topic, Followed | None] = {}  # None while it has not begun
        self.woken: Callable[[], None] = _nobody
        self.overflows = 0
        self._topics = topics
        self._piece = piece
        self._starting: dict[Topic, int] = {}  # with the version that the agent has
        self._behind: dict[Topic, None] = {}  # those of them of which the agent has an older state
        self._chunks: deque[msgspec.Raw] = deque()
        self._queue: deque[tuple[bytes, tuple[Followed, ...]]] = deque()
        self._queued = 0
        self._mark = False

    @property
    def queued(self) -> int:
        """The bytes that wait for the agent."""
        return self._queued

    @property
    def whole(self) -> bool:
        """Whether the agent has all of its topics as they are, once it has taken what is queued."""
        return not self._behind and not self._chunks

    def expect(self, topics: Iterable[tuple[Topic, int]]) -> dict[Topic, int]:
        """Note topics that are to begin, and which version the agent has of each, 0 for none. Returns those that are
        new.
        """
        new = {}
        for topic, version in topics:
            if topic not in self.topics:
                self.topics[topic] = None
                new[topic] = version
                if version:
                    self._behind[topic] = None
        return new

    def begin(self, topics: Mapping[Topic, int]) -> None:
        """Have topics begin that were expected: with what has changed since the version that the agent has."""
        for topic, version in topics.items():
            if topic in self.topics and self.topics[topic] is None:
                self._starting[topic] = version
        self.woken()

    def drop(self, topic: Topic) -> None:
        """Follow a topic no more; harmless where it does not."""
        followed = self.topics.pop(topic, None)
        self._starting.pop(topic, None)
        self._behind.pop(topic, None)
        if followed is not None:
            self._topics.leave(followed, self)

    def drop_wanted(self, topics: tuple[Topic, ...]) -> None:
        """Do so as the agent wants, and tell it when that is done."""
        for topic in topics:
            self.drop(topic)
        self._say(Dropped(topics))

    def close(self) -> None:
        """The agent is gone."""
        for topic in list(self.topics):
            self.drop(topic)
        self._queue.clear()
        self._chunks.clear()

    def mark(self) -> None:
        """Tell the agent how far the store is, once it has been told everything before."""
        self._mark = True
        self.woken()

    def tell(self, about: tuple["Followed", ...], piece: bytes) -> None:
        """Topics that it follows have changed; `piece` says how."""
        if len(piece) > AT_ONCE or (self._queue and self._queued + len(piece) > QUEUE_BYTES):
            self.overflows += 1
            queue, self._queue, self._queued = self._queue, deque(), 0
            for before, queued in queue:
                self._again(queued)
                if not queued:
                    self._put(before, queued)
            self._again(about)
        else:
            self._put(piece, about)
        self.woken()

    def refuse(self, topic: Topic, reason: str = TOO_LARGE) -> None:
        """A topic cannot be followed, or no more."""
        self.drop(topic)
        self._say(Refused(topic, reason))

    def _say(self, message: Dropped | Refused) -> None:
        """Queue what is about no change. What has changed up to now may not be queued yet, so it closes no state."""
        self._put(self._piece([msgspec.Raw(encode(message))], False), ())
        self.mark()

    def _put(self, piece: bytes, about: tuple["Followed", ...]) -> None:
        self._queue.append((piece, about))
        self._queued += len(piece)

    def _again(self, about: tuple["Followed", ...]) -> None:
        for followed in about:
            topic = followed.topic
            if self.topics.get(topic) is followed:
                self.topics[topic] = None
                self._starting[topic] = 0
                self._behind[topic] = None
                self._topics.leave(followed, self)

    def take(self, look: Callable[[], None]) -> bytes | None:
        """The next piece, None where there is none. `look` has what has changed queued."""
        if self._chunks:
            chunk = self._chunks.popleft()
            self._mark = True
            return self._piece([chunk], False)
        if not self._queue and (self._starting or self._mark):
            look()
        if self._queue:
            piece, _ = self._queue.popleft()
            self._queued -= len(piece)
            return piece
        if self._starting:
            return self._start()
        if self._mark:
            self._mark = False
            return self._piece([], self.whole)
        return None

    def _start(self) -> bytes:
        messages: list[msgspec.Raw] = []
        size = 0
        while self._starting and size < START_BYTES and not self._chunks:
            topic = next(iter(self._starting))
            version = self._starting.pop(topic)
            self._behind.pop(topic, None)
            followed = self._topics.open(topic)
            if followed is None:
                self.topics.pop(topic, None)
                messages.append(msgspec.Raw(encode(Refused(topic, TOO_LARGE))))
                continue
            self.topics[topic] = followed
            followed.sessions[self] = None
            if version and version == followed.version:
                begun = [msgspec.Raw(encode(Kept(topic, followed.index, version)))]
            else:
                # Who has a newer version than this server, which is as far, has seen what a recovery has lost since.
                known = 0 < version < followed.version
                change = self._topics.since(followed, version) if known else None
                begun = [change] if change is not None else self._topics.start(followed)
            messages.append(begun[0])
            size += len(bytes(begun[0])) + ROW_BYTES * followed.weight
            self._chunks.extend(begun[1:])
        return self._piece(messages, self.whole)


def _nobody() -> None:
    pass
