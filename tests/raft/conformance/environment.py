"""Clusters driven by hand: the commands of etcd's interaction files, played on the core.

Nothing happens by itself. Messages wait until a command delivers or drops them, storage work until a command does it.
The state machine appends payloads; a server's snapshots are its history.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from lictor.raft.core.config import Config, ReadMode
from lictor.raft.core.events import Event
from lictor.raft.core.membership import (
    EMPTY_CHANGE,
    Membership,
    MembershipChange,
    SingleChange,
    Transition,
    decode_change,
    decode_single_change,
)
from lictor.raft.core.message import (
    APPEND_THREAD,
    APPLY_THREAD,
    Entry,
    EntryKind,
    HardState,
    Message,
    MessageKind,
    Snapshot,
)
from lictor.raft.core.node import Node, ProposalDropped
from lictor.raft.core.quorum import Quorum
from lictor.raft.core.storage import Compacted, MemoryStorage, SnapshotOutdated
from tests.raft.conformance import describe, wording
from tests.raft.conformance.datadriven import Command

LOCAL = (APPEND_THREAD, APPLY_THREAD)
QUIET = len(wording.LEVELS) - 1
TRANSITIONS = {"auto": Transition.AUTO, "implicit": Transition.IMPLICIT, "explicit": Transition.EXPLICIT}


class Storage(MemoryStorage):
    """Gives out the newest state as a snapshot, however far the log is compacted."""

    history: list[Snapshot]

    def snapshot(self) -> Snapshot | None:
        return self.history[-1]


class Server:
    """A server, its disk, and the storage work that was not done yet."""

    def __init__(self, node: Node, storage: Storage, config: Config) -> None:
        self.node = node
        self.storage = storage
        self.config = config
        self.append_work: list[Message] = []
        self.apply_work: list[Message] = []


class Environment:
    """All servers of one file, and the messages under way between them."""

    def __init__(self) -> None:
        self.servers: dict[int, Server] = {}
        self.messages: list[Message] = []
        self.level = 0
        self._output: list[str] = []
        self._commands: dict[str, Callable[[Command], None]] = {
            "add-nodes": self._add_nodes,
            "campaign": lambda command: self._first(command).node.campaign(),
            "compact": self._compact,
            "deliver-msgs": self._deliver,
            "process-ready": lambda command: self._each(command, "handling Ready", self._process_ready),
            "process-append-thread": lambda command: self._each(
                command, "processing append thread", self._process_append_thread
            ),
            "process-apply-thread": lambda command: self._each(
                command, "processing apply thread", self._process_apply_thread
            ),
            "log-level": lambda command: self._set_level(command.positional[0]),
            "raft-log": lambda command: self._show_log(self._first(command)),
            "raft-state": self._show_states,
            "set-randomized-election-timeout": self._set_timeout,
            "stabilize": self._stabilize_command,
            "status": self._show_status,
            "tick-election": lambda command: self._tick(command, self._first(command).config.election_ticks),
            "tick-heartbeat": lambda command: self._tick(command, self._first(command).config.heartbeat_ticks),
            "transfer-leadership": self._transfer,
            "forget-leader": lambda command: self._first(command).node.forget_leader(),
            "send-snapshot": self._send_snapshot,
            "propose": lambda command: self._first(command).node.propose(command.positional[1].encode()),
            "propose-conf-change": self._propose_change,
            "report-unreachable": self._unreachable,
        }

    def run(self, command: Command) -> str:
        """Do what a command says. Returns what it prints."""
        self._output = []
        try:
            self._commands[command.name](command)
        except (ProposalDropped, Compacted, SnapshotOutdated) as error:
            if self.level == QUIET:
                return wording.error(error) + "\n"
            self._output.append(wording.error(error))
        printed = "".join(self._output) or "ok"
        return printed if printed.endswith("\n") else printed + "\n"

    # --- output

    def _print(self, text: str) -> None:
        if self.level < QUIET:
            self._output.append(text)

    def _trace(self, event: Event) -> None:
        level, words = wording.line(event)
        if level >= self.level:
            self._print(f"{wording.LEVELS[level]} {words}\n")

    @contextmanager
    def _indented(self) -> Iterator[None]:
        outer, self._output = self._output, []
        try:
            yield
        finally:
            inner, self._output = "".join(self._output), outer
            self._output += [f"  {line}\n" for line in inner.splitlines()]

    def _set_level(self, name: str) -> None:
        self.level = wording.LEVELS.index(name.upper())

    # --- arguments

    def _first(self, command: Command) -> Server:
        return self.servers[int(command.positional[0])]

    def _each(self, command: Command, doing: str, action: Callable[[Server], None]) -> None:
        nodes = [int(node) for node in command.positional]
        for node in nodes:
            if len(nodes) == 1:
                action(self.servers[node])
                continue
            self._print(f"> {node} {doing}\n")
            with self._indented():
                action(self.servers[node])

    # --- commands

    def _add_nodes(self, command: Command) -> None:
        voters = frozenset(map(int, command.values("voters")))
        learners = frozenset(map(int, command.values("learners")))
        index = int(command.value("index", "0"))
        start = Snapshot(
            index, 1 if index else 0, Membership(Quorum(voters), learners), command.value("content").encode()
        )
        base = Config(
            id=1,
            election_ticks=3,
            heartbeat_ticks=1,
            applied=index,
            max_inflight=int(command.value("inflight", str((1 << 31) - 1))),
            async_storage=command.value("async-storage-writes") == "true",
            pre_vote=command.value("prevote") == "true",
            check_quorum=command.value("checkquorum") == "true",
            max_applying_bytes=int(command.value("max-committed-size-per-ready", str((1 << 64) - 1))),
            validate_changes=command.value("disable-conf-change-validation") != "true",
            reads=ReadMode.LEASE if command.value("read-only") == "lease-based" else ReadMode.SAFE,
            step_down_on_removal=command.value("step-down-on-removal") == "true",
        )
        for _ in range(int(command.positional[0])):
            config = msgspec.structs.replace(base, id=len(self.servers) + 1)
            storage = Storage()
            storage.history = [start]
            if index:
                storage.restore(start)
            node = Node(config, storage, random.Random(config.id), self._trace)
            self.servers[config.id] = Server(node, storage, config)

    def _compact(self, command: Command) -> None:
        server = self._first(command)
        server.storage.compact(int(command.positional[1]))
        self._show_log(server)

    def _show_log(self, server: Server) -> None:
        first, last = server.storage.first_index(), server.storage.last_index()
        if last < first:
            self._print(f"log is empty: first index={first}, last index={last}")
        else:
            self._print(describe.entries(server.storage.entries(first, last + 1)))

    def _show_states(self, command: Command) -> None:
        for node, server in self.servers.items():
            status = server.node.status()
            voter = "(Voter)" if node in status.membership.quorum.voters else "(Non-Voter)"
            role = describe.ROLES[status.soft_state.role]
            self._print(f"{node}: {role} {voter} Term:{status.hard_state.term} Lead:{status.soft_state.leader}\n")

    def _show_status(self, command: Command) -> None:
        self._print(describe.progress_map(self._first(command).node.status().progress))

    def _set_timeout(self, command: Command) -> None:
        self._first(command).node.set_election_deadline(int(command.value("timeout")))

    def _tick(self, command: Command, count: int) -> None:
        for _ in range(count):
            self._first(command).node.tick()

    def _transfer(self, command: Command) -> None:
        self.servers[int(command.value("from"))].node.transfer_leader(int(command.value("to")))

    def _unreachable(self, command: Command) -> None:
        node, peer = command.positional
        self.servers[int(node)].node.unreachable(int(peer))

    def _send_snapshot(self, command: Command) -> None:
        source, to = map(int, command.positional)
        server = self.servers[source]
        term = server.node.status().hard_state.term
        message = Message(MessageKind.SNAPSHOT, to, source, term, snapshot=server.storage.snapshot())
        self.messages.append(message)
        self._print(describe.message(message))

    def _propose_change(self, command: Command) -> None:
        changes = describe.parse_changes(command.input)
        transition = TRANSITIONS[command.value("transition", "auto")]
        change: MembershipChange | SingleChange = MembershipChange(changes, transition)
        if command.value("v1") == "true":
            change = SingleChange(changes[0].kind, changes[0].node)
        elif not changes and transition is Transition.AUTO:
            change = EMPTY_CHANGE
        self._first(command).node.propose_change(change)

    # --- messages

    def _deliver(self, command: Command) -> None:
        wanted = command.value("type")
        kind = next((kind for kind, name in describe.KINDS.items() if name == wanted), None)
        count = 0
        for argument in command.arguments:
            if not argument.values:
                count += self._deliver_to(int(argument.key), kind)
            elif argument.key == "drop":
                count += sum(self._drop_to(int(node), kind) for node in argument.values)
        if count == 0:
            self._print("no messages\n")

    def _take(self, wanted: Callable[[Message], bool]) -> list[Message]:
        taken = [message for message in self.messages if wanted(message)]
        self.messages = [message for message in self.messages if not wanted(message)]
        return taken

    def _deliver_to(self, node: int, kind: MessageKind | None = None) -> int:
        taken = self._take(lambda message: message.to == node and kind in (None, message.kind))
        for message in taken:
            self._print(describe.message(message) + "\n")
            try:
                self.servers[node].node.step(message)
            except (LookupError, ValueError, ProposalDropped) as error:
                self._print(wording.error(error) + "\n")
        return len(taken)

    def _drop_to(self, node: int, kind: MessageKind | None) -> int:
        # What a server and its own storage say to each other is never lost.
        taken = self._take(
            lambda message: (
                message.to == node
                and kind in (None, message.kind)
                and message.sender != node
                and message.sender not in LOCAL
            )
        )
        for message in taken:
            self._print(f"dropped: {describe.message(message)}\n")
        return len(taken)

    # --- work

    def _stabilize_command(self, command: Command) -> None:
        level = self.level
        if command.value("log-level"):
            self._set_level(command.value("log-level"))
        try:
            self._stabilize([int(node) for node in command.positional] or list(self.servers))
        finally:
            self.level = level

    def _stabilize(self, nodes: Sequence[int]) -> None:
        """Do all work and deliver all messages, until nothing is left."""
        servers = [(node, self.servers[node]) for node in nodes]
        busy = True
        while busy:
            busy = False
            for node, server in servers:
                if server.node.has_ready():
                    busy = True
                    self._print(f"> {node} handling Ready\n")
                    with self._indented():
                        self._process_ready(server)
            for node, _ in servers:
                if any(message.to == node for message in self.messages):
                    busy = True
                    self._print(f"> {node} receiving messages\n")
                    with self._indented():
                        self._deliver_to(node)
            for node, server in servers:
                if server.append_work:
                    busy = True
                    self._print(f"> {node} processing append thread\n")
                while server.append_work:
                    with self._indented():
                        self._process_append_thread(server)
            for node, server in servers:
                if server.apply_work:
                    busy = True
                    self._print(f"> {node} processing apply thread\n")
                while server.apply_work:
                    with self._indented():
                        self._process_apply_thread(server)

    def _process_ready(self, server: Server) -> None:
        ready = server.node.ready()
        self._print(describe.ready(ready))
        if not server.config.async_storage:
            _write(server, ready.hard_state, ready.snapshot, ready.entries)
            _apply(server, ready.committed)
        for message in ready.messages:
            if message.to == APPEND_THREAD:
                server.append_work.append(message)
            elif message.to == APPLY_THREAD:
                server.apply_work.append(message)
            else:
                self.messages.append(message)
        if not server.config.async_storage:
            server.node.advance()

    def _process_append_thread(self, server: Server) -> None:
        if not server.append_work:
            self._print("no append work to perform")
            return
        work = server.append_work.pop(0)
        self._show_work(work)
        state = HardState(work.term, work.vote, work.commit)
        _write(server, state if state != HardState() else None, work.snapshot, work.entries)
        self._respond(work)

    def _process_apply_thread(self, server: Server) -> None:
        if not server.apply_work:
            self._print("no apply work to perform")
            return
        work = server.apply_work.pop(0)
        self._show_work(work)
        _apply(server, work.entries)
        self._respond(work)

    def _show_work(self, work: Message) -> None:
        self._print("Processing:\n")
        self._print(describe.message(msgspec.structs.replace(work, responses=())) + "\n")

    def _respond(self, work: Message) -> None:
        self._print("Responses:\n")
        for response in work.responses:
            self._print(describe.message(response) + "\n")
        self.messages += work.responses


def _write(server: Server, state: HardState | None, snapshot: Snapshot | None, entries: Sequence[Entry]) -> None:
    if state is not None:
        server.storage.save(state)
    if snapshot is not None:
        server.storage.restore(snapshot)
    server.storage.append(entries)


def _apply(server: Server, entries: Sequence[Entry]) -> None:
    for entry in entries:
        last = server.storage.history[-1]
        membership, update = last.membership, entry.data
        if entry.kind is not EntryKind.NORMAL:
            single = entry.kind is EntryKind.CHANGE_V1
            change = decode_single_change(entry.data) if single else decode_change(entry.data)
            membership, update = server.node.apply_change(entry.index, change), change.context
        server.storage.history.append(Snapshot(entry.index, entry.term, membership, last.data + update))
