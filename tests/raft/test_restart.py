"""What a server that starts again must not do at once: it may have heard a leader before, and does not know."""

from pathlib import Path

from lictor.raft.core.message import Message, MessageKind
from lictor.raft.envelope import MESSAGES, pack
from lictor.raft.settings import RaftSettings
from tests.raft.replicas import Cluster, until

SLOW = RaftSettings(election_timeout=3600.0)  # nobody stands by himself


async def test_a_server_without_a_cluster_that_starts_again_holds_its_vote_as_well(tmp_path: Path) -> None:
    """Others may have formed a cluster with it, and their leader counts on what it told before."""
    cluster = Cluster(tmp_path, SLOW)
    place = cluster.place("a")
    candidate = cluster.wire.end("candidate:1")

    def hear(kind: MessageKind, term: int) -> None:
        message = Message(kind, place.replica.number, 99, term)
        body = pack(place.replica.number, 99, "candidate:1", 0.0, 0, 0.0, (message,))
        assert candidate.send(place.address, MESSAGES, body)

    await place.start()
    hear(MessageKind.VOTE, 5)
    await until(lambda: place.replica.term == 5, "a vote of a new server")
    await place.stop()
    await place.start()
    hear(MessageKind.VOTE, 9)
    hear(MessageKind.HEARTBEAT, 7)
    await until(lambda: place.replica.term > 5, "a later term")
    assert place.replica.term == 7, "it took part in an election"
    await cluster.stop()
