"""An entry of the key/value store."""

import msgspec

MAX_VALUE = 512 * 1024  # bytes; `limits.kv_max_value_size` raises it


class KVEntry(msgspec.Struct, frozen=True, gc=False, rename="pascal"):
    """A row of the KV table. The JSON encoding is the API's: `Value` is base64, null where it is empty."""

    lock_index: int
    key: str
    flags: int
    value: bytes | None
    session: str | msgspec.UnsetType = msgspec.UNSET
    create_index: int = 0
    modify_index: int = 0
