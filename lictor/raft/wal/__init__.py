"""The durable log of a server that has peers: segments of checksummed frames, and snapshots beside them.

`frame` is the format, pure; `segment` reads one file of it; `log` is the log; `snapshots` keeps states; `files` is all
that touches a disk, so that a simulated one can stand in. Calls block and are made from one thread at a time, never
from the event loop. The format is described in docs/log-format.md.

Three errors tell what a server must do: `DamagedLog`, do not start; `DiskFull`, nothing happened, step down and come
back when there is room; `DiskFailed`, end the process, for what the disk holds is unknown.
"""

from lictor.raft.wal.errors import DamagedLog, DiskFailed, DiskFull
from lictor.raft.wal.files import Files, OsFiles
from lictor.raft.wal.frame import Batch, Configuration, Position
from lictor.raft.wal.log import Log, Recovered
from lictor.raft.wal.snapshots import Incoming, Mangled, Offer, Outgoing, SnapshotStore

__all__ = [
    "Batch",
    "Configuration",
    "DamagedLog",
    "DiskFailed",
    "DiskFull",
    "Files",
    "Incoming",
    "Log",
    "Mangled",
    "Offer",
    "OsFiles",
    "Outgoing",
    "Position",
    "Recovered",
    "SnapshotStore",
]
