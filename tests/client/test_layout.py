"""The map read by nothing but what docs/lookup-map.md says, as a program in another language would."""

import struct
import zlib
from pathlib import Path
from typing import Any

import msgspec

from tests.client.maps import instance, new_map, put


def word(content: bytes, at: int) -> int:
    return int(struct.unpack_from("=Q", content, at)[0])


def find(content: bytes, name: str) -> Any:
    """A service's instances by the documented steps; None where it is not in the map."""
    assert content[:8] == b"LICTORLM"
    assert word(content, 8) == 1
    assert len(content) == word(content, 8 * 4)
    table = word(content, 8 * 5)
    slots = word(content, table)
    key = name.lower().encode()
    number = zlib.crc32(key) % slots
    for _ in range(slots):
        generation, offset, used, _ = struct.unpack_from("=QQQQ", content, table + 64 + 32 * number)
        if not used:
            return None
        if used == 2**32 + zlib.crc32(key) and generation:
            checksum, own, _, length = struct.unpack_from("=QQQQ", content, offset)
            assert own == generation
            assert zlib.crc32(content[offset + 8 : offset + 32 + length]) == checksum
            found, instances = msgspec.msgpack.decode(content[offset + 32 : offset + 32 + length])
            if found == name.lower():
                return instances
        number = (number + 1) % slots
    return None


def test_the_documented_steps_find_every_service(tmp_path: Path) -> None:
    path = tmp_path / "map"
    file = new_map(path)
    for number in range(700):
        put(file, f"s{number}", instance(number % 250, "warning", weight=2, rtt=0.5, tags=("a",), meta={"k": "v"}))
    put(file, "gone", instance(1))
    file.remove("gone")
    content = path.read_bytes()
    for number in range(700):
        n = number % 250
        row = [f"web{n}", f"n{n}", f"10.0.0.{n}", 8000 + n, "warning", 2, 0.5, ["a"], {"k": "v"}, ""]
        assert find(content, f"S{number}") == [row]
    assert find(content, "gone") is None
    assert word(content, 8 * 12) == 700
    file.end()
    assert word(path.read_bytes(), 8 * 2) == 2
    new_map(path)
    assert word(path.read_bytes(), 8 * 2) == 1
