"""Calls of the API: described once, made by threads that wait and by event loops alike.

A family of calls is a class whose methods say what to ask and how to read the answer:

    class Status(Family[F]):
        @read
        def leader(self) -> Call[str]:
            return get("/v1/status/leader", reads(str))

The decorators turn such a method into what makes the call. What that gives depends on whose family it is:

    client.status.leader()                    # Client: the leader's address
    await client.status.leader()              # AsyncClient: the same
    client.status.leader.answer()             # with its index and age
    for leader in client.status.leader.watch(): ...

So there is no second list of calls that could differ from the first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload
from urllib.parse import quote

import msgspec

from lictor.client.errors import BadAnswer

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
F = TypeVar("F", bound="Flavour")

Query = Mapping[str, "str | Sequence[str] | bool | None"]
"""Parameters: True for one without a value, None or False for none, several values to repeat it."""

OK = frozenset({200})
OR_NOTHING = frozenset({200, 404})


class Reply(msgspec.Struct, frozen=True):
    """An answer as it came. The headers' names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def index(self) -> int:
        """The index to pass with the next blocking query, 0 for none."""
        text = self.headers.get("x-consul-index", "")
        return int(text) if text.isascii() and text.isdigit() else 0


class Answer(msgspec.Struct, Generic[T], frozen=True):
    """What a read gave: its value and index; how long ago, in seconds, the server had heard of the leader, and whether
    there was one; whether a cache answered, and the age of that in seconds.
    """

    value: T
    index: int
    last_contact: float
    known_leader: bool
    from_cache: bool
    age: float


class Call(msgspec.Struct, Generic[T], frozen=True):
    """One request. `path` is quoted. `read` makes its value of an answer whose status is among `accept`.

    A call that is `safe` may be sent again after it was sent and no answer came: it does the same twice as once, and
    says the same. `wait` is how long the agent may keep it waiting, in seconds.
    """

    method: str
    path: str
    read: Callable[[Reply], T]
    query: Query = {}
    body: bytes = b""
    accept: frozenset[int] = OK
    safe: bool = False
    wait: float = 0.0


class Flavour:
    """Whether callers wait in a thread, or on an event loop."""


class Threads(Flavour):
    """Calls return values."""


class Loop(Flavour):
    """Calls return awaitables."""


class Maker(Protocol):
    """What makes calls: a client."""

    def make(self, call: Call[T]) -> Any:
        """The call's value or an awaitable of it."""
        ...

    def answer(self, call: Call[T]) -> Any:
        """The same with what is known of it: an `Answer`."""
        ...

    def watch(self, call: Call[T], wait: float) -> Any:
        """An iterator of the call's values, the present one and each after a change."""
        ...


class Family(Generic[F]):
    """Calls that belong together."""

    __slots__ = ("maker",)

    def __init__(self, maker: Maker) -> None:
        self.maker = maker


# -- methods that make calls -------------------------------------------------------------------------------------------


class call(Generic[P, T]):
    """Makes a method of a family into what makes the call that it describes."""

    def __init__(self, describe: Callable[Concatenate[Any, P], Call[T]]) -> None:
        self.describe = describe
        self.__doc__ = describe.__doc__
        self.__name__ = describe.__name__

    @overload
    def __get__(self, family: None, owner: type) -> call[P, T]: ...
    @overload
    def __get__(self, family: Family[Threads], owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, family: Family[Loop], owner: type) -> Callable[P, Awaitable[T]]: ...
    def __get__(self, family: Any, owner: type) -> Any:
        return self if family is None else _Bound(family, self.describe)


class read(Generic[P, T]):
    """The same for what may be watched."""

    def __init__(self, describe: Callable[Concatenate[Any, P], Call[T]]) -> None:
        self.describe = describe
        self.__doc__ = describe.__doc__
        self.__name__ = describe.__name__

    @overload
    def __get__(self, family: None, owner: type) -> read[P, T]: ...
    @overload
    def __get__(self, family: Family[Threads], owner: type) -> Read[P, T]: ...
    @overload
    def __get__(self, family: Family[Loop], owner: type) -> LoopRead[P, T]: ...
    def __get__(self, family: Any, owner: type) -> Any:
        return self if family is None else _Bound(family, self.describe)


