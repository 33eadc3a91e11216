"""A cluster in memory, whose every step is chosen by a random number, from one seed.

The servers are the real core. Around it everything is simulated: disks that lose what was not synced (or keep a part of
it), a network that loses, delays, doubles and reorders, servers that crash, partitions, changes of membership. A
schedule of a few hundred steps is one test; a seed that fails replays exactly.

What must hold is checked at the moment when it could break:

- *election safety*: a term has no more than one leader;
- *log matching*: entries of the same index and term are the same, and so are those before them;
- *leader completeness*: a new leader's log has every committed entry;
- *state-machine safety*: no two servers apply different entries at an index;
- *reads*: a confirmed read's index covers everything that was committed when it was asked for.

At the end the network heals and everybody runs: a leader must appear, and everyone must reach the same state.
"""

import random

from lictor.raft.core.config import Config, ReadMode
from lictor.raft.core.membership import (
    Change,
    ChangeKind,
    Membership,
    MembershipChange,
    SingleChange,
    Transition,
)
from lictor.raft.core.message import (
    APPEND_THREAD,
    APPLY_THREAD,
    NO_LIMIT,
    Message,
    MessageKind,
    Snapshot,
)
from lictor.raft.core.node import Node, ProposalDropped, StrangerAnswered
from lictor.raft.core.quorum import Quorum
from lictor.raft.core.storage import MemoryStorage
from tests.raft.simulated_server import Broken, Observer, Server

# What a step may be, how often, and whose mood decides how often that is in one schedule.
STEPS = (
    ("deliver", 60, "network"),
    ("work", 60, "work"),
    ("tick", 30, "time"),
    ("propose", 8, "clients"),
    ("read", 6, "clients"),
    ("change", 1.5, "changes"),
    ("transfer", 0.5, "elections"),
    ("campaign", 0.5, "elections"),
    ("forget", 0.2, "elections"),
    ("crash", 0.7, "trouble"),
    ("restart", 2, "repair"),
    ("partition", 0.4, "trouble"),
    ("heal", 0.8, "repair"),
    ("compact", 1, "snapshots"),
    ("report", 1, "snapshots"),
)
MOODS: dict[str, tuple[float, ...]] = {
    "network": (0.5, 1, 2),
    "work": (0.5, 1, 2),
    "time": (0.5, 1, 3),
    "clients": (0.3, 1, 3),
    "changes": (0, 0, 1, 8),
    "elections": (1, 5, 20),
    "trouble": (0, 1, 3, 10),
    "repair": (0.3, 1, 5),
    "snapshots": (0, 1, 5),
}


