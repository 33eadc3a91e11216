"""What a server says of itself when another asks: the call `server.hello`, answered in every state, with a leader or
without. Forming a cluster, joining one and autopilot go by it.

Who asks may say of itself the same in the call's body, so that both know of each other after one call.
"""

from typing import Annotated

import msgspec

METHOD = "server.hello"

# What comes from the network, and goes into logs and the catalog: bounded, and without control characters.
Text = Annotated[str, msgspec.Meta(max_length=512, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Texts = Annotated[tuple[Text, ...], msgspec.Meta(max_length=1024)]
Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class Hello(msgspec.Struct, frozen=True):
    """One server. `number` is that of its `ServerRecord`; `promise` the id of the promise that it gave, see
    `formation_plan`; `servers` the node ids of its cluster's configuration as it knows it; `known` the addresses of
    other servers that it has heard of; `last_contact` is in seconds, infinite for never; `version` is that of Consul
    whose interface it speaks, `build` its own; `cluster` is as `Consensus` has it.
    """

    id: Text
    node: Text
    address: Text
    datacenter: Text
    number: Count
    blank: bool
    expect: Count = 0
    promise: Text = ""
    joining: bool = False
    servers: Texts = ()
    known: Texts = ()
    leader_id: Text = ""
    leader: Text = ""
    is_leader: bool = False
    term: Count = 0
    last_index: Count = 0
    last_term: Count = 0
    applied: Count = 0
    last_contact: float = 0.0
    version: Text = ""
    build: Text = ""
    raft_protocol: Count = 3
    read_replica: bool = False
    serf_port: Count = 0
    meta: Annotated[dict[Text, Text], msgspec.Meta(max_length=256)] = {}
    cluster: Text = ""


encode_hello = msgspec.msgpack.Encoder().encode
decode_hello = msgspec.msgpack.Decoder(Hello).decode
