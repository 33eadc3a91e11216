"""What a server says of itself when another asks: the call `server.hello`, answered in every state, with a leader or
without. Forming a cluster, joining one and autopilot go by it.

Who asks may say of itself the same in the call's body, so that both know of each other after one call.
"""

import msgspec

METHOD = "server.hello"


class Hello(msgspec.Struct, frozen=True):
    """One server. `number` is that of its `ServerRecord`; `promise` the id of the promise that it gave, see
    `formation_plan`; `servers` the node ids of its cluster's configuration as it knows it; `known` the addresses of
    other servers that it has heard of; `last_contact` is in seconds, infinite for never; `version` is that of Consul
    whose interface it speaks, `build` its own.
    """

    id: str
    node: str
    address: str
    datacenter: str
    number: int
    blank: bool
    expect: int = 0
    promise: str = ""
    joining: bool = False
    servers: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    leader_id: str = ""
    leader: str = ""
    is_leader: bool = False
    term: int = 0
    last_index: int = 0
    last_term: int = 0
    applied: int = 0
    last_contact: float = 0.0
    version: str = ""
    build: str = ""
    raft_protocol: int = 3
    read_replica: bool = False
    serf_port: int = 0
    meta: dict[str, str] = {}


encode_hello = msgspec.msgpack.Encoder().encode
decode_hello = msgspec.msgpack.Decoder(Hello).decode