class Cluster:
    """Servers, the network between them, and the dice."""

    def __init__(self, seed: int) -> None:
        self.chance = chance = random.Random(seed)
        self.observer = Observer()
        self.network: list[Message] = []
        self.cut: set[tuple[int, int]] = set()
        self.proposed = 0
        self._crashing = True
        count = chance.choice((1, 2, 3, 3, 3, 5))
        voters = frozenset(range(1, count + 1))
        self._base = Config(
            id=1,
            election_ticks=chance.choice((3, 5, 10)),
            heartbeat_ticks=chance.choice((1, 2)),
            async_storage=chance.random() < 0.6,
            pre_vote=chance.random() < 0.5,
            check_quorum=chance.random() < 0.5,
            max_message_bytes=chance.choice((1, 60, NO_LIMIT)),
            max_applying_bytes=chance.choice((1, 60, NO_LIMIT)),
            max_uncommitted_bytes=chance.choice((100, NO_LIMIT)),
            max_inflight=chance.choice((1, 2, 256)),
            max_inflight_bytes=NO_LIMIT,
            reads=ReadMode.SAFE,
            step_down_on_removal=chance.random() < 0.5,
            forward_proposals=chance.random() < 0.7,
        )
        self._start = Snapshot(1, 1, Membership(Quorum(voters)), b"start")
        self.observer.committed[1] = 1
        self.observer.reached(0, 1, b"start")
        self.servers: dict[int, Server] = {}
        for node in voters:
            self._add(node, bootstrapped=True)
        self._loss = chance.choice((0.0, 0.1, 0.3))
        self._double = chance.choice((0.0, 0.1))
        self._in_order = chance.random() < 0.5

    def _add(self, node: int, *, bootstrapped: bool) -> None:
        disk = MemoryStorage()
        if bootstrapped:
            disk.restore(self._start)
        config = Config(**{name: getattr(self._base, name) for name in Config.__struct_fields__} | {"id": node})
        self.servers[node] = Server(config, disk, self.observer, self.chance)
        self.servers[node].start()

    # --- running

    def run(self, steps: int) -> None:
        """Take that many random steps, then let things settle. Raises `Broken`."""
        moods = {kind: self.chance.choice(factors) for kind, factors in MOODS.items()}
        names = [name for name, _, _ in STEPS]
        weights = [weight * moods[kind] for _, weight, kind in STEPS]
        actions = {name: getattr(self, f"_{name}") for name in names}
        for name in self.chance.choices(names, weights, k=steps):
            actions[name]()
        self.settle()

    def _up(self) -> list[Server]:
        return [server for server in self.servers.values() if server.node is not None]

    def _some(self) -> tuple[Server, Node] | None:
        up = self._up()
        if not up:
            return None
        server = self.chance.choice(up)
        assert server.node is not None
        return server, server.node

    def _leader_or_some(self) -> tuple[Server, Node] | None:
        leaders = [(server, server.node) for server in self._up() if server.node is not None and server.node.is_leader]
        return self.chance.choice(leaders) if leaders and self.chance.random() < 0.8 else self._some()

    # --- steps

    def _deliver(self) -> None:
        if not self.network:
            return
        at = 0 if self._in_order else self.chance.randrange(len(self.network))
        message = self.network[at]
        luck = self.chance.random()
        if not (luck > 1 - self._double):
            del self.network[at]
        if luck < self._loss or (message.sender, message.to) in self.cut:
            self._report_snapshot(message, arrived=False)
        else:
            self.hand_over(message)

    def hand_over(self, message: Message) -> None:
        """Deliver one message."""
        server = self.servers.get(message.to)
        if server is None or server.node is None:
            self._report_snapshot(message, arrived=False)
            return
        try:
            server.node.step(message)
        except (ProposalDropped, StrangerAnswered):
            pass
        self._report_snapshot(message, arrived=True)

    def _report_snapshot(self, message: Message, *, arrived: bool) -> None:
        # Whoever carries a snapshot tells its sender what became of it: the sender does not ask again.
        sender = self.servers.get(message.sender)
        if message.kind is MessageKind.SNAPSHOT and sender is not None and sender.node is not None:
            (sender.node.snapshot_sent if arrived else sender.node.snapshot_failed)(message.to)

    def _work(self) -> None:
        chosen = self._some()
        if chosen is not None:
            self.work(*chosen)

    def work(self, server: Server, node: Node) -> None:
        """Do one piece of a server's work, and see that it makes sense."""
        choices = []
        if node.has_ready():
            choices.append(self._take_ready)
        if server.append_work:
            choices.append(self._write_one)
        if server.apply_work:
            choices.append(self._apply_one)
        if choices:
            self.chance.choice(choices)(server, node)

    def _take_ready(self, server: Server, node: Node) -> None:
        ready = node.ready()
        for read in ready.read_states:
            if read.index < server.reads.pop(read.context, 0):
                raise Broken(f"server {server.config.id} confirms a read at {read.index}, more was committed before")
        for entry in ready.entries:
            before = node.entry_term(entry.index - 1)
            if before is not None:
                self.observer.has(server.config.id, entry, before)
        if server.config.async_storage:
            for message in ready.messages:
                if message.to == APPEND_THREAD:
                    server.append_work.append(message)
                elif message.to == APPLY_THREAD:
                    server.apply_work.append(message)
                else:
                    self.network.append(message)
            return
        server.save(ready, sync=ready.must_sync or ready.snapshot is not None)
        if self._crashing and self.chance.random() < 0.005:
            server.crash()
            return
        self.network += ready.messages
        if ready.snapshot is not None:
            server.load(ready.snapshot)
        server.apply(ready.committed)
        node.advance()

    def _write_one(self, server: Server, node: Node) -> None:
        work = server.append_work.pop(0)
        server.save(work, sync=bool(work.responses))
        if work.snapshot is not None:
            server.load(work.snapshot)
        self._respond(server, work)

    def _apply_one(self, server: Server, node: Node) -> None:
        work = server.apply_work.pop(0)
        server.apply(work.entries)
        self._respond(server, work)

    def _respond(self, server: Server, work: Message) -> None:
        for response in work.responses:
            if response.to == server.config.id:
                self.hand_over(response)
            else:
                self.network.append(response)

    def _tick(self) -> None:
        chosen = self._some()
        if chosen is not None:
            chosen[1].tick()

    def _propose(self) -> None:
        chosen = self._leader_or_some()
        if chosen is not None:
            self.propose(chosen[1])

    def propose(self, node: Node) -> bool:
        """Propose something new. Returns whether it was taken."""
        self.proposed += 1
        try:
            node.propose(b"%d" % self.proposed * self.chance.choice((1, 1, 10)))
        except ProposalDropped:
            return False
        return True

    def _read(self) -> None:
        chosen = self._leader_or_some()
        if chosen is None:
            return
        server, node = chosen
        self.proposed += 1
        context = b"read%d" % self.proposed
        server.reads[context] = self.observer.commit
        node.read_index(context)

    def _change(self) -> None:
        chosen = self._leader_or_some()
        if chosen is None:
            return
        node = chosen[1]
        members = node.status().membership
        kinds = (ChangeKind.ADD_VOTER, ChangeKind.ADD_LEARNER, ChangeKind.REMOVE, ChangeKind.UPDATE)
        known = max(self.servers)
        changes = tuple(
            Change(self.chance.choice(kinds), self.chance.randint(1, min(6, known + 1)))
            for _ in range(self.chance.choice((1, 1, 2, 3)))
        )
        change: MembershipChange | SingleChange = MembershipChange(changes, self.chance.choice(tuple(Transition)))
        if len(changes) == 1 and self.chance.random() < 0.5:
            change = SingleChange(changes[0].kind, changes[0].node)
        if members.quorum.joint and not members.auto_leave:
            change = MembershipChange()
        for one in changes:
            if one.node not in self.servers:
                self._add(one.node, bootstrapped=False)
        try:
            node.propose_change(change)
        except ProposalDropped:
            pass

    def _transfer(self) -> None:
        chosen = self._leader_or_some()
        if chosen is not None:
            chosen[1].transfer_leader(self.chance.choice(list(self.servers)))

    def _campaign(self) -> None:
        chosen = self._some()
        if chosen is not None:
            chosen[1].campaign()

    def _forget(self) -> None:
        chosen = self._some()
        if chosen is not None:
            chosen[1].forget_leader()

    def _crash(self) -> None:
        chosen = self._some()
        if chosen is not None:
            chosen[0].crash()

    def _restart(self) -> None:
        down = [server for server in self.servers.values() if server.node is None]
        if down:
            self.chance.choice(down).start()

    def _partition(self) -> None:
        nodes = list(self.servers)
        side = {node for node in nodes if self.chance.random() < 0.5}
        one_way = self.chance.random() < 0.3
        self.cut = {(a, b) for a in nodes for b in nodes if (a in side) != (b in side) and (not one_way or a in side)}

    def _heal(self) -> None:
        self.cut = set()

    def _compact(self) -> None:
        chosen = self._some()
        if chosen is not None:
            chosen[0].take_snapshot(self.chance.choice((0, 0, 3)))

    def _report(self) -> None:
        chosen = self._leader_or_some()
        if chosen is None:
            return
        node, peer = chosen[1], self.chance.choice(list(self.servers))
        self.chance.choice((node.unreachable, node.snapshot_sent, node.snapshot_failed))(peer)

    # --- the end

    def settle(self) -> None:
        """Heal everything. A leader must appear, and all members must come to the same state."""
        self.cut = set()
        self._crashing = False
        for server in self.servers.values():
            if server.node is None:
                server.start()
        target = 0
        for _ in range(400):
            self._drain()
            if target and self._reached(target):
                return
            leaders = self._leaders()
            if leaders and not target:
                newest = max(leaders, key=lambda node: node.term)
                if newest.committed_in_term and self.propose(newest):
                    self._drain()
                    target = self.observer.commit
            for server in self._up():
                if server.node is not None:
                    server.node.tick()
            self._stop_removed()
        raise Broken("nothing was lost any more, but the cluster did not come to the same state everywhere")

    def _stop_removed(self) -> None:
        # The operator's task: leaders that lead on after their removal, and those that disturb others by elections, as
        # soon as nobody needs them to learn of the removal.
        leaders = self._leaders()
        if not leaders:
            return
        status = max(leaders, key=lambda node: node.term).status()
        members = status.membership.members
        disturbing = not (self._base.pre_vote or self._base.check_quorum)
        for node in members:
            if self.servers[node].node is None:
                self.servers[node].start()
        if any(self.servers[node].applied < status.hard_state.commit for node in members):
            return
        for node, server in self.servers.items():
            if node in members or server.node is None or server.node.last_index == 0:
                continue  # the last are new ones, whose addition is on its way
            if disturbing or server.node.is_leader:
                server.crash()

    def _leaders(self) -> list[Node]:
        return [server.node for server in self._up() if server.node is not None and server.node.is_leader]

    def _drain(self) -> None:
        for _ in range(5000):
            busy = bool(self.network)
            messages, self.network = self.network, []
            for message in messages:
                self.hand_over(message)
            for server in self._up():
                while server.node is not None and (server.node.has_ready() or server.append_work or server.apply_work):
                    busy = True
                    self.work(server, server.node)
            if not busy:
                return
        raise Broken("messages go round without end")

    def _reached(self, target: int) -> bool:
        leaders = self._leaders()
        if not leaders:
            return False
        members = max(leaders, key=lambda node: node.term).status().membership.members
        assert members, "a leader without members"
        return all(self.servers[node].node is not None and self.servers[node].applied >= target for node in members)


def play(seed: int, steps: int = 1000) -> Cluster:
    """Run one schedule. Raises `Broken`."""
    cluster = Cluster(seed)
    cluster.run(steps)
    return cluster
