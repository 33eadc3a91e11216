"""Commands: what a log entry asks the store to do.

Applying a command is deterministic: ids, times and random values are decided by the proposer and travel here. A log
entry is a `Batch`, all that arrived in one turn of the proposer's loop; each of its commands gets an index of its own,
so that compare-and-set tells two writes of one batch apart.
"""

from typing import Annotated, Any

import msgspec

from lictor.model.check import Check
from lictor.model.connect_ca import CAConfiguration, CARoot, RevokedLeaf
from lictor.model.coordinate_entry import CoordinateEntry
from lictor.model.node import Node
from lictor.model.prepared_query import PreparedQuery
from lictor.model.service import NodeService
from lictor.model.session import Session

Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class _Command(msgspec.Struct, frozen=True, tag_field="c", omit_defaults=True):
    """The shape all commands share: tagged with their class name."""


class Register(_Command, frozen=True, tag="register"):
    """Put a node and, where given, a service on it and checks of either; `skip_node_update` leaves a known node
    alone.
    """

    node: Node
    service: NodeService | None = None
    checks: tuple[Check, ...] = ()
    skip_node_update: bool = False


class Deregister(_Command, frozen=True, tag="deregister"):
    """Remove a service or a check of a node, or the node with all it has when both ids are empty."""

    node: str
    service_id: str = ""
    check_id: str = ""


class KVWrite(_Command, frozen=True, tag="kv"):
    """A KV write: `set`, `cas`, `lock`, `unlock`, `delete`, `delete-cas` or `delete-tree`. `index` is what cas
    compares.
    """

    verb: str
    key: str
    value: bytes | None = None
    flags: int = 0
    session: str = ""
    index: int = 0


class SessionCreate(_Command, frozen=True, tag="session-create"):
    """Make a session; its node and checks must exist and none of the checks be critical."""

    session: Session


class SessionDestroy(_Command, frozen=True, tag="session-destroy"):
    """End a session, by request or because its TTL ran out."""

    id: str


class KVOp(msgspec.Struct, frozen=True, tag="kv", tag_field="t"):
    """A KV operation of a transaction, with one of the API's verbs."""

    verb: str
    key: str
    value: bytes | None = None
    flags: int = 0
    index: int = 0
    session: str = ""


class NodeOp(msgspec.Struct, frozen=True, tag="node", tag_field="t"):
    """A node operation of a transaction: `get`, `set`, `cas`, `delete` or `delete-cas` (the index is in the row)."""

    verb: str
    node: Node


class ServiceOp(msgspec.Struct, frozen=True, tag="service", tag_field="t"):
    """A service operation of a transaction, with the verbs of `NodeOp`."""

    verb: str
    node: str
    service: NodeService


class CheckOp(msgspec.Struct, frozen=True, tag="check", tag_field="t"):
    """A check operation of a transaction, with the verbs of `NodeOp`."""

    verb: str
    check: Check


class SessionOp(msgspec.Struct, frozen=True, tag="session", tag_field="t"):
    """A session operation of a transaction: `delete`."""

    verb: str
    session: Session


TxnOp = KVOp | NodeOp | ServiceOp | CheckOp | SessionOp


class Txn(_Command, frozen=True, tag="txn"):
    """Operations that all take effect, or none."""

    ops: tuple[TxnOp, ...]


class QuerySet(_Command, frozen=True, tag="query-set"):
    """Create or replace a prepared query."""

    query: PreparedQuery


class QueryDelete(_Command, frozen=True, tag="query-delete"):
    """Delete a prepared query."""

    id: str


class CoordinateUpdate(_Command, frozen=True, tag="coordinates"):
    """Coordinates of nodes, a batch at a time; those of unknown nodes are passed over."""

    entries: tuple[CoordinateEntry, ...]


class ConfigWrite(_Command, frozen=True, tag="config"):
    """`upsert`, `upsert-cas`, `delete` or `delete-cas` a config entry; `body` is its canonical JSON object."""

    verb: str
    kind: str
    name: str
    body: dict[str, Any] = {}
    index: int = 0


class EntriesCopy(_Command, frozen=True, tag="entries-copy"):
    """Have config entries as they are in the primary datacenter: put and delete those that are named, without a look at
    whether they go together, as that is judged there. `position` is how far the copy is then, and takes the place of
    the setting of that name.
    """

    put: tuple[tuple[str, str, dict[str, Any]], ...]
    delete: tuple[tuple[str, str], ...]
    position: dict[str, Any]


class IntentionWrite(_Command, frozen=True, tag="intention"):
    """A change of one intention: `upsert` or `delete` it by the names of its ends, or `create`, `update` or `delete-id`
    one that has the id `id`. `body` is the `SourceIntention` in its canonical JSON.
    """

    verb: str
    destination: str = ""
    source: str = ""
    id: str = ""
    body: dict[str, Any] = {}


class SettingWrite(_Command, frozen=True, tag="setting"):
    """Replace a cluster-wide setting such as `autopilot`; with `cas`, only if it still has the modify index `index`."""

    name: str
    body: dict[str, Any]
    index: int = 0
    cas: bool = False


class AuthorityWrite(_Command, frozen=True, tag="authority"):
    """Replace the configuration and all roots of the mesh's authority, if nothing of it has changed since `revision`,
    0 for where there is none. `former_cluster` is whose it may have been, where it becomes that of another cluster.
    """

    revision: int
    configuration: CAConfiguration
    roots: tuple[CARoot, ...]
    former_cluster: str = ""


class LeavesRevoke(_Command, frozen=True, tag="leaves-revoke"):
    """Have leaves believed by nobody any more, until they end."""

    leaves: tuple[RevokedLeaf, ...]


class RevokedForget(_Command, frozen=True, tag="revoked-forget"):
    """Forget the revoked leaves that have ended by themselves at `ended`, in seconds since 1970."""

    ended: float


class Reap(_Command, frozen=True, tag="reap"):
    """Forget what was removed at or before `up_to`: tombstones and the last indexes of things that are gone."""

    up_to: int


class RestorePart(_Command, frozen=True, tag="restore-part"):
    """Keep a part of a snapshot's records, for the `Restore` with the same token. The first part of one, number 0,
    drops what was kept for others.
    """

    token: str
    number: int
    data: bytes


class Restore(_Command, frozen=True, tag="restore"):
    """Replace the whole state with that of a snapshot, whose records are in so many parts."""

    token: str
    parts: int


Plain = (
    Register
    | Deregister
    | KVWrite
    | SessionCreate
    | SessionDestroy
    | Txn
    | QuerySet
    | QueryDelete
    | CoordinateUpdate
    | ConfigWrite
    | EntriesCopy
    | IntentionWrite
    | SettingWrite
    | AuthorityWrite
    | LeavesRevoke
    | RevokedForget
    | Reap
    | RestorePart
    | Restore
)


class Numbered(_Command, frozen=True, tag="numbered"):
    """A command that counts once, however often it comes. `origin` is random for each run of who sends it, `number` its
    own there, and all below `low` is settled for the sender: it will not send that again.
    """

    origin: Count
    number: Count
    low: Count
    command: Plain


Command = Plain | Numbered


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """A log entry: commands and the proposer's wall clock when it proposed them, in seconds since 1970."""

    time: float
    commands: tuple[Command, ...]
