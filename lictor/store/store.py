"""The store: every table, how commands reach them, and how reads are made.

**Indexes.** Each command gets the next index. A topic's index is that of the last command which touched it; an
answer's index is the highest among the topics its read looked at. So a blocking query wakes for what it looks at and
for nothing else. What is deleted leaves its last index behind (a tombstone), so that an answer's index does not go
backwards; `Reap` forgets old ones and raises the *floor*, the index of everything that is not there, and of every KV
prefix, at least. A restored snapshot raises the *base* too, below which no answer's index may be.

**All or nothing.** A command runs between `begin` and `commit`; one that fails is rolled back: its rows are put back
and its topics dropped. `commands.apply` does both.

**Telling.** A command marks the topics it touches; `flush` tells their dependents. The caller flushes once per batch.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import msgspec

from lictor.model.address import canonical_address
from lictor.model.check import Check
from lictor.model.connect_ca import CAConfiguration, CARoot, RevokedLeaf, plain_serial
from lictor.model.coordinate_entry import CoordinateEntry
from lictor.model.kv import KVEntry
from lictor.model.node import Node
from lictor.model.prepared_query import PreparedQuery
from lictor.model.service import Instance
from lictor.model.session import LOCK_DELAY_MAX, Session
from lictor.model.virtual_ip import VirtualIP
from lictor.store.table import Journal, OrderedTable, Table
from lictor.store.watch import KV, KV_PREFIX, Topic, Watches

P = ParamSpec("P")
T = TypeVar("T")


class ConfigRow(msgspec.Struct, frozen=True):
    """A stored config entry: its canonical JSON object without the indexes."""

    kind: str
    name: str
    body: dict[str, Any]
    create_index: int
    modify_index: int


def config_key(kind: str, name: str) -> tuple[str, str]:
    """The key of a config entry: its name is in lower case, as services have theirs, so that what is said of a service
    holds however its name is spelt.
    """
    return kind, name.lower()


class Setting(msgspec.Struct, frozen=True):
    """A cluster-wide setting, such as autopilot's configuration."""

    name: str
    body: dict[str, Any]
    create_index: int
    modify_index: int