class Read(Protocol[P, T]):
    """A read of the API, in threads."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Its value."""
        ...

    def answer(self, *args: P.args, **kwargs: P.kwargs) -> Answer[T]:
        """Its value, and what is known of that."""
        ...

    def watch(self, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        """Its value, and then its new value after each change, for ever. Outages are waited out: what happened
        meanwhile comes as one change.
        """
        ...


class LoopRead(Protocol[P, T]):
    """The same on an event loop."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        """Its value."""
        ...

    def answer(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[Answer[T]]:
        """Its value, and what is known of that."""
        ...

    def watch(self, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        """Its value, and then its new value after each change, for ever; see `Read`."""
        ...


WATCH_WAIT = 300.0  # seconds that one query of a watch blocks


class _Bound:
    """A call of a certain client's family."""

    def __init__(self, family: Family[Any], describe: Callable[..., Call[Any]]) -> None:
        self._family = family
        self._describe = describe
        self.__doc__ = describe.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._family.maker.make(self._describe(self._family, *args, **kwargs))

    def answer(self, *args: Any, **kwargs: Any) -> Any:
        return self._family.maker.answer(self._describe(self._family, *args, **kwargs))

    def watch(self, *args: Any, **kwargs: Any) -> Any:
        return self._family.maker.watch(self._describe(self._family, *args, **kwargs), WATCH_WAIT)


# -- describing --------------------------------------------------------------------------------------------------------


def path(*parts: str) -> str:
    """A path of parts; each is quoted whole, but for its slashes."""
    return "/v1/" + "/".join(quote(part, safe="/:@!$'()*,~") for part in parts)


def get(path: str, read: Callable[[Reply], T], accept: frozenset[int] = OK, **query: Any) -> Call[T]:
    """A read. Parameters are written with `_` for `-`."""
    return Call("GET", path, read, _named(query), accept=accept, safe=True)


def put(
    path: str,
    read: Callable[[Reply], T],
    body: Any = None,
    *,
    method: str = "PUT",
    accept: frozenset[int] = OK,
    safe: bool = False,
    **query: Any,
) -> Call[T]:
    """A write. A body that is no bytes goes out as JSON; of a record without the fields that have their defaults."""
    content = body if isinstance(body, bytes) else b"" if body is None else encode(body)
    return Call(method, path, read, _named(query), content, accept, safe)


def _named(query: dict[str, Any]) -> Query:
    return {name.rstrip("_").replace("_", "-"): value for name, value in query.items()}


def encode(body: Any) -> bytes:
    """JSON as the API takes it."""
    return msgspec.json.encode(body)


def blocking(call: Call[T], index: int, wait: float) -> Call[T]:
    """A read that is answered once its index is past `index`, or after `wait` seconds; at once where that is 0."""
    if not index:
        return call
    query = {**call.query, "index": str(index), "wait": f"{round(wait * 1000)}ms"}
    return msgspec.structs.replace(call, query=query, wait=wait)


# -- reading -----------------------------------------------------------------------------------------------------------


def reads(kind: Any) -> Callable[[Reply], Any]:
    """Reads JSON as a type. The reader is made with the first answer: most programs use few of them."""
    decoder: msgspec.json.Decoder[Any] | None = None

    def decode(reply: Reply) -> Any:
        nonlocal decoder
        if decoder is None:
            decoder = msgspec.json.Decoder(kind)
        try:
            return decoder.decode(reply.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise BadAnswer(f"the answer is not what it should be: {error}") from None

    return decode


def reads_or_none(kind: Any) -> Callable[[Reply], Any]:
    """The same, and None for status 404."""
    decode = reads(kind)
    return lambda reply: None if reply.status == 404 else decode(reply)


def nothing(reply: Reply) -> None:
    """Reads nothing: that the call succeeded is all."""
    return


def content(reply: Reply) -> bytes:
    """The answer's bytes as they are."""
    return reply.body


def text(reply: Reply) -> str:
    """The answer as text."""
    return reply.body.decode("utf-8", "replace")


def answer_of(call: Call[T], reply: Reply) -> Answer[T]:
    """An answer with what its headers say. Raises `BadAnswer`."""
    headers = reply.headers
    return Answer(
        call.read(reply),
        reply.index,
        _number(headers.get("x-consul-lastcontact", "")) / 1000,
        headers.get("x-consul-knownleader", "true") == "true",
        headers.get("x-cache", "").upper() == "HIT",
        _number(headers.get("age", "")),
    )


def _number(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() else 0.0
