"""The lookup map's layout, which the agent writes and programs read: see docs/lookup-map.md.

Numbers are unsigned, 8 bytes, in the machine's own byte order, and aligned: the file never leaves its machine. A place
in the file is told in *words* of 8 bytes, or in bytes where it is called an offset.

- The header, one page.
- Tables of slots, of which the header names the one that counts. A service's slot says where its block is.
- Blocks, each with one service's instances. A block is never changed while a slot names it.

A block says its own generation and the checksum of all that follows it, so that what was read of it is either whole and
what the slot meant, or is read again: nobody has to wait for anybody, and bytes may be torn in any way.
"""

import zlib

import msgspec

MAGIC = int.from_bytes(b"LICTORLM", "little")
VERSION = 1
PAGE = 4096  # bytes of the header
WORD = 8

# Words of the header.
H_MAGIC = 0
H_VERSION = 1
H_STATE = 2
H_RUN = 3  # a number that this run of the agent made up; never 0
H_SIZE = 4  # bytes of the file; grows
H_TABLE = 5  # offset of the table that counts
H_HEARTBEAT = 6  # when the agent last said that it lives: nanoseconds of the clock of `lictor.model.clock`
H_CURRENT = 7  # up to when the map is known to be what the cluster has, on the same clock; 0 for never
H_WALL = 8  # the heartbeat in nanoseconds since 1970
H_BOOT = 9  # two words: the kernel's boot id, zeros where there is none
H_PID = 11  # the agent's process
H_SERVICES = 12  # how many services are in the map

# States.
LIVE = 1  # an agent writes it, or did until it was killed
ENDED = 2  # its agent has ended in order
REPLACED = 3  # there is a newer file under the same path

# A table: the number of its slots, a power of two, and after TABLE_HEAD bytes the slots.
TABLE_HEAD = 64
SLOT = 32  # bytes
# Words of a slot.
S_GENERATION = 0  # of the service's block; 0 where the service is not published (any more)
S_OFFSET = 1  # of the block
S_KEY = 2  # KEY_USED + the name's hash; 0 for a slot never used, where a search ends

KEY_USED = 1 << 32

# A block; its payload follows after BLOCK_HEAD bytes.
BLOCK_HEAD = 32
BLOCK_ALIGN = 64
# Words of a block.
B_CHECKSUM = 0  # CRC-32 of everything that follows this word, up to the payload's end
B_GENERATION = 1
B_INDEX = 2  # the index of the catalog that the block shows
B_LENGTH = 3  # of the payload, in bytes


class Instance(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One instance in a payload. Later versions may append fields; readers pass over those they do not know.

    `address` is the service's or, where it has none, the node's. `status` is that of all its checks together: passing,
    warning, critical or maintenance. `weight` is the one for this status. `rtt` is the estimated round trip time from
    the agent's node in seconds, None where it is not known.
    """

    id: str
    node: str
    address: str
    port: int
    status: str
    weight: int = 1
    rtt: float | None = None
    tags: tuple[str, ...] = ()
    meta: dict[str, str] = {}
    datacenter: str = ""


class Payload(msgspec.Struct, frozen=True, array_like=True):
    """A block's payload, as MessagePack: the service's name in lower case, and its instances by node and id."""

    name: str
    instances: tuple[Instance, ...]


def key_of(name: str) -> str:
    """The name under which a service is in the map: names of services are not case sensitive."""
    return name.lower()


def hash_of(key: str) -> int:
    """The hash of a key: CRC-32 of its UTF-8 bytes. The slot to begin with is the hash modulo the number of slots."""
    return zlib.crc32(key.encode())
