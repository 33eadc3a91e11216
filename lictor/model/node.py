"""A node of the catalog: a machine, or anything else with an address that services run on."""

import msgspec


class Node(msgspec.Struct, frozen=True, gc=False, rename="pascal"):
    """A row of the catalog's node table, encoded as the `Node` objects of the HTTP API."""

    id: str = msgspec.field(default="", name="ID")
    node: str = ""
    address: str = ""
    datacenter: str = ""
    tagged_addresses: dict[str, str] | None = None
    meta: dict[str, str] | None = None
    create_index: int = 0
    modify_index: int = 0