class NumberedAnswer(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What a numbered command came to, see `numbered`."""

    origin: int
    number: int
    result: bytes


class NumberedOrigin(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Who numbers commands: last heard at the index `at`, at the time `heard` in seconds since 1970 (about), with
    everything below `low` settled.
    """

    at: int
    origin: int
    heard: float
    low: int


class Answer(msgspec.Struct, Generic[T], frozen=True):
    """What a read gives: its value, the index of the newest thing it looked at (at least 1), and all it looked at."""

    value: T
    index: int
    seen: tuple[Topic, ...]


class View:
    """The store as one read sees it; whatever the read looks at is noted through `saw*`."""

    __slots__ = ("index", "seen", "store")

    def __init__(self, store: "Store") -> None:
        self.store = store
        self.seen: dict[Topic, None] = {}
        self.index = 1

    def saw(self, *topic: str) -> None:
        """Note that the answer depends on `topic`."""
        if topic not in self.seen:
            self.seen[topic] = None
            store = self.store
            index = store.touched.get(topic, store.floor)
            if index > self.index:
                self.index = index

    def saw_key(self, key: str) -> KVEntry | None:
        """Note that the answer depends on a KV key, and return its entry."""
        self.seen[KV, key] = None
        store = self.store
        row = store.kv.get(key)
        if row is not None:
            index = max(row.modify_index, store.base)
        else:
            index = max(store.tombstones.rows.get(key, (key, 0))[1], store.floor)
        if index > self.index:
            self.index = index
        return row

    def saw_prefix(self, prefix: str) -> list[KVEntry]:
        """Note that the answer depends on every key under `prefix`, and return their entries in key order."""
        self.seen[KV_PREFIX, prefix] = None
        store = self.store
        rows = list(store.kv.under(prefix))
        index = store.prefix_index(prefix, rows)
        if index > self.index:
            self.index = index
        return rows


class Changes:
    """Rows that commands have changed, as a journal has them; with `replaced` any row may be another one."""

    __slots__ = ("replaced", "rows")

    def __init__(self) -> None:
        self.rows: Journal = []
        self.replaced = False

    def note(self, index: int, topics: Mapping[Topic, bool], journal: Journal) -> None:
        """A command, of that index, has touched these topics and changed these rows."""
        self.rows.extend(journal)

    def replace(self) -> None:
        """Another state has taken the place of all of it."""
        self.replaced = True

    def clear(self) -> None:
        """Forget them."""
        self.rows.clear()
        self.replaced = False


def _name(row: Any) -> str:
    return str(row.node).lower()


def _addresses(text: str) -> tuple[str, ...]:
    """The address as reverse lookups ask for it."""
    address = canonical_address(text) if text else None
    return (address,) if address is not None else ()


class Store:
    """All state that is replicated. Keys of nodes, services and checks are lower case: their names are not case
    sensitive.
    """

    def __init__(self) -> None:
        # An answer's index is at least 1, and the first command must pass it.
        self.index = 1
        self.floor = 0
        self.base = 0
        self.nodes: Table[str, Node] = Table(
            _name, id=lambda n: (n.id.lower(),) if n.id else (), address=lambda n: _addresses(n.address)
        )
        self.services: Table[tuple[str, str], Instance] = Table(
            lambda i: (i.node.lower(), i.service.id.lower()),
            node=lambda i: (i.node.lower(),),
            name=lambda i: (i.service.service.lower(),),
            connect=lambda i: (i.service.connect_name.lower(),) if i.service.connect_name else (),
            kind=lambda i: (i.service.kind,) if i.service.kind else (),
            address=lambda i: _addresses(i.service.address),
        )
        self.checks: Table[tuple[str, str], Check] = Table(
            lambda c: (c.node.lower(), c.check_id.lower()),
            node=lambda c: (c.node.lower(),),
            service=lambda c: ((c.node.lower(), c.service_id.lower()),),
            status=lambda c: (c.status,),
        )
        self.kv: OrderedTable[KVEntry] = OrderedTable(
            lambda e: e.key, session=lambda e: (e.session,) if isinstance(e.session, str) else ()
        )
        self.tombstones: OrderedTable[tuple[str, int]] = OrderedTable(lambda t: t[0])
        self.sessions: Table[str, Session] = Table(
            lambda s: s.id,
            node=lambda s: (s.node.lower(),),
            check=lambda s: tuple((s.node.lower(), check.lower()) for check in s.check_ids),
        )
        self.queries: Table[str, PreparedQuery] = Table(
            lambda q: q.id,
            name=lambda q: (q.name.lower(),) if q.name and not q.template.type else (),
            template=lambda q: (q.name.lower(),) if q.template.type else (),
            session=lambda q: (q.session,) if q.session else (),
        )
        self.coordinates: Table[tuple[str, str], CoordinateEntry] = Table(
            lambda c: (c.node.lower(), c.segment), node=lambda c: (c.node.lower(),)
        )
        self.config: Table[tuple[str, str], ConfigRow] = Table(
            lambda c: config_key(c.kind, c.name), kind=lambda c: (c.kind,)
        )
        self.settings: Table[str, Setting] = Table(lambda s: s.name)
        self.ca_roots: Table[str, CARoot] = Table(lambda r: r.id)
        self.ca_revoked: Table[str, RevokedLeaf] = Table(lambda r: plain_serial(r.serial))
        self.authority: Table[str, CAConfiguration] = Table(lambda c: "")
        self.virtual_ips: Table[str, VirtualIP] = Table(lambda v: v.service, address=lambda v: (v.address,))
        # Lock delays: until when (seconds since 1970, the proposers' clock) a key cannot be locked again.
        self.lock_delays: Table[str, tuple[str, float]] = Table(lambda d: d[0])

        # Answers to numbered commands; and who numbers them, the longest silent first.
        self.numbered_answers: Table[tuple[int, int], NumberedAnswer] = Table(
            lambda a: (a.origin, a.number), origin=lambda a: (a.origin,)
        )
        self.numbered_origins: Table[tuple[int, int], NumberedOrigin] = Table(
            lambda o: (o.at, o.origin), origin=lambda o: (o.origin,)
        )

        # Parts of a state that is being restored, by token and number; and what `snapshot` has read of them already.
        self.ahead: object = None
        self.restoring: Table[tuple[str, int], tuple[str, int, bytes]] = Table(lambda p: (p[0], p[1]))

        self.touched: dict[Topic, int] = {}
        self.departed: dict[Topic, int] = {}
        self.watches = Watches()
        self.now = 0.0
        self.journal: Journal = []
        for table in self.tables.values():
            table.journal = self.journal
        # Topics of the command being applied, with whether what they name is gone; and those not yet told of.
        self._touching: dict[Topic, bool] = {}
        self._pending: dict[Topic, bool] = {}
        self._replaced = False
        self.flushed: list[Callable[[], None]] = []
        """Called at the end of each flush: the index may have moved."""
        self.changes: Changes | None = None
        """Where rows that commands change are noted, if somebody wants to know."""

    @property
    def tables(self) -> dict[str, Table[Any, Any]]:
        """Every table by the name it has in a snapshot."""
        return {
            "nodes": self.nodes,
            "services": self.services,
            "checks": self.checks,
            "kv": self.kv,
            "tombstones": self.tombstones,
            "sessions": self.sessions,
            "queries": self.queries,
            "coordinates": self.coordinates,
            "config": self.config,
            "settings": self.settings,
            "ca_roots": self.ca_roots,
            "ca_revoked": self.ca_revoked,
            "authority": self.authority,
            "virtual_ips": self.virtual_ips,
            "lock_delays": self.lock_delays,
            "numbered_answers": self.numbered_answers,
            "numbered_origins": self.numbered_origins,
            "restoring": self.restoring,
        }

    # -- changes ------------------------------------------------------------------------------------------------------

    def begin(self, now: float) -> None:
        """Start a command: take the next index. `now` is the proposer's clock, in seconds since 1970.

        The store's time does not go back by the little that servers' clocks are apart. It does by more: a clock that
        was ahead and has been set right would have it stand still, and a lock delay never end.
        """
        self.index += 1
        if now > self.now or now < self.now - LOCK_DELAY_MAX:
            self.now = now
        self.journal.clear()
        self._touching.clear()

    def commit(self) -> None:
        """The command has succeeded: its topics get its index, and their dependents are told at the next `flush`."""
        for topic, gone in self._touching.items():
            if topic[0] != KV:
                self.touched[topic] = self.index
                if gone:
                    self.departed[topic] = self.index
                else:
                    self.departed.pop(topic, None)
        self._pending.update(self._touching)
        if self.changes is not None:
            self.changes.note(self.index, self._touching, self.journal)

    def roll_back(self) -> None:
        """The command has failed: every row is as it was before."""
        for table, key, old in reversed(self.journal):
            table.undo(key, old)
        self.journal.clear()
        self._touching.clear()

    def touch(self, *topic: str) -> None:
        """Mark that the command being applied changes `topic`."""
        self._touching[topic] = False

    def depart(self, *topic: str) -> None:
        """Mark that the command being applied removes what `topic` names; its index is kept until it is reaped."""
        self._touching[topic] = True

    def flush(self) -> int:
        """Tell the dependents of all that was touched since the last flush; returns how many were told."""
        count = self._tell()
        for flushed in self.flushed:
            flushed()
        return count

    def _tell(self) -> int:
        if self._replaced:
            self._replaced = False
            self._pending.clear()
            return self.watches.fire_all()
        if not self._pending:
            return 0
        pending, self._pending = self._pending, {}
        return self.watches.fire(pending)

    def prefix_index(self, prefix: str, rows: Iterable[KVEntry]) -> int:
        """The index of a KV prefix; `rows` are the entries under it."""
        newest = max((row.modify_index for row in rows), default=0)
        removed = max((index for _, index in self.tombstones.under(prefix)), default=0)
        return max(newest, removed, self.floor)

    def reap(self, up_to: int) -> None:
        """Forget what was removed at or before the index `up_to`; the floor rises to the newest of those.

        Whoever looks at something whose index was below the new floor is told: the index in their answer has moved.
        """
        floor = self.floor
        for key, removed in list(self.tombstones):
            if removed <= up_to:
                self.tombstones.delete(key)
                floor = max(floor, removed)
        for topic, removed in list(self.departed.items()):
            if removed <= up_to:
                del self.departed[topic]
                self.touched.pop(topic, None)
                floor = max(floor, removed)
        if floor > self.floor:
            for topic in self.watches.topics():
                if self._raised(topic, floor):
                    self._pending[topic] = False
            self.floor = floor
        for key, until in list(self.lock_delays):
            if not 0 < until - self.now <= LOCK_DELAY_MAX:
                self.lock_delays.delete(key)

    def _raised(self, topic: Topic, floor: int) -> bool:
        """Whether the floor's rise to `floor` moves the index of a watched topic."""
        if topic[0] == KV:
            return self.kv.get(topic[1]) is None and topic[1] not in self.tombstones.rows
        if topic[0] == KV_PREFIX:
            prefix = topic[1]
            newer = any(index >= floor for _, index in self.tombstones.under(prefix))
            return not newer and not any(row.modify_index >= floor for row in self.kv.under(prefix))
        return topic not in self.touched

    def has_removed(self, up_to: int) -> bool:
        """Whether anything is remembered that was removed at or before the index `up_to`."""
        return any(i <= up_to for i in self.departed.values()) or any(i <= up_to for _, i in self.tombstones)

    def replaced(self) -> None:
        """Mark that the whole state was replaced: every dependent is told at the next `flush`."""
        self._replaced = True
        if self.changes is not None:
            self.changes.replace()

    # -- reads --------------------------------------------------------------------------------------------------------

    def read(self, function: Callable[Concatenate[View, P], T], *args: P.args, **kwargs: P.kwargs) -> Answer[T]:
        """Run a read function on the state as it is now."""
        view = View(self)
        value = function(view, *args, **kwargs)
        return Answer(value, view.index, tuple(view.seen))
